"""Files that are written in one step."""

from pathlib import Path

import pytest

from igkd_hpo.files import write_text


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
