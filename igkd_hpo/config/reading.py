"""Reading a study file: YAML 1.2 by a safe loader, checked strictly, every fault in one message with its path."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError
from ruamel.yaml.error import YAMLError

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.faults import describe
from igkd_hpo.config.study import Study
from igkd_hpo.documents import DocumentError, parse_yaml, read_bounded
from igkd_hpo.errors import StudyFileError, did_you_mean


def read_study(path: Path) -> Study:
    """Read the study in a YAML file. Raises StudyFileError with all faults of the file, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_stream(file, source=str(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        beside = [str(other) for other in sorted([*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")])]
        near = did_you_mean(str(path), [*beside, *builtin_studies()])
        found = f"{path} is a folder" if isinstance(error, IsADirectoryError) else f"no study file {path}"
        raise StudyFileError(f"{found}{near}; give the path of a YAML file, or the name of a study") from None
    except ValueError:  # a null byte
        raise StudyFileError(f"{path} is no path; give the path of a YAML file") from None
    except OSError as error:
        raise StudyFileError(f"cannot read {path}: {error.strerror}; give the path of a readable YAML file") from error


def read_stream(file: IO[bytes], *, source: str) -> Study:
    """Read the study in an open file; `source` names it in messages. Raises OSError, StudyFileError."""
    try:
        text = read_bounded(file).decode()
    except UnicodeDecodeError as error:
        raise StudyFileError(f"{source} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except DocumentError as error:
        raise StudyFileError(f"{source} {error}") from None
    return parse_study(text, source=source)


def parse_study(text: str, *, source: str) -> Study:
    """Parse the study in a YAML text; `source` names it in messages. Raises StudyFileError."""
    try:
        document = parse_yaml(text)
    except YAMLError as error:
        raise StudyFileError(f"{source} is not YAML: {_one_line(error)}") from None
    except DocumentError as error:
        raise StudyFileError(f"{source} {error}") from None
    if not isinstance(document, dict):
        kind = {type(None): "nothing", list: "a list"}.get(type(document), "one plain value")
        raise StudyFileError(f"{source} holds {kind}; a study file is a mapping with name, dataset, hyperparameters …")
    return study_from_json(json.dumps(document), source=source)


def study_from_json(text: str, *, source: str) -> Study:
    """Parse the study in a JSON text, as the database keeps it. Raises StudyFileError."""
    try:
        return Study.model_validate_json(text)
    except ValidationError as error:
        faults = describe(error)
    if len(faults) == 1:
        raise StudyFileError(f"{source}: {faults[0]}")
    raise StudyFileError(f"{source} has {len(faults)} faults:", *(f"  {fault}" for fault in faults))


def _one_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if problem == "but found another document":
        problem = "a second document begins; keep one, without ---"
    elif "'\\t'" in problem:
        problem = "a tab where spaces are needed; indent with spaces"
    elif "duplicate key" in problem:
        problem = f"{problem}; write it once"
    elif problem == "could not find expected ':'":  # noticed on the line after the one that lacks it
        mark = getattr(error, "context_mark", None) or mark
        problem = "a key without its value; write key: value, with a space after the colon"
    elif "determine a constructor" in problem:
        problem = f"{problem.split('the ')[-1]} is not allowed in a study file; remove it"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to {dotted path: value}."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
