"""Find the study that a call names: by a path, a name, a mapping, or a study file that was read already."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import PathLike
from typing import Any

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study, study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.errors import StudyFileError, UsageError, near_or_all
from igkd_hpo.files import user_path
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.storage_url import check_url
from igkd_hpo.search.study import SearchStudy, find_study, latest_study, open_study, study_names
from igkd_hpo.settings import Settings

StudyLike = str | PathLike[str] | Mapping[str, Any] | Study
"""A text with a slash, or that ends in .yaml or .yml (large or small), is a path; another one is a name."""


def settings_here(storage: str | None = None, allow_import: str | Iterable[str] = ()) -> Settings:
    """Return the settings of the current directory and environment. Raises UsageError."""
    named = (allow_import,) if isinstance(allow_import, str) else tuple(allow_import)
    return Settings.resolve(storage_url=storage, allow_import=named)


def study_to_run(given: StudyLike, settings: Settings) -> Study:
    """Return the study file to create or read a study from: a file's, a built-in one, or an existing study's.

    Raises:
        UsageError: nothing of that name; the near names are told.
        StudyFileError: what is wrong with the file.
    """
    if (study_file := _read(given)) is not None:
        return study_file
    name = str(given)
    builtin = builtin_studies()
    if name in builtin:
        return read_study(builtin[name])
    check_url(settings.storage_url)
    existing: list[str] = []
    with suppress(UsageError):  # no database yet holds no studies
        storage = open_storage_here(settings, create=False)
        existing = study_names(storage)
    if name in existing:
        return open_study(storage, name).config
    _check_no_file(name)
    if os.path.isdir(name):
        raise UsageError(f"{name} is a folder, and no study; `igkd-hpo init {name}` writes a study file for its images")
    near = near_or_all(name, [*builtin, *existing])
    raise UsageError(
        f"no study or folder named {name!r}{near}; give a study file, a study's name or a folder of images"
    )


def known_study(name: str, settings: Settings) -> Study | None:
    """Return the study file that an existing study of this name was created from; None where there is none."""
    with suppress(UsageError):  # no database yet holds no studies
        storage = open_storage_here(settings, create=False)
        if (found := find_study(storage, name)) is not None:
            return found.config
    return None


def existing_study(given: StudyLike | None, settings: Settings) -> SearchStudy:
    """Open the study in the database of this name or file; left out, the latest. Raises UsageError."""
    storage = open_storage_here(settings, create=False)
    if given is None:
        return open_study(storage, latest_study(storage))
    study_file = _read(given)
    name = str(given) if study_file is None else study_file.name
    if study_file is None and find_study(storage, name) is None:
        _check_no_file(name)
    return open_study(storage, name)


def _check_no_file(name: str) -> None:
    """Raise UsageError where a name that no study has is that of a file, or of one with the ending of study files."""
    for file in (f"./{name}", f"{name}.yaml", f"{name}.yml"):
        if os.path.isfile(file):
            raise UsageError(f"no study named {name!r}, but a file; write {file} to read it")


def looks_like_path(text: str) -> bool:
    """Return whether a text is a path rather than a name."""
    return text.lower().endswith((".yaml", ".yml")) or "/" in text


def _read(given: StudyLike) -> Study | None:
    """Read the study file; None where a name was given."""
    if isinstance(given, Study):
        return given
    if isinstance(given, Mapping):
        try:
            text = json.dumps(given)
        except (TypeError, ValueError) as error:
            raise StudyFileError(f"the study holds what no study file can: {error}; give texts and numbers") from None
        return study_from_json(text, source="the study")
    if isinstance(given, str) and not looks_like_path(given):
        return None
    return read_study(user_path(given))
