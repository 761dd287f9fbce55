"""What is seen of images before a study of them is chosen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igkd_hpo.errors import DataError
from igkd_hpo.starting.images import look_at_images


def save(path: Path, size: tuple[int, int], *, grey: bool = False, seed: int = 0) -> None:
    """Write an image of noise, (width, height), between the dark and the bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 200, (size[1], size[0], 1 if grey else 3), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if grey else pixels).save(path)


def folder(
    root: Path, sizes: list[tuple[int, int]], *, splits: tuple[str, ...] = ("train",), grey: bool = False
) -> Path:
    for split in splits:
        for name in ("ash", "elm"):
            for number, size in enumerate(sizes):
                save(root / split / name / f"{number}.png", size, grey=grey, seed=number)
    return root


def test_sides_and_splits_are_those_of_the_files(tmp_path: Path) -> None:
    root = folder(tmp_path / "trees", [(5, 9), (40, 30), (30, 40), (300, 60)], splits=("train", "test"))
    seen = look_at_images(root, "trees")
    assert (seen.root, seen.class_names) == ("trees", ("ash", "elm"))
    assert (seen.train, seen.validation, seen.test) == ((4, 4), (0, 0), (4, 4))
    assert (seen.short, seen.long, seen.smallest, seen.largest) == (30, 40, 5, 300)
    assert (seen.elongated, seen.same_square, seen.grey, seen.unreadable) == (1.0, None, 0.0, 0)


def test_a_list_is_looked_at_as_a_folder_is(tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for number in range(6):
        save(tmp_path / f"{number}.png", (20, 20))
        rows.append(f"{number}.png,{'ab'[number % 2]},{'train' if number < 4 else 'val'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    seen = look_at_images(tmp_path / "list.csv", "list.csv")
    assert (seen.train, seen.validation, seen.same_square) == ((2, 2), (1, 1), 20)


def test_grey_and_drawn_images_are_told_from_photographs(tmp_path: Path) -> None:
    assert look_at_images(folder(tmp_path / "grey", [(30, 30)], grey=True), "grey").grey == 1
    drawn = folder(tmp_path / "drawn", [])
    for name in ("ash", "elm"):
        (drawn / "train" / name).mkdir(parents=True)
        pixels = np.full((50, 50), 255, np.uint8)
        pixels[20:24] = 0
        Image.fromarray(pixels).save(drawn / "train" / name / "0.png")
    assert look_at_images(drawn, "drawn").ink == 1
    assert look_at_images(tmp_path / "grey", "grey").ink == 0


def test_what_a_camera_of_twelve_bits_writes_is_dark_in_sixteen(tmp_path: Path) -> None:
    for name in ("ash", "elm"):
        (tmp_path / "train" / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 4096, (12, 12), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "0.png")
    assert look_at_images(tmp_path, "dark").bits == 12


def test_damaged_images_are_counted_and_refused_where_there_are_no_others(tmp_path: Path) -> None:
    root = folder(tmp_path / "trees", [(20, 20)] * 2)
    (root / "train" / "ash" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    whole = (root / "train" / "elm" / "0.png").read_bytes()
    (root / "train" / "elm" / "0.png").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "ash" / "2.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (root / "train" / "ash" / "notes.txt").write_text("no image")
    seen = look_at_images(root, "trees")
    assert (seen.looked_at, seen.decoded, seen.unreadable, seen.left_out, seen.heic) == (4, 3, 2, 2, 1)
    assert seen.train == (1, 1)
    assert seen.not_read.startswith("2 images cannot be read")
    assert "2 files left out (1 HEIC)" in seen.not_read
    for name in ("ash", "elm"):
        (root / "train" / name / "1.png").write_bytes(b"nothing")
    (root / "train" / "elm" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not one of 4 images"):
        look_at_images(root, "trees")
