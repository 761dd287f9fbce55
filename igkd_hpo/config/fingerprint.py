"""What a study means, as one hash: two files with the same fingerprint search the same thing on the same data."""

import hashlib
import json
from typing import Any

from igkd_hpo.config.reading import flatten
from igkd_hpo.config.study import Study

# How far to go, where files lie and where a file came from do not change what a trial is. Data and teacher count by
# content: their hashes are pinned beside the fingerprint once they are known.
_NOT_MEANING: dict[str, bool | set[str]] = {
    "name": True,
    "n_trials": True,
    "max_retries": True,
    "max_failures": True,
    "provenance": True,
    "dataset": {"root"},
    "teacher": {"checkpoint"},
}


def meaning(study: Study) -> dict[str, Any]:
    """The part of a study file that decides what its trials are, as plain JSON values."""
    return study.model_dump(mode="json", exclude=_NOT_MEANING)


def fingerprint(study: Study) -> str:
    """SHA-256 of the meaning, in hexadecimal."""
    return hashlib.sha256(json.dumps(meaning(study), sort_keys=True).encode()).hexdigest()


def difference(old: Study, new: Study) -> list[str]:
    """One line for each key whose meaning differs: `path: old -> new`."""
    before, after = (
        {
            path: value if isinstance(value, str) else json.dumps(value)
            for path, value in flatten(meaning(study)).items()
        }
        for study in (old, new)
    )
    return [
        f"{path}: {before.get(path, 'absent')} -> {after.get(path, 'absent')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
