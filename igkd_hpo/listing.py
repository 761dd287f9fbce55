"""The files of a package whose every file is one of a kind: an objective, a term, an architecture, a data source."""

import pkgutil
from importlib import import_module
from types import ModuleType


def list_files(package: str) -> dict[str, ModuleType]:
    """Import all modules of a package; by name, in the order of their names. Its folders hold what several share."""
    modules = pkgutil.iter_modules(import_module(package).__path__)
    names = sorted(module.name for module in modules if not module.ispkg)
    return {name: import_module(f"{package}.{name}") for name in names}
