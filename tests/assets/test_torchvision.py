"""Data sets of torchvision: small ones in the layouts of several, and downloads from a server of the test's own."""

import gzip
import hashlib
import http.server
import io
import shutil
import struct
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.errors import DataError
from igkd_hpo.sources import find_source
from igkd_hpo.sources.torchvision import DATA_SETS, WITHOUT_CLASSES

from .conftest import coded_image


def of(name, **keys):
    keys = {"validation_fraction": 0.25, "test_fraction": 0.25, **keys}
    return DatasetConfig(name=f"torchvision/{name}", root="there", **keys)


def sizes(dataset, settings, config):
    test_images, _ = open_test(config, settings, purpose=TestPurpose.BENCHMARK)
    return len(dataset.train_images), len(dataset.validation_images), len(test_images)


def write_jpeg(path, label, number, size=(9, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coded_image(label, number, 8)).resize(size).save(path, "JPEG")


def test_each_data_set_of_torchvision_is_taken_or_refused_with_a_reason():
    classes = {name for name in datasets.__all__ if isinstance(getattr(datasets, name), type)} - {"VisionDataset"}
    assert set(DATA_SETS) | set(WITHOUT_CLASSES) == classes
    assert not set(DATA_SETS) & set(WITHOUT_CLASSES)
    for name in WITHOUT_CLASSES:
        with pytest.raises(ValueError, match=f'^"torchvision/{name}" [^\n]+; choose another data set$'):
            find_source(f"torchvision/{name}")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision/Flower102", "torchvision/Flowers102"),
        ("torchvision/fashionmnist", "torchvision/FashionMNIST"),
        ("MNIST", "torchvision/MNIST"),
        ("cifar", "cifar10"),
    ],
)
def test_near_names_are_told(name, near):
    with pytest.raises(ValueError, match=f"did you mean {near}"):
        find_source(name)


def test_train_and_test_of_grey_images(tmp_path, settings, store, progress):
    raw = tmp_path / "there" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 12)):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    dataset = prepare_dataset(of("FashionMNIST"), settings, store, progress)
    assert sizes(dataset, settings, of("FashionMNIST")) == (30, 10, 12)
    assert dataset.image_size == (28, 28)
    assert dataset.class_names[:2] == ("T-shirt/top", "Trouser")
    values = dataset.train_images[:, :, 3, 4]
    assert (values == values[:, :1]).all()
    assert (values[:, 0] % 10 == dataset.train_labels).all()


def make_textures(root, count=4):
    """DTD: train, val and test in lists of files, of several sizes."""
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        lines = []
        for label, name in enumerate(("banded", "woven")):
            for number in range(count):
                file = f"{name}/{start + number:03d}.jpg"
                write_jpeg(root / "dtd" / "dtd" / "images" / file, label, number, (8 + number, 9))
                lines.append(file)
        path = root / "dtd" / "dtd" / "labels" / f"{split}1.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in reversed(lines)))


def test_train_val_and_test_of_many_sizes(tmp_path, settings, store, progress):
    make_textures(tmp_path / "there")
    config = of("DTD", image_size=16)
    dataset = prepare_dataset(config, settings, store, progress)
    assert sizes(dataset, settings, config) == (8, 8, 8)
    assert dataset.own_validation
    assert dataset.class_names == ("banded", "woven")
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4, "in the order of the files, not of the list"
    assert any("8 training images" in note and "1,880 were published" in note for note in progress.notes)


def test_what_has_many_sizes_needs_one():
    with pytest.raises(ValueError, match=r"torchvision/DTD has images of many sizes; give image_size"):
        of("DTD")


def test_no_split_of_its_own(tmp_path, settings, store, progress):
    for label, name in enumerate(("Forest", "River")):
        for number in range(20):
            write_jpeg(tmp_path / "there" / "eurosat" / "2750" / name / f"{name}_{number}.jpg", label, number, (8, 8))
    dataset = prepare_dataset(of("EuroSAT"), settings, store, progress)
    assert sizes(dataset, settings, of("EuroSAT")) == (22, 8, 10)


def test_images_that_torchvision_opens_itself(tmp_path, settings, store, progress):
    base = tmp_path / "there" / "oxford-iiit-pet"
    lines = {"trainval": [], "test": []}
    for label, name in enumerate(("Bengal", "pug")):
        for number in range(10):
            path = base / "images" / f"{name}_{number}.jpg"  # some of which are PNG
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coded_image(label, number)).save(path, "PNG")
            lines["test" if number >= 6 else "trainval"].append(f"{name}_{number} {label + 1} {label + 1} 1\n")
    (base / "annotations").mkdir()
    for split, content in lines.items():
        (base / "annotations" / f"{split}.txt").write_text("".join(content))
    config = of("OxfordIIITPet", image_size=8, validation_fraction=0.34)
    dataset = prepare_dataset(config, settings, store, progress)
    assert sizes(dataset, settings, config) == (7, 5, 8)
    assert dataset.class_names == ("Bengal", "Pug")
    assert (dataset.train_images[0].permute(1, 2, 0).numpy()[1:, 7] < 60).all()


