"""Arguments and options that several commands share, and how the name of a study becomes a study."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from igkd_hpo.config.builtin import DEFAULT, builtin_studies
from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.config.study import Study
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage import check_url, open_storage
from igkd_hpo.search.study import SearchStudy, latest_study, open_study, study_names
from igkd_hpo.settings import Settings

StudyFile = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="A study file, or the name of a built-in or existing study.")
]
ExistingStudy = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="Name or file of an existing study; without it, the latest.")
]
EveryStudy = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="Name or file of an existing study; without it, every open one.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="SQLAlchemy URL of the database, e.g. postgresql+psycopg://user@host/db. "
        "Else IGKD_HPO_STORAGE, OPTUNA_STORAGE, or storage/igkd_hpo.db here.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
AllowImport = Annotated[
    list[str] | None,
    typer.Option("--allow-import", metavar="MODULE", help="Let the study file name code of this module as a teacher."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def study_to_run(text: str | None, settings: Settings) -> Study:
    """What STUDY means where a study is created or read: a file, `-` for standard input, a built-in, an existing one.

    Raises:
        UsageError: nothing of that name; the near names are told.
    """
    name = text or DEFAULT
    if name == "-":
        return parse_study(sys.stdin.read(), source="standard input")
    if looks_like_path(name):
        return read_study(Path(name))
    builtin = builtin_studies()
    if name in builtin:
        return read_study(builtin[name])
    check_url(settings.storage_url)
    known: list[str] = []
    with suppress(UsageError):  # no database yet holds no studies
        storage = open_storage(settings.storage_url, create=False)
        known = study_names(storage)
    if name in known:
        return open_study(storage, name).config
    raise UsageError(
        f"no study named {name!r}{near(name, [*builtin, *known])}; give a study file, or the name of a study"
    )


def existing_study(text: str | None, settings: Settings) -> SearchStudy:
    """What STUDY means where a study must exist: its name, its file, or, left out, the latest. Raises UsageError."""
    storage = open_storage(settings.storage_url, create=False)
    if text is None:
        return open_study(storage, latest_study(storage))
    return open_study(storage, read_study(Path(text)).name if looks_like_path(text) else text)


def count_of_workers(text: str) -> int | None:
    """What `--workers` says; None for auto. Raises UsageError."""
    if text == "auto":
        return None
    try:
        workers = int(text)
    except ValueError:
        raise UsageError(f"--workers {text!r} is neither a number nor auto; give one of them") from None
    if workers < 0:
        raise UsageError(f"--workers {workers} is below 0; give the number of trials to run side by side")
    return workers


def looks_like_path(text: str) -> bool:
    """Whether STUDY is a file rather than a name."""
    return text.endswith((".yaml", ".yml")) or "/" in text


def near(name: str, known: list[str]) -> str:
    """` (did you mean X?)` or what there is, for an error about a name."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there are: {', '.join(dict.fromkeys(known))})" if known else ""


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json

    typer.echo(json.dumps(value, indent=2))
