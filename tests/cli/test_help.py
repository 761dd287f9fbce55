"""What a stranger types first: help, half a word and Tab, and names that are nearly right."""

import re
from unittest.mock import patch

import pytest

from igkd_hpo.cli.app import COMMANDS
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import parse_study
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open
from tests.cli.conftest import STUDY, Workspace


@pytest.fixture
def bare(tmp_path: object) -> Workspace:
    """A working directory with nothing but the tiny study's file."""
    workspace = Workspace(tmp_path)  # type: ignore[arg-type]
    workspace.write(STUDY, "flowers.yaml")
    return workspace


def complete(workspace: Workspace, line: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last word of a command line."""
    words = line.split(" ")
    asked = {
        "_IGKD_HPO_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    with patch.dict("os.environ", asked):
        return [line for line in workspace.here().stdout.split("\n") if line]


def test_the_first_help_says_where_to_start_and_groups_every_command(bare: Workspace) -> None:
    shown = bare.here("--help").stdout
    assert shown == bare.here().stdout
    assert "Usage: igkd-hpo [OPTIONS] COMMAND" in shown
    assert re.search(
        r"Start here:\s+igkd-hpo launch.*\n.*igkd-hpo launch FOLDER.*\n.*igkd-hpo confirm.*\n.*igkd-hpo export", shown
    )
    groups = re.split(r"╭─ (\w+) ─", shown)
    found = dict(zip(groups[3::2], groups[4::2], strict=True))
    assert list(found) == ["Search", "Results", "Look", "Check", "Keep"]
    assert sorted(re.findall(r"^│ (\w+) ", "".join(found.values()), re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_of_its_own(bare: Workspace, command: str) -> None:
    shown = bare.here(command, "--help").stdout
    told, _, examples = shown.partition("Examples:")
    assert "Example" not in told
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines, shown
    assert all(line.startswith(f"igkd-hpo {command}") for line in lines), lines


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb", "FORCE_COLOR": "1"}])
def test_no_colour_where_none_is_wanted(bare: Workspace, variables: dict[str, str]) -> None:
    coloured = r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7])m"
    with patch.dict("os.environ", {"TERM": "xterm-256color", **variables}):
        shown = bare.here("launch", "--help").stdout
    assert not re.search(coloured, shown)
    if "TERM" in variables:
        assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("igkd-hpo lau", ["launch"]),
        ("igkd-hpo launch ", [*builtin_studies(), "tiny", "flowers.yaml"]),
        ("igkd-hpo launch fl", ["flowers.yaml"]),
        ("igkd-hpo launch ./fl", ["./flowers.yaml"]),
        ("igkd-hpo best ", ["tiny"]),
        ("igkd-hpo stop t", ["tiny"]),
        ("igkd-hpo confirm ", ["tiny", "flowers.yaml"]),
        ("igkd-hpo train ", ["flowers.yaml"]),
        ("igkd-hpo launch --device c", ["cpu"]),
        ("igkd-hpo launch --dev", ["--device"]),
    ],
)
def test_tab_offers_commands_flags_and_values(
    bare: Workspace, line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(bare.url, create=True)
    create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    storage.engine.dispose()
    monkeypatch.setattr("igkd_hpo.cli.completion.gpu_count", lambda: 0)
    assert sorted(complete(bare, line)) == sorted(expected)


def test_tab_asks_the_named_storage_and_stays_silent_about_trouble(bare: Workspace) -> None:
    elsewhere = f"sqlite:///{bare.folder}/why%3F.db"
    storage = open_storage(elsewhere, create=True)
    create_or_open(storage, parse_study(STUDY, source="test"), n_trials=None, pins=None)
    storage.engine.dispose()
    assert complete(bare, f"igkd-hpo best --storage {elsewhere} ", "zsh")[0].count('"tiny"') == 1
    assert complete(bare, "igkd-hpo best ") == []
    (bare.folder / "why?.db").write_text("no database")
    assert complete(bare, f"igkd-hpo best --storage {elsewhere} ", "fish") == []
    assert not (bare.folder / "storage").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lanch"], r"'lanch' .*launch\?"),
        (["digits"], r"'digits'.* igkd-hpo launch digits\?"),
        (["flowers.yaml"], r"igkd-hpo launch flowers\.yaml\?"),
        (["launch", "--worker", "4"], r" --worker .*--workers\?.* igkd-hpo launch --help"),
        (["launch", "-workers", "4"], r" -workers .*--workers\?"),
        (["launch", "--devise=cpu"], r" --devise .*--device\?"),
        (["launch", "-n", "4"], r" -n .* --workers, --trials"),
        (["--workers", "4"], r" --workers before .* igkd-hpo launch --workers"),
        (["launch", "digits", "cifar10"], r"'cifar10' is one argument too many"),
        (["launch", "flower.yaml"], r" flower\.yaml .*\bflowers\.yaml\?"),
        (["validate", "digits.yml"], r" digits\.yml .*digits\?"),
        (["launch", "CIFAR10-Papr"], r"CIFAR10-Papr.*cifar10-paper\?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_is_nearly_right(bare: Workspace, arguments: list[str], expected: str) -> None:
    line = bare.refused_here(*arguments, code=2)
    assert re.search(expected, line), line


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("IGKD_HPO_STORGE", r"IGKD_HPO_STORGE .*IGKD_HPO_STORAGE\?"),
        ("IGKD_HPO_WORLD", r"IGKD_HPO_WORLD is no variable"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused(bare: Workspace, wrong: str, expected: str) -> None:
    with patch.object(Workspace, "environment", lambda self: {wrong: "x"}):
        line = bare.refused_here("status", code=2)
    assert re.search(expected, line), line
