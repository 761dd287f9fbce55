"""Files that are written in one step, and folders that are made for those who may write there."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from igkd_hpo.files import create_file, make_folder, replacing, write_output, write_text
from igkd_hpo.search.storage import open_storage
from igkd_hpo.settings import Settings


def test_writing_replaces_the_file_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("the old text", encoding="utf-8")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "the new text")
    assert path.read_text(encoding="utf-8") == "the old text"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_text(path, "the new text")
    assert path.read_text(encoding="utf-8") == "the new text"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_the_same_file_at_once_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    with replacing(path) as first:  # two processes of one id, as containers have
        with replacing(path) as second:
            second.write(b"second")
        first.write(b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_goes_where_a_person_says(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, b"text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert pipe.is_fifo()
    link.symlink_to("file")
    for text in (b"first", b"second"):
        write_output(link, text)
        assert (tmp_path / "file").read_bytes() == text
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_of_ours_takes_the_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("theirs")
    write_text(tmp_path / "link", "ours")
    assert not (tmp_path / "theirs").exists()


@pytest.fixture
def umask() -> Iterator[None]:
    """The usual umask, under which everybody reads what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("above", "umask_of_user", "folder", "file"),
    [
        (0o755, 0o022, 0o700, 0o600),  # a folder of one's own
        (0o700, 0o022, 0o700, 0o600),
        (0o1777, 0o000, 0o700, 0o600),  # /tmp
        (0o775, 0o002, 0o770, 0o660),  # a folder that a group shares
        (0o2770, 0o007, 0o2770, 0o660),
        (0o775, 0o077, 0o700, 0o600),  # the user's own wish is tighter
        (0o777, 0o000, 0o777, 0o666),
    ],
)
def test_what_is_made_is_for_those_who_may_write_there(
    tmp_path: Path, above: int, umask_of_user: int, folder: int, file: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(above)
    os.umask(umask_of_user)
    make_folder(shared / "storage" / "logs")
    create_file(shared / "studies.db")
    for made in (shared / "storage", shared / "storage" / "logs"):
        assert stat.S_IMODE(made.stat().st_mode) == folder
    assert stat.S_IMODE((shared / "studies.db").stat().st_mode) == file


@pytest.mark.usefixtures("umask")
def test_what_is_there_keeps_its_permissions_and_content(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    (there / "studies.db").write_text("content")
    make_folder(there)
    create_file(there / "studies.db")
    assert stat.S_IMODE(there.stat().st_mode) == 0o755
    assert stat.S_IMODE((there / "studies.db").stat().st_mode) == 0o644
    assert (there / "studies.db").read_text() == "content"


@pytest.mark.usefixtures("umask")
def test_a_new_database_and_its_journal_are_nobody_elses(tmp_path: Path) -> None:
    paths = Settings.resolve().paths
    for url, folder in ((f"sqlite:///{paths.database}", paths.root), (f"sqlite:///{tmp_path}/other.db", tmp_path)):
        storage = open_storage(url, create=True)
        with storage.reading() as connection:
            connection.exec_driver_sql("SELECT * FROM studies")  # and with it the journal's files
            modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("*.db*") if path.suffix != ".lock"}
        storage.engine.dispose()
        assert len(modes) > 1
        assert set(modes.values()) == {0}
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700


def test_a_file_that_is_there_is_not_opened(tmp_path: Path) -> None:
    """To close any descriptor of SQLite's file drops the locks that this process holds on it: a disk I/O error."""
    (tmp_path / "there").mkdir()
    create_file(tmp_path / "there")  # to open a folder so would be an error
