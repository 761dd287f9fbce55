"""Fingerprint of a study: two files with the same one search the same thing on the same data."""

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
    "timeout": True,
    "known_good": True,
    "max_retries": True,
    "max_failures": True,
    "provenance": True,
    "dataset": {"root", "follow_links"},
    "teacher": {"checkpoint", "checkpoint_key", "weights"},
    "student": {"architecture", "weights"},  # the first is among the hyperparameters too
}


def meaning(study: Study) -> dict[str, Any]:
    """Return the part of a study file that decides its trials, as plain JSON values."""
    return study.model_dump(mode="json", exclude=_NOT_MEANING)


def fingerprint(study: Study) -> str:
    """Return the SHA-256 of a study's meaning, in hexadecimal."""
    return hashlib.sha256(json.dumps(meaning(study), sort_keys=True).encode()).hexdigest()


def difference(old: Study, new: Study) -> list[str]:
    """Write one line for each key whose meaning differs: `path: old -> new`."""

    def as_text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    before, after = ({path: as_text(v) for path, v in flatten(meaning(study)).items()} for study in (old, new))
    pairs = {path: (before.get(path, "absent"), after.get(path, "absent")) for path in sorted({*before, *after})}
    return [f"{path}: {first} -> {second}" for path, (first, second) in pairs.items() if first != second]
