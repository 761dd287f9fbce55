"""Help of a study file's keys: the docstrings below them, read off the source where somebody asks.

Pydantic reads them whenever a class is made (`use_attribute_docstrings`), which took each command and each worker a
twelfth of its imports; only the JSON schema and the documentation show them.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from pydantic import BaseModel


def describe_keys(base: type[BaseModel]) -> None:
    """Give each key of the classes that are made from `base` its docstring as its description, where it has none."""
    sections = [*_made_from(base)]
    for section in sections:
        for key, told in _docstrings(section):
            field = section.model_fields[key]
            field.description = field.description or told
    for section in sections:  # a section's schema is part of that of the next
        section.model_rebuild(force=True)


def _made_from(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for section in base.__subclasses__():
        yield section
        yield from _made_from(section)


def _docstrings(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield key and docstring of what a class declares itself; nothing of one that was made without source."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    except (OSError, SyntaxError, TypeError):
        return
    assert isinstance(tree, ast.ClassDef)
    for key, text in pairwise(tree.body):
        match key, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                yield name, inspect.cleandoc(told)
