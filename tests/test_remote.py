"""A remote folder holds whole files, and what cannot be one is refused in one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from igkd_hpo import remote as module
from igkd_hpo.errors import AssetError, UsageError
from igkd_hpo.remote import Remote


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    (tmp_path / "remote").mkdir()
    return Remote(f"file://{tmp_path}/remote/")


def test_what_is_written_is_read_in_chunks(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 2)
    remote.check()
    remote.write("a/b/one", [b"abc", b"de"])
    remote.write("a/b/one", [b"later"])
    remote.write("a/b/two", [])
    assert list(remote.read("a/b/one")) == [b"la", b"te", b"r"]
    assert remote.names("a/b") == ["one", "two"]
    assert list(remote.read("a/b/none")) == remote.names("c") == []
    remote.remove("a")
    remote.remove("a")
    assert remote.names("a/b") == []


def test_half_a_file_is_never_there(remote: Remote) -> None:
    def broken() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError

    remote.write("x/one", [b"old"])
    with pytest.raises(AssetError, match="cannot write x/one"):
        remote.write("x/one", broken())
    assert list(remote.read("x/one")) == [b"old"]
    assert remote.names("x") == ["one"]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("/mnt/shared", "/mnt/shared is no place"),
        ("memory://x", "memory://x is no place"),
        ("nonsense://user:secret@host/x", r"nonsense://\*\*\*@host/x cannot be used: Protocol"),
        ("dropbox://x", "dropbox.* to be installed"),  # a package that nothing here needs
        ("file:///dev/null/x", "this host may write there"),
        ("file:///dev/shm/not-mounted/x", "this host may write there"),  # and is not made, to be filled
    ],
)
def test_what_is_no_remote_folder_is_one_line(url: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        Remote(url).check()
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
