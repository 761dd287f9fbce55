"""Arguments and options that several commands share."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from igkd_hpo.cli.completion import (
    complete_cost,
    complete_device,
    complete_existing_study,
    complete_study_to_confirm,
    complete_study_to_run,
)
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.distillation.device import check_device_name
from igkd_hpo.errors import UsageError
from igkd_hpo.escaping import lines, one_line

if TYPE_CHECKING:
    from igkd_hpo.config.study import Study


def study_parameter(text: str, complete: Callable[..., list[str]], *, metavar: str = "STUDY") -> Any:
    """Declare the argument that names a study: its help, and how a shell completes it."""
    return Argument(metavar=metavar, help=text, autocompletion=complete)


StudyFile = Annotated[
    str | None, study_parameter("A study file, or the name of a built-in or existing study.", complete_study_to_run)
]
_EXISTING = "Name or file of an existing study"
ExistingStudy = Annotated[str | None, study_parameter(f"{_EXISTING}; without it, the latest.", complete_existing_study)]
EveryStudy = Annotated[
    str | None, study_parameter(f"{_EXISTING}; without it, every open one.", complete_existing_study)
]
ExistingStudies = Annotated[
    list[str] | None,
    study_parameter(
        "Names or files of existing studies; without them, all.", complete_existing_study, metavar="STUDY..."
    ),
]
StudyToConfirm = Annotated[
    str | None,
    study_parameter(
        "Name of a study, or a file without ranges (best.yaml); without it, the latest.", complete_study_to_confirm
    ),
]
NamedStudy = Annotated[str, study_parameter(f"{_EXISTING}.", complete_existing_study)]
Storage = Annotated[
    str | None,
    Option(
        "--storage",
        metavar="URL",
        help="SQLAlchemy URL of the database, e.g. postgresql+psycopg://user@host/db. "
        "Else IGKD_HPO_STORAGE, OPTUNA_STORAGE, or storage/igkd_hpo.db here.",
    ),
]
Device = Annotated[
    str,
    Option("--device", help="auto, cpu, cuda or cuda:N.", callback=check_device_name, autocompletion=complete_device),
]
WorkersHere = Annotated[
    str, Option("--workers", metavar="N|auto", help="Trials side by side on this host; auto: as many as pay.")
]
AllowImport = Annotated[
    list[str] | None,
    Option("--allow-import", metavar="MODULE", help="Let the study file name code of this module."),
]
UnderLimits = Annotated[
    list[str] | None,
    Option(
        "--under",
        metavar="KEY=VALUE",
        help=f"At most this cost, such as parameters=200k or latency_ms=5; repeatable. KEY: {', '.join(COSTS)}.",
        autocompletion=complete_cost,
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]


def study_argument(text: str | None) -> "Study | str":
    """Read STUDY where a study is created: a file, a name, or `-` for standard input; left out, the built-in."""
    if text != "-":
        return text or DEFAULT
    from igkd_hpo.config.reading import read_stream

    return read_stream(sys.stdin.buffer, source="standard input")


def count_of_workers(text: str) -> int | Literal["auto"]:
    """Read the value of `--workers`. Raises UsageError."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--workers {text!r} is neither a number nor auto; give one of them") from None


def print_line(text: object, *, err: bool = False) -> None:
    """Print one line, whatever names from outside stand in it."""
    typer.echo(one_line(str(text)), err=err)


def print_file(text: str) -> None:
    """Print the content of a file of text as it would be written."""
    typer.echo(lines(text), nl=False)


def print_text(text: str) -> None:
    """Print lines for people; for a terminal break them between words, so that they are no wider than it is."""
    text = lines(text)
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    width = shutil.get_terminal_size().columns
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        typer.echo(textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def print_stream(parts: Iterable[str]) -> None:
    """Print the parts of a table as they come, each with its own ends of lines, for programs."""
    for part in parts:
        typer.echo(part, nl=False)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2))
