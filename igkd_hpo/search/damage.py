"""Tell which studies and trials of a database this version cannot use, so that each of them spoils itself alone.

Other tools, hands and later versions write into the same tables. A trial whose record is not what this project writes
reads as FAIL, with the reason: every reader knows such trials, and no sampler learns from them.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from igkd_hpo import __version__
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.study import NAME
from igkd_hpo.errors import StudyUnusable

_LONGEST_CLASS = 10_000  # letters of a class's name; of a folder they are 255 bytes, each up to four letters
_LONGEST_VALUE = 60  # letters of a value that a message shows
_Count = Annotated[int, Field(ge=0)]
_Accuracy = Annotated[float, Field(ge=0, le=1)]
_Name = Annotated[str, Field(pattern=r"^[\w .,+=()-]{1,200}$")]  # of a control or an arm: no markup, whoever wrote it


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, defer_build=True)


class _Class(_Facts):
    name: Annotated[str, Field(max_length=_LONGEST_CLASS)]
    images: Annotated[int, Field(ge=1)]
    right: _Count
    answered: _Count
    mistaken_for: Annotated[str, Field(max_length=_LONGEST_CLASS)] | None


class _Classes(_Facts):
    count: _Count
    worst: list[_Class]
    runs: Annotated[int, Field(ge=1)]
    images: _Count | None = None


class _Trial(_Facts):
    """What is read of a trial, all of it optional: other tools add trials too."""

    values: list[_Accuracy] | None
    epochs: dict[_Count, _Accuracy]
    constraints: dict[str, float]
    fixed_params: dict[str, Any] = {}
    hyperparameters: Hyperparameters | None = None
    seed: _Count | None = None
    attempts: _Count = 0
    ended_after: _Count | None = None
    attempts_without_progress: _Count = 0
    out_of_memory: _Count = 0
    control: _Name | None = None
    reason: str | None = None
    worker: str | None = None
    host: str | None = None
    device: str | None = None
    execution: Execution | None = None
    arm: _Count | None = None
    arm_name: _Name | None = None
    parameters: _Count | None = None
    macs: _Count | None = None
    size_kb: float | None = None
    peak_ram_kb: float | None = None
    nonzero_parameters: _Count | None = None
    compression_factor: float | None = None
    latency_ms: float | None = None
    latency_ms_p95: float | None = None
    latency_of: str | None = None
    stratum: float | None = None
    classes: _Classes | None = None


class _Arm(_Facts):
    names: Annotated[list[_Name], Field(min_length=1)]
    kinds: list[str]
    trial: int | None
    search_accuracy: float | None
    hyperparameters: Hyperparameters


class _Rung(_Facts):
    asked: Annotated[float, Field(gt=1)]
    reached: Annotated[float, Field(gt=0)] | None
    parameters: Annotated[int, Field(ge=1)] | None
    student: dict[str, str | int | float]
    left_out: str | None


class _Tally(_Facts):
    right: list[_Count]
    answered: list[_Count]
    mistaken_for: list[Annotated[int, Field(ge=-1)]]
    mistaken: list[_Count]


class _TestClasses(_Facts):
    names: list[Annotated[str, Field(max_length=_LONGEST_CLASS)]]
    images: list[_Count]
    trials: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], _Tally]


class _TestSplit(_Facts):
    accuracies: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], _Accuracy]
    images: _Count
    opened: list[str]
    classes: _TestClasses | None = None


class _Estimate(_Facts):
    value: float
    low: float
    high: float


class _Agreement(_Facts):
    correlation: _Estimate
    overlap: _Estimate


class _ExplainedArm(_Facts):
    number: _Count
    name: _Name
    trials: Annotated[list[_Count], Field(min_length=1)]
    agreement: _Agreement
    deletion: _Estimate
    deletion_by_lot: _Estimate
    insertion: _Estimate
    insertion_by_lot: _Estimate
    sensitivity: _Estimate | None


class _Example(_Facts):
    row: _Count
    correlation: float


class _Explanations(_Facts):
    arms: Annotated[list[_ExplainedArm], Field(min_length=1)]
    subject: _Count
    without: _Count | None
    difference: _Estimate | None
    verdict: Literal["keeps", "loses", "unknown", "absent", "untested"]
    shuffled: _Agreement | None
    untrained: _Agreement
    ceiling: _Agreement | None
    ceiling_of: Literal["teachers", "mirrored", "shifted"] | None
    n_images: _Count
    n_sensitivity: _Count
    n_steps: Annotated[int, Field(ge=1, le=1000)]
    examples: Annotated[list[_Example], Field(max_length=100)]
    measured: str


class _Study(_Facts):
    study_file: str
    fingerprint: str
    folder: Annotated[str, Field(pattern=NAME)] | None = None
    n_trials: Annotated[int, Field(ge=1)]
    ended_before_launch: _Count
    late_results: _Count = 0
    stopped: str | None = None
    stop_ordered: bool = False
    stopped_now: bool = False
    stop_planned: bool = False
    deadline: Annotated[float, Field(ge=0, le=1e11)] | None = None
    dataset_sha256: str | None = None
    teacher_sha256: str | None = None
    own_validation: bool = False
    teacher_accuracy: _Accuracy | None = None
    confirms: str | None = None
    purpose: Literal["ladder"] | None = None
    rungs: list[_Rung] = []
    subject: _Count | None = None
    arms: list[_Arm] = []
    frontier: list[_Count] = []
    test_split: _TestSplit | None = None
    explanations: _Explanations | None = None


def study_damage(attributes: Mapping[str, Any]) -> str | None:
    """Say which of a study's user attributes is not what this version writes; None where all are."""
    try:
        facts = _Study.model_validate(dict(attributes))
    except ValidationError as error:
        return _in_words(error)
    if facts.arms and (facts.subject is None or facts.subject >= len(facts.arms)):
        return f"subject is {facts.subject}, of {len(facts.arms)} arms"
    if facts.test_split is not None and facts.test_split.accuracies and not facts.test_split.images:
        return "test_split has accuracies on 0 images"
    if facts.test_split is not None and (classes := facts.test_split.classes) is not None:
        lists = [classes.images, *(one for tally in classes.trials.values() for one in vars(tally).values())]
        if any(len(one) != len(classes.names) for one in lists) or not any(classes.images):
            return "test_split has not a number for each class"
        if any(other >= len(classes.names) for tally in classes.trials.values() for other in tally.mistaken_for):
            return "test_split names a class that is not there"
    return None


