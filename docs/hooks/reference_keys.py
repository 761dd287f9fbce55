"""The reference of the study file, read off the classes that check it."""

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from igkd_hpo.config.hyperparameters import Hyperparameters, OneOf, Within
from igkd_hpo.config.key_help import describe_keys
from igkd_hpo.config.space import (
    Choices,
    FloatRange,
    FloatSetting,
    Frozen,
    IntRange,
    IntSetting,
    WordChoices,
    WordSetting,
)
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.recipe import KNOB_OF, SETTING_OF, needs

INTRODUCTION = """\
# The study file, key by key

Generated from the classes that check a study file. How to write one: [the study file](../guide/study-file.md).

A default of *needed* means that there is none. A *range* is a mapping with a `type`: see [ranges](#ranges).
"""
RANGES = """\
## Ranges

A hyperparameter that is searched is a mapping with a `type`, and these keys.
"""


def keys_page() -> str:
    """The Markdown of the page: a section for each part of the file, a row for each key."""
    describe_keys(Frozen)
    parts = [INTRODUCTION, "## At the top\n", _table(Study)]
    for name, field in Study.model_fields.items():
        sections = _sections(field.annotation)
        if not sections:
            continue
        parts.append(f"## {name}\n")
        for section in sections:
            if len(sections) > 1:
                (kind,) = get_args(section.model_fields["name"].annotation)
                parts.append(f"### {name}: {kind}\n")
            parts += [_told(section), _table(section)]
            for inner, of in section.model_fields.items():
                for nested in _sections(of.annotation) if section.__name__ == "Provenance" else ():
                    parts += [f"### {name}: {inner}\n", _told(nested), _table(nested)]
    parts.append(RANGES)
    for kind, section in {"float": FloatRange, "int": IntRange, "categorical": Choices}.items():
        parts += [f"### type: {kind}\n", _told(section), _table(section)]
    return "\n".join(parts)


def _told(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split()) + "\n"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The classes of a key that is a section; of a key that holds a value, none."""
    if annotation in (FloatSetting, IntSetting, WordSetting):
        return []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation in (FloatRange, IntRange, Choices, WordChoices) else [annotation]
    return [found for part in _alternatives(annotation) for found in _sections(part)]


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return [get_args(annotation)[0]]
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else []


def _table(section: type[BaseModel]) -> str:
    rows = ["| key | | value | default |", "| --- | --- | --- | --- |"]
    for name, field in section.model_fields.items():
        if _sections(field.annotation):
            value, default = f"see [{name}](#{_anchor(section, name)})", "its own defaults"
            default = "needed" if field.is_required() else "`null`" if field.default is None else default
        else:
            value, default = _value(name, field), _default(field)
        told = " ".join([field.description or "", *(_conditions(name) if section is Hyperparameters else ())])
        rows.append(f"| `{name}` | {_cell(told)} | {value} | {default} |")
    return "\n".join(rows) + "\n"


def _conditions(name: str) -> Iterator[str]:
    if weights := needs(name):
        yield f"No effect while {', '.join(f'`{weight}`' for weight in weights)} {'are' if weights[1:] else 'is'} 0."
    if owners := SETTING_OF.get(name):
        yield f"No effect unless `objective` is {' or '.join(f'`{owner}`' for owner in owners)}."
    if owners := KNOB_OF.get(name):
        yield f"No effect unless the student is {' or '.join(f'`{owner}`' for owner in owners)}."


def _anchor(section: type[BaseModel], name: str) -> str:
    return name if section is Study else f"provenance-{name}"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    return f"`{json.dumps(field.default).replace(chr(34), '')}`"


def _value(name: str, field: FieldInfo) -> str:
    for data in sorted(field.metadata, key=lambda data: isinstance(data, Discriminator)):
        if isinstance(data, Within):
            kind = "whole number" if field.annotation == _bare(IntSetting) else "number"
            return f"{kind} {data}, or a range"
        if isinstance(data, OneOf):
            return f"{', '.join(f'`{word}`' for word in data.words)}, or `categorical`"
        if isinstance(data, Discriminator):
            return _cell(str(data.custom_error_message))
    return _cell(_words(field.annotation, field))


def _bare(annotated: Any) -> Any:
    return get_args(annotated)[0]


def _words(annotation: Any, field: FieldInfo | None = None) -> str:
    if get_origin(annotation) is Annotated:
        inner, *data = get_args(annotation)
        told = [one.custom_error_message for one in data if isinstance(one, Discriminator)]
        return str(told[0]) if told else _words(inner)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{json.dumps(word).strip(chr(34))}`" for word in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        told = " or ".join(dict.fromkeys(_words(part, field) for part in parts))
        return f"{told}, or `null`" if NoneType in get_args(annotation) else told
    if get_origin(annotation) is tuple:
        return f"a list of {_words(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "mappings of names to values"
    names = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}
    return names[annotation] + (_span(field) if field is not None and annotation is not bool else "")


def _span(field: FieldInfo) -> str:
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    limits = {key: getattr(data, key) for data in field.metadata for key in words if hasattr(data, key)}
    told = [words[key].format(f"{limits[key]:,}") for key in words if key in limits]
    if set(limits) == {"ge"}:
        return f", {limits['ge']:,} or more"
    return " " + " ".join(told).replace(" below", ", below") if told else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
