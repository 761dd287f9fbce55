"""Assets reach a host that shares no folder whole and as they were made, or not at all, and once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.assets.parcel import Chunks, pack, receive
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.errors import AssetError, AssetMissing, DataError

INPUTS = {"schema": 1}
SILENT = SilentProgress()


def make(root: Path, array: bytes = b"0123456789", *, nothing: bytes = b"") -> AssetStore:
    """A store with one asset of two files, and one that was not read."""
    store = AssetStore(root)
    for kind in ("logits", "unread"):
        with store.build(kind, INPUTS, SILENT) as draft:
            draft.write("nothing.bin", nothing)
            draft.write_array("array", np.frombuffer(array, np.uint8))
            asset = draft.commit({})
        store.remember(kind, {"request": kind}, asset)
    opened = AssetStore(root)
    opened.recall("logits", {"request": "logits"})
    return opened


def chunks_of(store: AssetStore, length: int, asked: list[str]) -> Chunks:
    def chunks(name: str, size: int) -> Iterator[bytes]:
        asked.append(name)
        content = (store.root / name).read_bytes()
        assert len(content) == size
        yield from (content[start : start + length] for start in range(0, size, length))

    return chunks


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> AssetStore:
    return make(tmp_path_factory.mktemp("sender"))


@pytest.fixture
def there(tmp_path: Path) -> AssetStore:
    return AssetStore(tmp_path / "there")


@given(length=st.integers(1, 200))
def test_what_was_read_arrives_as_it_was_in_chunks_of_any_size(
    sender: AssetStore, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    there, asked = AssetStore(tmp_path_factory.mktemp("there")), list[str]()
    parcel = pack(sender)
    missing = parcel.missing_bytes(there)
    assert receive(parcel, there, chunks_of(sender, length, asked), SILENT) == missing > 10
    assert there.recall("logits", {"request": "logits"}).array("array").tobytes() == b"0123456789"
    assert len(asked) == 2
    with pytest.raises(AssetMissing):
        there.open("unread", INPUTS)


def test_what_is_there_is_not_sent_again(sender: AssetStore, there: AssetStore) -> None:
    parcel, asked = pack(sender), list[str]()
    receive(parcel, there, chunks_of(sender, 7, asked), SILENT)
    asked.clear()
    assert receive(parcel, there, chunks_of(sender, 7, asked), SILENT) == 0
    assert asked == []
    assert parcel.missing_bytes(there) == 0


def damaged(name: str, size: int) -> Iterator[bytes]:
    yield b"?" * size


def cut(name: str, size: int) -> Iterator[bytes]:
    yield b""


def lost(name: str, size: int) -> Iterator[bytes]:
    yield b"?" * (size // 2)
    raise RuntimeError


@pytest.mark.parametrize(("chunks", "raised"), [(damaged, AssetError), (cut, AssetError), (lost, RuntimeError)])
def test_nothing_of_an_asset_stays_that_did_not_arrive_whole(
    sender: AssetStore, there: AssetStore, chunks: Chunks, raised: type[Exception]
) -> None:
    parcel = pack(sender)
    with pytest.raises(raised):
        receive(parcel, there, chunks, SILENT)
    assert [path.name for path in there.root.iterdir()] == ["locks"]
    assert receive(parcel, there, chunks_of(sender, 9, []), SILENT) > 0, "the next try brings it"


def test_an_asset_of_that_name_with_other_content_is_refused_and_left(tmp_path: Path, sender: AssetStore) -> None:
    other = make(tmp_path / "other", b"9876543210")
    with pytest.raises(DataError, match="logits-"):
        receive(pack(sender), other, damaged, SILENT)
    assert other.open("logits", INPUTS).array("array").tobytes() == b"9876543210"


def test_an_asset_made_there_with_the_same_content_is_taken(tmp_path: Path, sender: AssetStore) -> None:
    same = make(tmp_path / "same")
    assert receive(pack(sender), same, damaged, SILENT) == 0
