"""Small JPEGs stand where arrays stand: any rows, the same bits each time, on any decoder; and a study runs on them."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from igkd_hpo.assets import dataset as dataset_module
from igkd_hpo.assets import image_store
from igkd_hpo.assets.dataset import open_dataset, prepare_dataset, row_digests
from igkd_hpo.assets.image_store import JpegImages, open_stored, write_images
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teacher_training import _training_data
from igkd_hpo.assets.test_split import TestPurpose, open_test
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.distillation.images import Chosen, bring
from igkd_hpo.errors import AssetError
from igkd_hpo.sources.patches import _read
from igkd_hpo.trial.build import make_trial

from .conftest import make_study

CPU = torch.device("cpu")
ROWS = np.array([5, 900, 17, 400, 3, *range(100, 130)])


@pytest.fixture(scope="module")
def photographs():
    return _read(48).images


@pytest.fixture
def jpegs(store, progress, photographs) -> JpegImages:
    with store.build("dataset", {"any": 1}, progress) as draft:
        write_images(draft, "train_images", photographs, ROWS, "jpeg")
        images = open_stored(draft.commit({}).folder, "train_images")
    assert isinstance(images, JpegImages)
    return images


def test_they_are_the_photographs_but_for_a_level_or_two(jpegs, photographs):
    assert len(jpegs) == len(ROWS)
    assert jpegs.shape == (len(ROWS), 3, 48, 48)
    error = np.abs(jpegs[:].numpy().astype(int) - photographs[ROWS])
    assert error.mean(axis=(1, 2, 3)).max() < 4  # another photograph is off by 60
    assert error.mean() < 2


@pytest.mark.parametrize("threads", [1, 3])
def test_any_rows_are_the_same_bits_each_time(jpegs, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = jpegs[:]
        assert torch.equal(jpegs[:], whole)
        order = torch.randperm(len(jpegs), generator=torch.Generator().manual_seed(1))
        assert torch.equal(jpegs[order], whole[order])
        assert torch.equal(jpegs[7:20], whole[7:20])
        assert torch.equal(jpegs[order > 20], whole[order > 20])
        assert torch.equal(jpegs[-1], whole[-1])
        assert torch.equal(bring(jpegs, CPU), whole)
        assert jpegs[torch.tensor([], dtype=torch.int64)].shape == (0, 3, 48, 48)
    finally:
        torch.set_num_threads(before)


def test_torchcodec_and_pillow_give_the_same_bits(jpegs, monkeypatch):
    pytest.importorskip("torchcodec")
    fast = image_store._decoder()
    assert fast is not image_store._decode_with_pillow
    with_torchcodec = jpegs[:]
    monkeypatch.setattr(image_store, "_decoder", lambda: image_store._decode_with_pillow)
    assert torch.equal(jpegs[:], with_torchcodec)


def test_without_torchcodec_pillow_decodes(jpegs, monkeypatch):
    whole = jpegs[:]
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    assert image_store._decoder.__wrapped__() is image_store._decode_with_pillow
    monkeypatch.setattr(image_store, "_decoder", image_store._decoder.__wrapped__)
    assert torch.equal(jpegs[:], whole)


def test_an_image_that_cannot_be_decoded_names_the_folder(jpegs):
    path = jpegs._path
    content = bytearray(path.read_bytes())
    content[jpegs._ends[3] : jpegs._ends[3] + 400] = bytes(400)
    path.write_bytes(content)
    ends = np.array(jpegs._ends[1:])
    with pytest.raises(AssetError) as raised:
        JpegImages(path, ends)[torch.arange(10)]
    assert str(path.parent) in str(raised.value)


def jpeg_study(**sections):
    return make_study(
        dataset={"store": "jpeg"},
        augmentation={"crop_padding": 0, "views": 3, "scale": (0.5, 0.9)},
        training={"epochs": 2},
        **sections,
    )


@pytest.fixture
def halves(tmp_path: Path) -> None:
    """80 images of 16x16, brighter on the left or on the right, which JPEG keeps."""
    for label, name in enumerate(("left", "right")):
        for number in range(40):
            pixels = np.random.default_rng(100 * label + number).integers(20, 100, (16, 16, 3), dtype=np.uint8)
            pixels[:, slice(0, 8) if label == 0 else slice(8, 16)] += 120
            path = tmp_path / "images" / "train" / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.mark.usefixtures("halves", "own_teacher")
@pytest.mark.parametrize("logits", ["cached", "online"])
def test_a_study_trains_on_them_as_on_arrays_of_the_same_pixels(settings, progress, logits):
    study = jpeg_study(teacher={"architecture": "own_teacher:good", "normalize": "none", "logits": logits})
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    assert summary.teacher_accuracy == 1
    assets = open_assets(study, settings)
    dataset = assets.dataset
    assert not list(dataset.folder.glob("*images.npy"))
    there = replace(
        dataset, train_images=dataset.train_images[:], validation_images=bring(dataset.validation_images, CPU)
    )
    values = study.hyperparameters.middle() | {"width": 0.1, "layers_removed": 14}
    found = []
    for images in (dataset, there):
        trial = make_trial(study, values, replace(assets, dataset=images), seed=1, device=CPU)
        losses = [(m.train_loss, m.validation_loss) for m in trial.training.epochs()]
        found.append([torch.tensor(losses), *trial.training.network.state_dict().values()])
    assert all(map(torch.equal, *found))


@pytest.mark.usefixtures("halves")
def test_they_are_another_data_set_and_their_test_split_is_kept_likewise(settings, store, progress, monkeypatch):
    monkeypatch.setattr(dataset_module, "_CHUNK_BYTES", 5000)  # 6 images
    config = DatasetConfig(name="folder", root="images", test_fraction=0.25)
    arrays = prepare_dataset(config, settings, store, progress)
    jpegs = prepare_dataset(config.model_copy(update={"store": "jpeg"}), settings, store, progress)
    assert arrays.sha256 != jpegs.sha256
    assert (
        jpegs.train_digests.tolist() == row_digests(jpegs.train_images[:].numpy(), jpegs.train_labels.numpy()).tolist()
    )
    assert torch.equal(arrays.train_labels, jpegs.train_labels)
    pixels = jpegs.train_images[:].double() / 255
    assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx(jpegs.mean)
    assert pixels.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx(jpegs.std)
    images, labels = open_test(config.model_copy(update={"store": "jpeg"}), settings, purpose=TestPurpose.CONFIRM)
    assert isinstance(images, JpegImages)
    assert len(images) == len(labels) == 20


@pytest.mark.usefixtures("halves")
def test_a_decoder_that_makes_other_pixels_is_noticed(settings, store, progress, monkeypatch):
    config = DatasetConfig(name="folder", root="images", store="jpeg")
    made = prepare_dataset(config, settings, store, progress)
    assert open_dataset(config, store).sha256 == made.sha256
    right = image_store._decoder()
    monkeypatch.setattr(image_store, "_decoder", lambda: lambda jpeg: right(jpeg) ^ 1)
    with pytest.raises(AssetError):
        open_dataset(config, store)


@pytest.mark.usefixtures("halves", "own_teacher")
def test_folds_of_them_are_read_from_them(settings, store, progress):
    """A teacher that is trained here learns from a part of the images, which is no copy."""
    study = jpeg_study(teacher={"architecture": "mobilenet_v2", "width": 0.1, "epochs": 1, "folds": 2})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    data = _training_data(study, dataset, 1)
    assert isinstance(data.images, Chosen)
    numbers = data.images.rows
    assert torch.equal(data.digests, dataset.digests[numbers])
    assert torch.equal(data.labels, dataset.train_labels[numbers])
    assert torch.equal(data.images[:], dataset.train_images[numbers])