def searched_by(attributes: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names that a study of this project searches; None for another tool's study."""
    if "fingerprint" not in attributes:
        return None
    try:
        hyperparameters = json.loads(attributes["study_file"])["hyperparameters"]
        return frozenset(name for name, setting in hyperparameters.items() if isinstance(setting, dict))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):  # the study itself cannot be used
        return frozenset()


def spoil_damaged(trial: FrozenTrial, searched: frozenset[str]) -> None:
    """Turn a trial whose record cannot be used into a FAIL with the reason; leave all others as they are.

    5,000 trials take 0.3 s, once in each process.
    """
    attributes, system = trial.user_attrs, trial.system_attrs
    constraints = {key: value for key, value in system.items() if key.startswith(("constraints", "completed_rung_"))}
    facts = {"values": trial.values, "epochs": trial.intermediate_values, "constraints": constraints}
    facts["fixed_params"] = system.get("fixed_params", {})
    hyperparameters = attributes.get("hyperparameters")
    try:
        _Trial.model_validate(attributes | facts)
    except ValidationError as error:
        return spoil(trial, _in_words(error))
    if trial.state is TrialState.COMPLETE and len(trial.values or ()) != 1:
        return spoil(trial, f"it is COMPLETE, and has {len(trial.values or ())} values")
    if hyperparameters is not None and (lacking := searched - hyperparameters.keys()):
        return spoil(trial, f"hyperparameters lack {', '.join(sorted(lacking))}")
    if hyperparameters is not None and any(isinstance(value, dict) for value in hyperparameters.values()):
        return spoil(trial, "hyperparameters hold a range")
    return None


def spoil(trial: FrozenTrial, why: str) -> None:
    """Turn a trial into a FAIL that says why its record cannot be used."""
    trial.state = TrialState.FAIL
    trial.values = None
    trial.intermediate_values = {}
    trial._user_attrs = {"reason": f"its record in the database cannot be used: {why}"}
    trial._system_attrs = {}


def unusable(place: str, attributes: Mapping[str, Any], why: str) -> StudyUnusable:
    """Return the error for a study that this version cannot use."""
    maker, ours = attributes.get("created_by"), f"igkd-hpo {__version__}"
    made = f", made by {maker[:_LONGEST_VALUE]}," if isinstance(maker, str) else ""
    used, writer = f"cannot be used by {ours}", "use the version that wrote it"
    if maker == ours:  # so that its version is not what differs
        made, used, writer = (
            "",
            "cannot be used",
            "it was changed, or written by another commit of this version: use that",
        )
    return StudyUnusable(f"{place}{made} {used}: {why}; {writer}, or `igkd-hpo delete` it")


def _in_words(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "missing":
        return f"{'.'.join(map(str, fault['loc']))} is missing"
    value = repr(fault["input"])
    shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
    return f"{'.'.join(map(str, fault['loc']))} is {shown} ({fault['msg'].lower()})"
