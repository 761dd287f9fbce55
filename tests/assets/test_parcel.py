"""Assets reach a host that shares no folder whole and as they were made, or not at all, and once."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.assets.parcel import Chunks, chunks_at, find_parcel, pack, put_parcel, receive
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.errors import AssetError, AssetMissing, DataError
from igkd_hpo.remote import Remote

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


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    (tmp_path / "remote").mkdir()
    return Remote(f"file://{tmp_path}/remote")


def test_what_was_put_into_a_remote_folder_arrives_elsewhere(
    sender: AssetStore, there: AssetStore, remote: Remote, tmp_path: Path
) -> None:
    assert find_parcel("key", remote) is None
    put_parcel(pack(sender), "key", sender, remote)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "remote" / "files").iterdir()}
    assert len(before) == 2
    put_parcel(pack(sender), "key", sender, remote)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is there is not sent again"
    parcel = find_parcel("key", remote)
    assert parcel == pack(sender)
    assert receive(parcel, there, chunks_at(remote, parcel), SILENT) == parcel.missing_bytes(
        AssetStore(tmp_path / "none")
    )
    assert there.recall("logits", {"request": "logits"}).array("array").tobytes() == b"0123456789"


def test_of_two_hosts_that_made_other_bits_of_the_same_inputs_each_parcel_arrives_whole(
    sender: AssetStore, remote: Remote, tmp_path: Path
) -> None:
    """As on GPUs, by two first launches at once: their teachers differ, or their maps alone, which no key tells."""
    other = make(tmp_path / "other", b"9876543210")
    put_parcel(pack(sender), "of the sender", sender, remote)
    put_parcel(pack(sender), "of both", sender, remote)
    put_parcel(pack(other), "of both", other, remote)
    for key, content in (("of the sender", b"0123456789"), ("of both", b"9876543210")):
        parcel, there = find_parcel(key, remote), AssetStore(tmp_path / key)
        assert parcel is not None
        receive(parcel, there, chunks_at(remote, parcel), SILENT)
        assert there.recall("logits", {"request": "logits"}).array("array").tobytes() == content


def test_what_is_damaged_in_a_remote_folder_is_refused(
    sender: AssetStore, there: AssetStore, remote: Remote, tmp_path: Path
) -> None:
    put_parcel(pack(sender), "key", sender, remote)
    parcel = find_parcel("key", remote)
    assert parcel is not None
    array = max((tmp_path / "remote" / "files").iterdir(), key=lambda path: path.stat().st_size)
    array.write_bytes(array.read_bytes()[:-1] + b"?")
    with pytest.raises(AssetError, match="damaged"):
        receive(parcel, there, chunks_at(remote, parcel), SILENT)
    array.unlink()
    with pytest.raises(AssetError, match="damaged"):
        receive(parcel, there, chunks_at(remote, parcel), SILENT)
    assert [path.name for path in there.root.iterdir()] == ["locks"]
    assert find_parcel("key", remote) is None, "which is not whole is as one that is not there"


@pytest.mark.parametrize(
    "written",
    [
        {"manifests": {"../x": '{"files": {}}'}, "references": {}},
        {"manifests": {"x": '{"files": {"../../x": {"bytes": 1, "sha256": ""}}}'}, "references": {}},
        {"manifests": {"x": '{"files": {"x": {"bytes": 1, "sha256": "../x"}}}'}, "references": {}},
        {"manifests": {}, "references": {"references/../../x": ""}},
        {"manifests": {}, "references": {"/etc/x": ""}},
        {"manifests": {"x": "no JSON"}, "references": {}},
        {"manifests": [], "references": {}},
        [],
    ],
)
def test_a_parcel_that_nobody_put_so_is_refused(written: object, remote: Remote) -> None:
    remote.write("parcels/key.json", [json.dumps(written).encode()])
    with pytest.raises(AssetError, match="delete it"):
        find_parcel("key", remote)
