"""People's own networks: `module:function`, whose module this machine was told to trust."""

import importlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.distillation.architectures import Architecture, Request
from igkd_hpo.errors import UsageError, first_line

if TYPE_CHECKING:
    from torch import nn


def build(request: Request) -> "nn.Module":
    """Return what the function returns, of a module that is installed or lies in the working directory.

    It is given `num_classes` and `image_size` where it takes arguments of these names.

    Raises:
        UsageError: the module is not among those that may be imported, or has no such function, or it raises, or does
            not return a network whose layers have their sizes.
    """
    from torch import nn
    from torch.nn.parameter import is_lazy

    name = request.name
    module_name, _, function_name = name.partition(":")
    top = module_name.partition(".")[0]
    if top not in request.allow_import:
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
            given = {"num_classes": request.num_classes, "image_size": request.image_size}
            body = function(**{key: value for key, value in given.items() if key in takes})
    except (Exception, SystemExit) as error:  # anything that somebody's code raises is told by name
        raise UsageError(
            f"{name} cannot be used: {type(error).__name__}: {first_line(error)}; mend that code, or the name"
        ) from error
    if not isinstance(body, nn.Module):
        raise UsageError(f"{name} returned {type(body).__name__}; it must return a torch.nn.Module")
    if any(is_lazy(value) for value in (*body.parameters(), *body.buffers())):
        raise UsageError(
            f"{name} has layers that learn their size from their first input; "
            "run it once on a tensor (1, 3, height, width) in that function"
        )
    return body


def version(request: Request) -> str:
    """Return the hash of the file that the function is in, which is not run; "unknown" where none is found."""
    import hashlib

    *packages, last = request.name.partition(":")[0].split(".")
    places: Sequence[str] | None = [*sys.path, str(Path.cwd())]
    for package in packages:
        spec = PathFinder.find_spec(package, places)
        places = None if spec is None else spec.submodule_search_locations
    spec = PathFinder.find_spec(last, places or [])
    path = Path(spec.origin) if spec is not None and spec.origin else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else "unknown"


def deploy(body: "nn.Module") -> "nn.Module":
    """Return the network that its own method `deploy` returns, or has made of itself; itself where it has none.

    The method is called on a copy. RepVGG's code has an attribute of that name, which is none.
    """
    import copy

    from torch import nn

    if not callable(getattr(body, "deploy", None)):
        return body
    copied = copy.deepcopy(body)
    made = copied.deploy()  # type: ignore[operator]
    return made if isinstance(made, nn.Module) else copied


ARCHITECTURE = Architecture(build=build, form="module:function", deploy=deploy, foreign=True, version=version)
