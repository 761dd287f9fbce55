"""Assets: made once, found again, never half, damage told."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from igkd_hpo.assets import store as store_module
from igkd_hpo.assets.files import writing
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.errors import AssetError, AssetMissing

INPUTS = {"schema": 1, "of": ["a", 2]}


def make(store, inputs=INPUTS, value=7):
    with store.build("thing", inputs, SilentProgress()) as draft:
        if draft.finished is not None:
            return draft.finished
        draft.write_array("numbers", np.full(1000, value, dtype=np.int64))
        draft.write("note.txt", b"hello")
        return draft.commit({"mean": value})


def test_an_asset_is_found_again_by_its_inputs(store):
    made = make(store)
    found = store.open("thing", {"of": ["a", 2], "schema": 1})
    assert found == made
    assert found.array("numbers").tolist() == [7] * 1000
    assert found.read("note.txt") == b"hello"
    assert found.facts == {"mean": 7}


def test_other_inputs_are_another_asset(store):
    make(store)
    with pytest.raises(AssetMissing, match="prepare"):
        store.open("thing", {"schema": 2, "of": ["a", 2]})
    with pytest.raises(AssetMissing):
        store.open("other", INPUTS)


def test_identity_is_the_content_alone(store, tmp_path):
    same = make(AssetStore(tmp_path / "elsewhere"), inputs={"schema": 9})
    assert make(store).sha256 == same.sha256
    assert make(store, inputs={"schema": 3}, value=8).sha256 != same.sha256


def test_the_second_maker_finds_it_made(store):
    make(store)
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        assert draft.finished is not None


def test_writing_into_an_opened_array_does_not_reach_the_file(store):
    make(store).array("numbers")[:] = 0
    assert store.open("thing", INPUTS).array("numbers")[0] == 7


@pytest.mark.parametrize("name", ["numbers.npy", "note.txt", "manifest.json"])
def test_a_flipped_byte_is_told_with_the_folder_to_delete(store, name):
    path = make(store).folder / name
    data = bytearray(path.read_bytes())
    data[data.find(b"7") if name == "manifest.json" else -1] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssetError, match=rf"{path.parent} .*\({name}") as caught:
        store.open("thing", INPUTS)
    assert not isinstance(caught.value, AssetMissing)
    with pytest.raises(AssetError, match="damaged"):
        make(store)


@pytest.mark.parametrize("name", ["numbers.npy", "manifest.json"])
def test_a_lost_file_is_told(store, name):
    path = make(store).folder / name
    path.unlink()
    with pytest.raises(AssetError, match=rf"{path.parent} .*\({name}"):
        store.open("thing", INPUTS)


def test_a_block_that_fails_leaves_no_asset_but_its_work(store):
    def fail():
        with store.build("thing", INPUTS, SilentProgress()) as draft:
            draft.write("note.txt", b"kept")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    with pytest.raises(AssetMissing):
        store.open("thing", INPUTS)
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        assert draft.read("note.txt") == b"kept"


def test_of_two_makers_at_once_one_makes_and_the_other_waits(store, progress):
    entered, leave = threading.Event(), threading.Event()
    makers = []

    def first():
        with store.build("thing", INPUTS, SilentProgress()) as draft:
            makers.append(draft.finished is None)
            entered.set()
            leave.wait(30)
            draft.commit({})

    class Release:
        def note(self, text):
            progress.note(text)
            leave.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(30)
    with store.build("thing", INPUTS, Release()) as draft:
        makers.append(draft.finished is None)
    thread.join(30)
    assert makers == [True, False]
    assert "waiting for another process that is making thing-" in progress.notes[0]


def test_a_table_goes_on_where_it_stopped(store):
    for start in (0, 4, 8):
        with store.build("thing", INPUTS, SilentProgress()) as draft:
            table = draft.table(a=(np.int32, (10, 2)), b=(np.float16, (10,)))
            assert table.rows_done == start
            stop = min(start + 4, 10)
            rows = np.arange(start, stop)
            table.append(a=np.stack([rows, rows], axis=1).astype(np.int32), b=rows.astype(np.float16))
            if stop == 10:
                asset = draft.commit({})
    assert asset.array("a").tolist() == [[i, i] for i in range(10)]
    assert asset.array("b").tolist() == list(range(10))
    assert {path.name for path in asset.folder.iterdir()} == {"a.npy", "b.npy", "manifest.json"}


def test_a_table_takes_its_disk_space_at_the_start(store):
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        draft.table(a=(np.uint8, (1 << 20,)))
        assert (draft.folder / "a.npy").stat().st_blocks * 512 >= 1 << 20  # a file with holes has no blocks


def test_what_a_killed_write_left_is_no_part_of_the_asset(store):
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        (draft.folder / ".note.txt.123").write_bytes(b"half")
        draft.write("note.txt", b"whole")
        asset = draft.commit({})
    assert {path.name for path in asset.folder.iterdir()} == {"note.txt", "manifest.json"}


def test_a_table_of_another_shape_begins_anew(store):
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        draft.table(a=(np.int32, (4,))).append(a=np.arange(2, dtype=np.int32))
        assert draft.table(a=(np.int32, (4,))).rows_done == 2
        assert draft.table(a=(np.int64, (4,))).rows_done == 0


def test_a_chunk_that_was_not_counted_is_written_again(store):
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        table = draft.table(a=(np.int32, (4,)))
        table.append(a=np.array([1, 2], dtype=np.int32))
        # What a kill between a chunk's bytes and its count leaves behind.
        with (draft.folder / "a.npy").open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"\xff" * 8)
        table = draft.table(a=(np.int32, (4,)))
        table.append(a=np.array([3, 4], dtype=np.int32))
        assert draft.commit({}).array("a").tolist() == [1, 2, 3, 4]


def test_kill_9_in_the_middle_of_a_table_loses_no_counted_row_and_makes_no_asset(store):
    script = textwrap.dedent(
        """
        import sys, numpy as np
        from pathlib import Path
        from igkd_hpo.assets.progress import SilentProgress
        from igkd_hpo.assets.store import AssetStore
        with AssetStore(Path(sys.argv[1])).build("thing", {"schema": 1}, SilentProgress()) as draft:
            table = draft.table(a=(np.int64, (100_000, 8)))
            while table.rows_done < 100_000:
                rows = np.arange(table.rows_done, table.rows_done + 10)
                table.append(a=np.repeat(rows[:, None], 8, axis=1))
                print(table.rows_done, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if int(line) >= 50:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(AssetMissing):
        store.open("thing", {"schema": 1})
    with store.build("thing", {"schema": 1}, SilentProgress()) as draft:
        table = draft.table(a=(np.int64, (100_000, 8)))
        assert table.rows_done >= 50
        done = table.column("a")[: table.rows_done]
        assert (done == np.arange(table.rows_done)[:, None]).all()


def write_beyond_limit(store, how):
    with store.build("thing", INPUTS, SilentProgress()) as draft:
        how(draft)
        draft.commit({})


@pytest.mark.parametrize(
    ("how", "name"),
    [
        (lambda draft: draft.table(big=(np.uint8, (1 << 20,))), "big.npy"),
        (lambda draft: draft.write_array("big", np.zeros(1 << 20, dtype=np.uint8)), "big.npy"),
        (lambda draft: draft.write("big.bin", bytes(1 << 20)), "big.bin"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_asset_and_no_rubbish(store, how, name):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(AssetError, match=rf"/{name}\b.* File too large") as caught:
            write_beyond_limit(store, how)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    with pytest.raises(AssetMissing):
        store.open("thing", INPUTS)
    assert [path.name for path in store.root.glob("*/*") if "lock" not in path.name] == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="cannot write"):
        make(AssetStore(tmp_path / "file" / "assets"))


def test_a_reference_leads_to_the_asset_of_the_last_preparation(store):
    with pytest.raises(AssetMissing, match="prepare"):
        store.recall("thing", {"root": "here"})
    store.remember("thing", {"root": "here"}, make(store))
    newer = make(store, inputs={"schema": 4}, value=9)
    store.remember("thing", {"root": "here"}, newer)
    assert store.recall("thing", {"root": "here"}) == newer


def test_a_damaged_reference_is_told(store):
    store.remember("thing", {"root": "here"}, make(store))
    (path,) = (store.root / "references").iterdir()
    path.write_text(json.dumps(["nonsense"]))
    with pytest.raises(AssetError, match=f"{path} .*`igkd-hpo prepare STUDY`"):
        store.recall("thing", {"root": "here"})


def test_the_store_needs_no_torch(repository: Path):
    code = "import sys, igkd_hpo.assets.store, igkd_hpo.sources.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


@pytest.fixture
def files_read(monkeypatch) -> list[str]:
    """The names of the files that were read in full."""
    names: list[str] = []
    hash_file = store_module.sha256_of
    monkeypatch.setattr(store_module, "sha256_of", lambda path: (names.append(path.name), hash_file(path))[1])
    return names


def test_a_file_is_read_in_full_once_on_a_host(store, files_read, monkeypatch):
    make(store)
    files_read.clear()
    for _ in range(3):
        AssetStore(store.root).open("thing", INPUTS)
    assert files_read == ["note.txt", "numbers.npy"]
    AssetStore(store.root, in_full=True).open("thing", INPUTS)
    assert len(files_read) == 4
    monkeypatch.setenv("IGKD_HPO_HOST", "another")
    store.open("thing", INPUTS)
    assert len(files_read) == 6


def test_a_file_that_was_changed_in_place_is_read_again_also_with_its_old_time(store):
    path = make(store).folder / "numbers.npy"
    store.open("thing", INPUTS)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AssetError, match=r"\(numbers\.npy"):
        store.open("thing", INPUTS)


@pytest.mark.parametrize("note", [b"", b"[]", b'{"numbers.npy": 7}'])
def test_a_damaged_note_of_what_was_read_is_no_fault(store, files_read, note):
    made = make(store)
    store.open("thing", INPUTS)
    (path,) = (store.root / "verified").iterdir()
    path.write_bytes(note)
    files_read.clear()
    assert store.open("thing", INPUTS) == made
    assert files_read == ["note.txt", "numbers.npy"]


def test_an_asset_in_a_folder_without_room_for_notes_is_read_in_full(store, files_read):
    make(store)
    (store.root / "verified").write_bytes(b"in the way")
    files_read.clear()
    for _ in range(2):
        store.open("thing", INPUTS)
    assert len(files_read) == 4


def test_an_asset_under_the_name_of_other_inputs_is_refused(store):
    made, other = make(store), make(store, inputs={"schema": 2}, value=8)
    shutil.rmtree(made.folder)
    shutil.copytree(other.folder, made.folder)
    with pytest.raises(AssetError, match=f"{made.folder} .*other inputs"):
        store.open("thing", INPUTS)


@pytest.mark.parametrize(("number", "kept"), [(errno.ENOSPC, True), (errno.EROFS, False), (errno.EACCES, False)])
def test_only_a_full_disk_keeps_work(tmp_path, number, kept):
    with pytest.raises(AssetError) as error, writing(tmp_path):
        raise OSError(number, os.strerror(number))
    assert ("kept" in str(error.value)) is kept
