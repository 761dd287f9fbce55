"""A bundle's folder is there whole or not at all, whoever else makes one there."""

from pathlib import Path

import pytest

from igkd_hpo.bundle.making import _all_or_nothing


def test_an_export_that_fails_leaves_the_draft_of_another_with_its_process_id(tmp_path: Path) -> None:
    """Containers that share a folder have the same process ids."""
    with _all_or_nothing(tmp_path / "bundle") as draft:
        (draft / "card").write_text("one")
        with pytest.raises(ZeroDivisionError), _all_or_nothing(tmp_path / "bundle") as other:
            (other / "card").write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / "card").read_text() == "one"
