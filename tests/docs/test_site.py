"""The reference of the site is complete. That the site builds is a check of its own, in tests/check.py."""

import html
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from markdown import markdown

from igkd_hpo.config.space import Frozen
from igkd_hpo.config.study import Study
from igkd_hpo.errors import ExitCode
from tests.fixtures.documents import program

Generated = Callable[[str, str], dict[str, str]]
VARIABLE = re.compile(r"IGKD_HPO_[A-Z_]+|OPTUNA_STORAGE")


@pytest.fixture
def generated(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Generated:
    """Make a generated page as the site does; the visible text by heading: {anchor: text}."""
    monkeypatch.syspath_prepend(repository / "docs" / "hooks")

    def make(module: str, function: str) -> dict[str, str]:
        page = markdown(getattr(import_module(module), function)(), extensions=["tables", "attr_list", "toc"])
        parts = re.split(r'<h[23] id="([^"]+)">', page)
        return {anchor: _text(body) for anchor, body in zip(parts[1::2], parts[2::2], strict=True)}

    return make


def _text(body: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())


def test_every_command_and_flag_is_in_the_reference_with_its_help(generated: Generated) -> None:
    found = generated("reference_commands", "commands_page")
    for name, command in program().commands.items():
        assert name in found, f"{name} is missing"
        for param in command.params:
            if getattr(param, "hidden", False):
                continue
            assert param.help, f"{name}: {param.name} has no help"
            assert " ".join(param.help.split()) in found[name], f"{name}: {param.name}"
            for flag in param.opts if param.param_type_name == "option" else ():
                assert re.search(rf"(?<!\S){flag}[ ,]", found[name]), f"{name}: {flag}"


def parts_of(part: type[Frozen]) -> Iterator[type[Frozen]]:
    """The class of a section, and those of all sections in it."""
    yield part
    for field in part.model_fields.values():
        for inner in classes_in([field.annotation, *field.metadata]):
            yield from parts_of(inner)


def classes_in(annotation: Any) -> Iterator[type[Frozen]]:
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        yield annotation
    for inner in annotation if isinstance(annotation, list) else get_args(annotation):
        yield from classes_in(inner)


def test_every_key_of_a_study_file_is_in_the_reference_with_its_help(generated: Generated) -> None:
    text = " ".join(generated("reference_keys", "keys_page").values())
    parts = {part.__name__: part for part in parts_of(Study)}
    assert {"Study", "Hyperparameters", "FloatRange", "NoPruner", "Execution"} <= set(parts)
    for name, part in parts.items():
        for key, field in part.model_fields.items():
            assert field.description, f"{name}.{key} has no docstring"
            told = " ".join(field.description.replace("`", "").split())
            row = re.search(rf"(?<![\w.]){key} .{{0,200}}?{re.escape(told)}", text)
            assert row or name == "WordChoices", f"{name}.{key} is missing"
    assert "weight_decay L2 penalty (sgd, adam) or decoupled decay (adamw). number from 0 to 1, or a range" in text


def test_every_environment_variable_is_in_the_reference(repository: Path) -> None:
    code = " ".join(path.read_text(encoding="utf-8") for path in sorted((repository / "igkd_hpo").rglob("*.py")))
    page = (repository / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    ours = [name for name in listed if VARIABLE.fullmatch(name)]
    assert sorted(ours) == sorted(set(VARIABLE.findall(code)))


def test_every_exit_code_is_in_the_reference(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == [int(code) for code in ExitCode]
