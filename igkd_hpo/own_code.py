"""People's own code: `module:function`, of a module that this machine was told to trust."""

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Sequence
from contextlib import redirect_stdout
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from igkd_hpo.errors import UsageError, first_line

_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_function(name: str) -> bool:
    """Return whether a name in a study file is of the form `module:function`."""
    return _FUNCTION.fullmatch(name) is not None


def call_function(name: str, allow_import: Collection[str], **given: Any) -> Any:
    """Return what the function returns, of a module that is installed or lies in the working directory.

    Args:
        name: `module:function`.
        allow_import: top-level modules that this machine trusts.
        given: what the function is called with, where it takes arguments of these names.

    Raises:
        UsageError: the module is not among those that may be imported, or has no such function, or it raises.
    """
    module_name, _, function_name = name.partition(":")
    top = module_name.partition(".")[0]
    if top not in allow_import:
        raise UsageError(
            f"{name} is code of the module {top}, which this machine was not told to trust; "
            f"if you do, add --allow-import {top} (or set IGKD_HPO_ALLOW_IMPORT={top})"
        )
    # A module beside the study is found however the command was started; at the end, it hides no installed one.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        with redirect_stdout(sys.stderr):  # what it prints is talk, and must not lie between our data
            function = getattr(importlib.import_module(module_name), function_name)
            takes = inspect.signature(function).parameters
            return function(**{key: value for key, value in given.items() if key in takes})
    except (Exception, SystemExit) as error:  # anything that somebody's code raises is told by name
        raise UsageError(
            f"{name} cannot be used: {type(error).__name__}: {first_line(error)}; mend that code, or the name"
        ) from error


def code_version(name: str) -> str:
    """Return the hash of the file that the function is in, which is not run; "unknown" where none is found."""
    import hashlib

    *packages, last = name.partition(":")[0].split(".")
    places: Sequence[str] | None = [*sys.path, str(Path.cwd())]
    for package in packages:
        spec = PathFinder.find_spec(package, places)
        places = None if spec is None else spec.submodule_search_locations
    spec = PathFinder.find_spec(last, places or [])
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else "unknown"
