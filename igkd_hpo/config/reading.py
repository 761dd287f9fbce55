"""Reading a study file: YAML 1.2 by a safe loader, checked strictly, every fault in one message with its path."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from igkd_hpo.config.study import Study
from igkd_hpo.errors import StudyFileError

# Tags that pydantic puts into a fault's path to say which member of a union it tried.
_UNION_TAGS = frozenset({"value", "float", "int", "categorical", "percentile", "median", "successive_halving",
                         "hyperband", "none"})  # fmt: skip


def read_study(path: Path) -> Study:
    """The study in a YAML file.

    Raises:
        StudyFileError: the file is missing, is not YAML, or holds faults; all of them are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyFileError(f"no study file {path}; give the path of a YAML file, or the name of a study") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyFileError(f"cannot read {path}: {error}; a study file is UTF-8 text") from error
    return parse_study(text, source=str(path))


def parse_study(text: str, *, source: str) -> Study:
    """The study in a YAML text; `source` names it in messages. Raises StudyFileError."""
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise StudyFileError(f"{source} is not YAML: {_one_line(error)}") from None
    if not isinstance(document, dict):
        found = "nothing" if document is None else f"a {type(document).__name__}"
        raise StudyFileError(f"{source} holds {found}; a study file is a mapping with name, dataset, hyperparameters …")
    try:
        as_json = json.dumps(document)
    except (TypeError, ValueError) as error:
        raise StudyFileError(f"{source} holds a value that is neither text nor number: {error}; quote it") from None
    return study_from_json(as_json, source=source)


def study_from_json(text: str, *, source: str) -> Study:
    """The study in a JSON text, as the database keeps it. Raises StudyFileError."""
    try:
        return Study.model_validate_json(text)
    except ValidationError as error:
        faults = [_describe(fault) for fault in error.errors(include_url=False)]
    if len(faults) == 1:
        raise StudyFileError(f"{source}: {faults[0]}")
    raise StudyFileError(f"{source} has {len(faults)} faults:\n" + "\n".join(f"  {fault}" for fault in faults))


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(problem)


def _describe(fault: ErrorDetails) -> str:
    names = [part for part in fault["loc"] if part not in _UNION_TAGS and "[" not in str(part)]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".") or "study"
    given = fault["input"]
    match fault["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{_near(str(names[-1]), _keys_beside(names))}; remove or rename it"
        case "missing":
            return f"{path}: missing; it has no default"
        case "value_error":
            return f"{path}: {fault['ctx']['error']}"
        case "literal_error":
            expected = fault["ctx"]["expected"]
            choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
            return f"{path}: {given!r} is not one of {expected}{_near(str(given), choices)}"
        case "union_tag_invalid":
            expected = fault["ctx"]["expected_tags"]
            return f"{path}.name: {fault['ctx']['tag']!r} is not one of {expected}{_near(str(fault['ctx']['tag']), expected.replace(chr(39), '').split(', '))}"
        case _:
            message = fault["msg"][0].lower() + fault["msg"][1:].replace("Input should", "it should")
            message = message.replace("input should", "it should")
            shown = "" if isinstance(given, dict | list) else f"{given!r}: "
            return f"{path}: {shown}{message}"


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _keys_beside(names: list[int | str]) -> list[str]:
    """The keys that the mapping around a path's last part may have."""
    model: type[BaseModel] | None = Study
    for name in names[:-1]:
        field = model.model_fields.get(str(name)) if model else None
        annotation = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    if model is None:
        return ["type", "low", "high", "log", "step", "choices", "name", "keep", "grace_period", "patience",
                "reduction_factor"]  # fmt: skip
    return list(model.model_fields)


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {dotted path: value}."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
