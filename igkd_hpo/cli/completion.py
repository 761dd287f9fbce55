"""Complete words for a shell when Tab is pressed. Nothing heavy is imported: after half a second nobody waits."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

import typer

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.cost_limit import COSTS
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.files import user_path
from igkd_hpo.settings import Settings

_PATIENCE_SECONDS = 0.4
_MOST_FILES = 200
_STUDY_NAMES = (
    "SELECT s.study_name FROM studies s JOIN study_user_attributes a ON a.study_id = s.study_id "
    "WHERE a.key = 'fingerprint' ORDER BY s.study_id"
)


def complete_study_to_run(context: typer.Context, incomplete: str) -> list[str]:
    """Offer built-in and existing studies, and study files."""
    return _matching([*builtin_studies(), *_existing(context), *_study_files(incomplete)], incomplete)


def complete_existing_study(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the studies of the database, and study files where a path has begun."""
    files = _study_files(incomplete) if "/" in incomplete or "." in incomplete else ()
    return _matching([*_existing(context), *files], incomplete)


def complete_study_to_confirm(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the studies of the database, and study files."""
    return _matching([*_existing(context), *_study_files(incomplete)], incomplete)


def complete_study_file(incomplete: str) -> list[str]:
    """Offer study files."""
    return _matching(_study_files(incomplete), incomplete)


def complete_device(incomplete: str) -> list[str]:
    """Offer devices by name."""
    gpus = gpu_count()
    return _matching(["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{n}" for n in range(gpus))], incomplete)


def complete_cost(incomplete: str) -> list[str]:
    """Offer the costs that a limit can be set to."""
    return _matching([f"{name}=" for name in COSTS], incomplete)


def gpu_count() -> int:
    """Count GPUs by their device files: asking CUDA takes seconds."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _matching(candidates: Iterable[str], incomplete: str) -> list[str]:
    return list(dict.fromkeys(name for name in candidates if name.startswith(incomplete)))


def _study_files(incomplete: str) -> Iterator[str]:
    """Yield the YAML files of the folder that the text names, and of the folders in it, as the text begins."""
    folder, slash, _ = incomplete.rpartition("/")
    prefix = folder + slash
    try:
        root = user_path(prefix or ".")
        paths = (path for pattern in ("*.yaml", "*.yml", "*/*.yaml", "*/*.yml") for path in root.glob(pattern))
        names = sorted(path.relative_to(root).as_posix() for path in paths)
    except (OSError, UsageError):
        return
    for name in names[:_MOST_FILES]:
        if not name.startswith(".") and " " not in name:  # shells take completions as they are, unquoted
            yield prefix + name


def _existing(context: typer.Context) -> list[str]:
    """Return the names of the studies in the command's storage; none where it does not answer in time."""
    try:
        url = Settings.resolve(storage_url=context.params.get("storage")).storage_url
    except IgkdError:
        return []
    names: list[str] = []
    query = threading.Thread(target=lambda: names.extend(_study_names(url)), daemon=True)
    query.start()
    query.join(_PATIENCE_SECONDS)
    return list(names)


def _study_names(url: str) -> list[str]:
    """Read the names by the database's own driver: importing SQLAlchemy takes 0.3 s. Empty on any trouble."""
    scheme, _, rest = url.partition("://")
    try:
        if scheme.startswith("sqlite"):
            path = user_path(unquote(rest.partition("?")[0].removeprefix("/")))
            with closing(sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)) as connection:
                return [str(name) for (name,) in connection.execute(_STUDY_NAMES)]
        import psycopg

        with psycopg.connect(f"postgresql://{rest}") as server:
            return [str(name) for (name,) in server.execute(_STUDY_NAMES)]
    except Exception:  # a shell that completes nothing is better than one that prints a traceback into the line
        return []
