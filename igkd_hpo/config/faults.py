"""Descriptions of the faults in a study file: one line for each, with its path in the file and its remedy."""

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from igkd_hpo.config.study import Study
from igkd_hpo.errors import did_you_mean, nearest
from igkd_hpo.names import plain_name

_EXPECTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text; quote it if it is meant as text",
    "tuple_type": "must be a list in [brackets]",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
}


def describe(error: ValidationError) -> list[str]:
    """Write one line for each faulty place in the file, in the order of the file format."""
    lines: dict[str, str] = {}
    missing: set[str] = set()
    misspelt: set[str] = set()
    for fault in error.errors(include_url=False):
        path, keys = _locate(fault["loc"])
        # A place can be in the list twice, once for each type that it could have had: the last is the widest.
        lines[path] = _line(fault, path, keys)
        if fault["type"] == "missing":
            missing.add(path)
        elif fault["type"] == "extra_forbidden" and (near := nearest(str(fault["loc"][-1]), keys)):
            misspelt.add(path.removesuffix(str(fault["loc"][-1])) + near)
    # A key that is there under a name that is nearly its own is one mistake, not two.
    return [line for path, line in lines.items() if path not in missing & misspelt]


def _line(fault: ErrorDetails, path: str, keys: list[str]) -> str:
    given, context = fault["input"], fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            key = str(fault["loc"][-1])
            near = did_you_mean(key, keys) or _misplaced(key, path) or f" (known here: {', '.join(keys)})"
            return f"{path}: unknown key{near}; remove or rename it"
        case "missing" if isinstance(fault["loc"][-1], int):
            return f"{path}: missing; the list is too short"
        case "missing":
            return f"{path}: missing; add it, it has no default"
        case "value_error":
            return f"{path}: {context['error']}"
        case "literal_error":
            return f"{path}: {_choice(given, context['expected'].replace(' or ', ', '))}"
        case "normalize_type":
            return f"{path}: {_shown(given)} is not one of {fault['msg']}"
        case "checkpoint_type" | "steps_type":
            return f"{path}: {_shown(given)} is not {fault['msg']}"
        case "range_type":
            return f"{path}.type: {_choice(given.get('type'), context['kinds'])}"
        case "sampler_type" if not isinstance(given, dict):
            return f"{path}: {_shown(given)} must be a mapping of keys to values"
        case "sampler_type":
            return f"{path}.name: {_choice(given.get('name'), fault['msg'])}"
        case "union_tag_invalid" | "union_tag_not_found":
            names = [tag for member in _members(Study.model_fields["pruner"].annotation) for tag in _tags(member)]
            return f"{path}.name: {_choice(given.get('name'), ', '.join(names))}"
        case "string_pattern_mismatch":
            advice = f"; write {plain}" if (plain := plain_name(given)) else ""
            rule = "must be 1 to 100 letters, digits, '.', '_' or '-', a letter or digit first"
            return f"{path}: {_shown(given)} {rule}{advice}"
        case "too_short" | "too_long":
            return f"{path}: {len(given)} values; it takes {_count(context)}"
        case "float_type" | "int_type" if isinstance(given, list):
            searched = f"{{type: categorical, choices: {_shown(given)}}}"
            return f"{path}: {_shown(given)} is a list; to search these values write {searched}"
        case kind if kind in _EXPECTED:
            return f"{path}: {_shown(given)} {_EXPECTED[kind]}"
        case _:
            message = fault["msg"].replace("Input should be", "must be")
            return f"{path}: {_shown(given)} {message[0].lower() + message[1:]}"


def _choice(given: Any, expected: str) -> str:
    choices = expected.replace("'", "").split(", ")
    if given is None:
        return f"missing; it is one of {', '.join(choices)}"
    return f"{_shown(given)} is not one of {', '.join(choices)}{did_you_mean(str(given), choices)}"


def _count(context: dict[str, Any]) -> str:
    return f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _misplaced(key: str, path: str) -> str:
    """Write ` (did you mean training.epochs?)` for a key that belongs elsewhere than to `path`; empty for others."""
    homes = [
        f"{name}.{key}"
        for name, field in Study.model_fields.items()
        for member in _members(field.annotation)
        if isinstance(member, type) and issubclass(member, BaseModel) and key in member.model_fields
    ]
    homes += [key] if key in Study.model_fields else []
    others = [home for home in dict.fromkeys(homes) if home != path]
    return f" (did you mean {' or '.join(others)}?)" if others else ""


def _locate(loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Return a fault's path as the file shows it, without pydantic's union tags, and the keys allowed there."""
    path = ""
    place: Any = Study
    keys: list[str] = []
    for part in loc:
        members = _members(place)
        if len(members) > 1:
            place = next((member for member in members if part in _tags(member)), None)
            continue
        place = members[0]
        if isinstance(part, int):
            path += f"[{part}]"
            items = get_args(place)
            place = items[0] if items[1:] == (...,) else items[part] if part < len(items) else None
        else:
            path += f".{part}" if path else part
            fields = place.model_fields if isinstance(place, type) and issubclass(place, BaseModel) else {}
            keys = list(fields)
            place = fields[part].annotation if part in fields else None
    return path or "study", keys


def _members(annotation: Any) -> list[Any]:
    """List the alternatives of a union, None left out; of any other type, itself without its metadata."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(bare) not in (Union, UnionType):
        return [bare]
    members = [member for member in get_args(bare) if member is not NoneType]
    return members if len(members) > 1 else _members(members[0])


def _tags(member: Any) -> list[str]:
    """List pydantic's words for an alternative of a union in a fault's path."""
    if get_origin(member) is Annotated:
        return [data.tag for data in get_args(member)[1:] if isinstance(data, Tag)]
    if isinstance(member, type) and issubclass(member, BaseModel):
        name = member.model_fields["name"].annotation
        return list(get_args(name)) if get_origin(name) is Literal else []
    return [member.__name__]