def test_a_damaged_image_is_an_error_that_names_it(tmp_path, settings, store, progress):
    make_textures(tmp_path / "there")
    (tmp_path / "there" / "dtd" / "dtd" / "images" / "woven" / "101.jpg").write_bytes(b"none")
    with pytest.raises(DataError, match=r"torchvision/DTD: item 5 of val cannot be read: .*run again to download"):
        prepare_dataset(of("DTD", image_size=16), settings, store, progress)


@pytest.fixture
def server(monkeypatch):
    """A place to download DTD from: `content` is what it sends, `asked` counts how often."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            served.asked += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.asked, served.content = 0, b""
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.DTD, "_URL", f"http://127.0.0.1:{served.server_port}/dtd-r1.0.1.tar.gz")
        yield served
        served.shutdown()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive of DTD that the server should send, whose checksum torchvision expects."""
    make_textures(tmp_path / "packed")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(tmp_path / "packed" / "dtd" / "dtd", "dtd")
    shutil.rmtree(tmp_path / "packed")
    monkeypatch.setattr(datasets.DTD, "_MD5", hashlib.md5(content.getvalue()).hexdigest())
    return content.getvalue()


CONFIG = of("DTD", image_size=16)
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # how torchvision unpacks


def test_a_download_is_there_as_a_whole_and_once(tmp_path, settings, store, progress, server, archive):
    server.content = archive
    first = prepare_dataset(CONFIG, settings, store, progress)
    asked = server.asked
    shutil.rmtree(settings.paths.assets)
    again = prepare_dataset(CONFIG, settings, store, progress)
    assert (again.sha256, server.asked) == (first.sha256, asked)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["dtd"]


@pytest.mark.parametrize("fault", ["cut off", "another checksum", "no archive", "no network"])
def test_a_download_that_fails_leaves_nothing(tmp_path, settings, store, progress, server, archive, monkeypatch, fault):
    server.content = archive
    with monkeypatch.context() as patch:
        if fault == "cut off":
            server.content = archive[: len(archive) // 2]
        elif fault == "another checksum":
            patch.setattr(datasets.DTD, "_MD5", "0" * 32)
        elif fault == "no archive":
            server.content = gzip.compress(b"<html>")
            patch.setattr(datasets.DTD, "_MD5", hashlib.md5(server.content).hexdigest())
        else:
            patch.setattr(datasets.DTD, "_URL", "http://127.0.0.1:9/dtd.tar.gz")
        with pytest.raises(DataError, match=r"^torchvision/DTD is not .whole. in [^\n]*there, and could not be downl"):
            prepare_dataset(CONFIG, settings, store, progress)
    assert list((tmp_path / "there").iterdir()) == []
    server.content = archive
    assert len(prepare_dataset(CONFIG, settings, store, progress).train_images) == 8


def test_what_a_killed_download_left_is_not_taken_for_the_whole(
    tmp_path, settings, store, progress, server, archive, monkeypatch
):
    server.content = archive
    unpack = tarfile.TarFile.extractall

    def killed(tar, *args, **kwargs):
        unpack(tar, *args, members=tar.getmembers()[:5], **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", killed)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # as nothing is cleaned after a kill
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset(CONFIG, settings, store, progress)
    assert list((tmp_path / "there").rglob("*.jpg"))
    assert len(prepare_dataset(CONFIG, settings, store, progress).train_images) == 8
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["dtd"]


def test_what_others_left_half_is_put_aside_and_kept(tmp_path, settings, store, progress, server, archive):
    server.content = archive
    left = tmp_path / "there" / "dtd" / "dtd" / "notes.txt"
    left.parent.mkdir(parents=True)
    left.write_text("mine")
    assert len(prepare_dataset(CONFIG, settings, store, progress).train_images) == 8
    assert (tmp_path / "there" / "dtd.incomplete-1" / "dtd" / "notes.txt").read_text() == "mine"


def test_the_reason_is_told_where_a_library_writes_it_on_a_later_line(settings, store, progress, monkeypatch):
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"torchvision/KMNIST is not .whole. in [^\n]*Connection refused"):
        prepare_dataset(of("KMNIST"), settings, store, progress)


def test_what_torchvision_does_not_download_says_so(settings, store, progress):
    with pytest.raises(DataError, match=r"torchvision/StanfordCars is not .whole. in .*original URL is broken"):
        prepare_dataset(of("StanfordCars", image_size=8), settings, store, progress)
    with pytest.raises(DataError, match=r"torchvision/FER2013 is not .whole. in .*kaggle"):
        prepare_dataset(of("FER2013"), settings, store, progress)
