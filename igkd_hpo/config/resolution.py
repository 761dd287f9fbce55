"""What each `auto` of a study file came to on the machine that trained, and when a machine chooses anew."""

from typing import Any

from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import Study, TrainingConfig


def resolve_autos(study: Study, execution: Execution | None) -> Study:
    """Return the study with each `auto` replaced by what it came to, as far as that was recorded.

    `attribution.n_steps` stays `auto` where there were no maps: nothing was chosen, and nothing is made.
    """
    if execution is None:
        return study
    came_to: dict[str, dict[str, Any]] = {
        "teacher": {"logits": execution.logits},
        "attribution": {"n_steps": execution.n_steps},
        "training": {"precision": execution.precision, "compile": execution.compile},
    }
    changed = {}
    for section, values in came_to.items():
        keys: Any = getattr(study, section)
        found = {key: value for key, value in values.items() if value is not None and getattr(keys, key) == "auto"}
        changed[section] = keys.model_copy(update=found)
    return study.model_copy(update=changed)


def recorded_execution(study: Study, device_type: str) -> Execution | None:
    """Return how an exported file's trial ran, where it ran on this kind of device (cpu, cuda); else None."""
    execution = study.provenance.execution if study.provenance else None
    return execution if execution is not None and execution.device == device_type else None


def training_on(study: Study, device_type: str) -> TrainingConfig:
    """Return a study's `training` for a kind of device; what an export found on another kind is `auto` here.

    A GPU's bfloat16 is slow on a CPU, and its CUDA graph is not to be had.
    """
    if study.provenance is None or study.provenance.execution is None or recorded_execution(study, device_type):
        return study.training
    return study.training.model_copy(update={"precision": "auto", "compile": "auto"})
