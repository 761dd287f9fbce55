"""Hyperparameter optimisation for tiny students: knowledge distillation with Integrated-Gradients overlays.

The commands as functions, for notebooks and scripts. Each name is imported when it is first used, so that
`import igkd_hpo` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time the names come from __getattr__
    from igkd_hpo.api.confirm import confirm
    from igkd_hpo.api.ladder import ladder
    from igkd_hpo.api.launch import launch
    from igkd_hpo.api.prepare import prepare
    from igkd_hpo.api.slurm import Slurm
    from igkd_hpo.api.study import Study, open_study, status
    from igkd_hpo.api.train import train
    from igkd_hpo.api.validate import validate
    from igkd_hpo.config.study import Study as StudyFile
    from igkd_hpo.engines.ray.engine import Ray
    from igkd_hpo.errors import (
        AssetError,
        AssetMissing,
        DataError,
        IgkdError,
        Interrupted,
        NoCompletedTrial,
        StopOrdered,
        StorageError,
        StudyFileError,
        StudyStopped,
        StudyUnusable,
        TeacherError,
        UsageError,
    )

    __version__: str

__all__ = [
    "AssetError",
    "AssetMissing",
    "DataError",
    "IgkdError",
    "Interrupted",
    "NoCompletedTrial",
    "Ray",
    "Slurm",
    "StopOrdered",
    "StorageError",
    "Study",
    "StudyFile",
    "StudyFileError",
    "StudyStopped",
    "StudyUnusable",
    "TeacherError",
    "UsageError",
    "__version__",
    "confirm",
    "ladder",
    "launch",
    "open_study",
    "prepare",
    "status",
    "train",
    "validate",
]

_HOMES = {
    "Ray": "engines.ray.engine",
    "Slurm": "api.slurm",
    "Study": "api.study",
    "StudyFile": "config.study",
    "confirm": "api.confirm",
    "ladder": "api.ladder",
    "launch": "api.launch",
    "open_study": "api.study",
    "prepare": "api.prepare",
    "status": "api.study",
    "train": "api.train",
    "validate": "api.validate",
}


if not TYPE_CHECKING:  # seen by a type checker, it would make every misspelt name an Any

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":
            from importlib.metadata import version

            return version("igkd-hpo")
        home = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
        return getattr(home, "Study" if name == "StudyFile" else name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
