"""Calls from a notebook leave its process as it was; commands set their own as they need it."""

import re

import pytest
from typer.testing import CliRunner

import igkd_hpo
from igkd_hpo.cli.app import app
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.distillation import heap
from igkd_hpo.errors import AssetError


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_only_a_command_changes_how_freed_memory_is_kept(command: str, tmp_path, monkeypatch) -> None:
    kept: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        raise AssetError("the disk is full")

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: kept.append("library") or object())
    for module in ("igkd_hpo.trial.preparation", "igkd_hpo.assets.study_assets"):  # imported before they are patched
        monkeypatch.setattr(f"{module}.prepare_assets", refuse)
    file = tmp_path / "fixed.yaml"
    low = {"alpha": "0.5", "temperature": "4.0", "learning_rate": "0.1"}
    text = builtin_studies()["digits"].read_text()
    file.write_text(re.sub(r"(\w+): \{type:.*\}", lambda found: f"{found[1]}: {low.get(found[1], '0.5')}", text))
    with pytest.raises(AssetError, match="the disk is full"):
        getattr(igkd_hpo, command)(str(file), progress=False)
    assert kept == []
    CliRunner().invoke(app, [command, str(file)])
    assert kept == ["library"]
