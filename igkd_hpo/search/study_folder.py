"""Name of the folders of a study's weights and logs: the one that it was created with, whatever it is called since.

Optuna and its dashboard rename a study in the database, and know nothing of folders.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from igkd_hpo.config.study import NAME
from igkd_hpo.search.storage import SharedStorage


def study_folder(attributes: Mapping[str, Any], name: str) -> str:
    """Return the folder of a study, by its user attributes and its name in the database."""
    folder = attributes.get("folder")
    if folder is None:  # earlier versions kept it in the study file alone, until it was launched by another name
        with suppress(KeyError, TypeError, ValueError, RecursionError):
            folder = json.loads(attributes["study_file"])["name"]
    return folder if isinstance(folder, str) and re.fullmatch(NAME, folder) else name


def own_folder(storage: SharedStorage, attributes: Mapping[str, Any], name: str) -> str:
    """Return the folder of the study of this name; that is its name where it is the copy of one that is still there.

    Two that go on in one folder would remove each other's weights.
    """
    folder = study_folder(attributes, name)
    return folder if folder == name or name_by_folder(storage, folder) == name else name


def free_folder(storage: SharedStorage, name: str) -> str:
    """Return the folder for a new study: its name, or that with a number, where a renamed study has it."""
    taken = {folder for _, folder in _folders(storage)}
    names = (name, *(f"{name[:90]}-{number}" for number in range(2, len(taken) + 3)))
    return next(free for free in names if free not in taken)


def name_by_folder(storage: SharedStorage, folder: str) -> str:
    """Return the name that the study of a folder has now; the folder's own where there is none, or a copy."""
    names = [name for name, other in _folders(storage) if other == folder]
    return folder if folder in names or not names else names[0]


def _folders(storage: SharedStorage) -> Iterator[tuple[str, str]]:
    for study in storage.get_all_studies():
        if "fingerprint" in study.user_attrs:
            yield study.study_name, study_folder(study.user_attrs, study.study_name)
