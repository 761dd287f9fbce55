"""Set the best trial of a study against its controls, in the words that a result deserves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.config.cost_limit import COSTS, under_as_flags, under_in_words
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.space import Value, shown
from igkd_hpo.distillation.class_table import ClassTable, table_of_record
from igkd_hpo.distillation.metrics import METRICS, Metric, measured
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.search.class_lines import class_lines
from igkd_hpo.search.strata import strata_in_words, strata_status
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.search.trial_cost import remarks, select_under, why_nothing_meets
from igkd_hpo.words import milliseconds, multiply_adds, parameters, percent, points_between, times_smaller

_NOT_IN_WORDS = ("size_kb", "peak_ram_kb", "latency_ms_p95")  # costs that `student_in_words` leaves out


@dataclass(frozen=True, kw_only=True)
class ControlComparison:
    """A control beside the best trial; its value of the metric and `difference`, best minus control, are fractions."""

    control: str
    trial: int
    validation_accuracy: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The COMPLETE trial with the highest value of the study's metric on validation; of equals, the first.

    Args:
        validation_accuracy: that value, as `teacher_accuracy` is the teacher's; accuracy, unless `metric` says other.
        hyperparameters: all of them, as they trained.
        control: its name, if the best trial is a control.
        seed: of initial weights, order, views and overlays.
        execution: the settings of the machine that it ran with, if they were recorded.
        cost: of the student to store and to run, by the names of `StudentCost`; None what was not recorded.
        attempts: runs it took; more than one when a worker was lost or stopped on the way.
        compared: the COMPLETE controls, itself left out, in the order of the study.
        completed: COMPLETE trials that it is the best of, as are those in `compared`.
        teacher_accuracy: the teacher's on the same images, a fraction; None where it was not recorded.
        classes: what became of each class of the validation images; None where it was not recorded.
        confirmed: results on fresh seeds and the test split, as an exported file holds them; None without.
        under: limits that it and the others are within, by the names of costs.
        remarks: what these limits do not say, in lines for people.
    """

    study: str
    number: int
    validation_accuracy: float
    epochs: int
    hyperparameters: Mapping[str, Value]
    control: str | None
    seed: int
    execution: Execution | None
    cost: Mapping[str, Any]
    attempts: int
    compared: tuple[ControlComparison, ...]
    completed: int
    teacher_accuracy: float | None = None
    confirmed: Mapping[str, Any] | None = None
    metric: Metric = "accuracy"
    classes: ClassTable | None = None
    under: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Return the value on validation, by the name that it has in every trial."""
        return self.validation_accuracy

    @property
    def title(self) -> str:
        """Name the trial, and the control if it is one: trial 9, or the control kd, trial 1."""
        return f"the control {self.control}, trial {self.number}" if self.control else f"trial {self.number}"

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; accuracies are fractions."""
        return {
            **{name: value for name, value in vars(self).items() if name != "cost"},
            "under": dict(self.under),
            **self.cost,
            "hyperparameters": dict(self.hyperparameters),
            "execution": self.execution.model_dump() if self.execution else None,
            "compared": [dict(vars(comparison)) for comparison in self.compared],
            "classes": self.classes.as_json() if self.classes else None,
        }


def best_trial(
    study: SearchStudy, trials: Sequence[FrozenTrial] | None = None, *, under: Mapping[str, float] = {}
) -> BestTrial:
    """Return the best COMPLETE trial so far, of `trials` if they have been read.

    Args:
        under: limits to its costs, by their names.

    Raises:
        NoCompletedTrial: there is none, or none is within the limits; the nearest is told.
    """
    completed = completed_trials(study, trials)
    if not completed:
        counts = study.counts()
        raise NoCompletedTrial(
            f"study {study.name} has no completed trial ({counts.in_words()}); {counts.how_to_complete(study.name)}"
        )
    within = select_under(completed, under).within
    if not within:
        raise NoCompletedTrial(why_nothing_meets(study.name, completed, under))
    best = _describe(study, max(within, key=lambda trial: (accuracy(trial), -trial.number)), within)
    return replace(best, under=dict(under), remarks=remarks(completed, under)) if under else best


def completed_trials(study: SearchStudy, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Return the COMPLETE trials of this project, by number, of `trials` if they have been read.

    A trial that another tool added has no record of what it trained with; nothing could be exported from it.
    """
    recorded = [
        trial
        for trial in (study.trials() if trials is None else trials)
        if {"hyperparameters", "seed"} <= trial.user_attrs.keys()
    ]
    return [trial for trial in recorded if trial.state is TrialState.COMPLETE]


def trained_trial(study: SearchStudy, number: int) -> BestTrial:
    """Return a COMPLETE trial of this project in the form of the best, against no controls."""
    return _describe(study, study.trials()[number], [])


def _describe(study: SearchStudy, best: FrozenTrial, completed: Sequence[FrozenTrial]) -> BestTrial:
    attributes = best.user_attrs
    later = study.config.hyperparameters.fixed()  # what the format got since then was at its default
    values = later | attributes["hyperparameters"]
    execution = attributes.get("execution")
    return BestTrial(
        study=study.name,
        number=best.number,
        validation_accuracy=accuracy(best),
        epochs=max(best.intermediate_values, default=study.config.training.epochs),
        hyperparameters={name: values[name] for name in Hyperparameters.model_fields if name in values},
        control=attributes.get("control"),
        seed=attributes["seed"],
        execution=Execution.model_validate(execution) if execution else None,
        cost=recorded_cost(attributes),
        attempts=attributes.get("attempts", 1),
        compared=tuple(
            ControlComparison(
                control=trial.user_attrs["control"],
                trial=trial.number,
                validation_accuracy=accuracy(trial),
                difference=accuracy(best) - accuracy(trial),
            )
            for trial in completed
            if "control" in trial.user_attrs and trial is not best
        ),
        completed=max(1, len(completed)),
        teacher_accuracy=None if (pins := study.read().pins) is None else pins.teacher_accuracy,
        metric=study.config.metric,
        classes=table_of_record(attributes["classes"]) if "classes" in attributes else None,
    )


def accuracy(trial: FrozenTrial) -> float:
    """Return the value of a COMPLETE trial: the study's metric on validation, a fraction."""
    assert trial.value is not None
    return trial.value


def summary(study: SearchStudy, *, under: Mapping[str, float] = {}) -> str:
    """Sum up a search: its result, and how far to trust the difference. Raises NoCompletedTrial."""
    best = best_trial(study, under=under)
    todo = f"To see: `igkd-hpo confirm {study.name}` trains the best few with fresh seeds, and tests them once."
    if under:
        todo = f"`igkd-hpo export {study.name}{under_as_flags(under)}` writes it to a file that trains."
    return f"{result(study, best)}\n{caution(best)}\n{todo}"


def result(study: SearchStudy, best: BestTrial) -> str:
    """Format counts, the best trial, and the controls beside it."""
    counts, values = study.counts(), study.config.hyperparameters.telling(best.hyperparameters)
    reached = f"{percent(best.validation_accuracy)} validation {METRICS[best.metric]}"
    lines = [
        f"{study.name}: {counts.finished} of {study.read().n_trials} trials finished ({counts.in_words()})",
        f"best{_limited(best)}: {best.title}, {reached} after {best.epochs} epochs",
        f"  {student_in_words(best)}",
        *(f"  {COSTS[name].in_words(best.cost[name])}" for name in best.under if name in _NOT_IN_WORDS),
        "  " + ", ".join(f"{name} {shown(value)}" for name, value in values.items()),
        *(f"  {remark}" for remark in best.remarks),
    ]
    if best.teacher_accuracy is not None:
        lines.append(f"its teacher: {measured(best.teacher_accuracy, best.metric)} on the same images")
    if best.compared:
        width = max(len(comparison.control) for comparison in best.compared)
        lines.append("against the controls, which nobody tuned:")
        lines += [
            f"  {comparison.control:<{width}}  {percent(comparison.validation_accuracy)}  "
            f"{points_between(best.validation_accuracy, comparison.validation_accuracy)}"
            for comparison in best.compared
        ]
    if found := strata_status(study.config.strata, study.trials()):
        lines.append(f"strata: {strata_in_words(found, best.metric)}")
    if best.classes is not None:
        lines += class_lines(best.classes, "validation")
    return "\n".join(lines)


def _limited(best: BestTrial) -> str:
    return f" with {under_in_words(best.under)}" if best.under else ""


def student_in_words(best: BestTrial) -> str:
    """Say what the student costs to store and to run, as far as it was recorded, and its seed."""
    cost = best.cost
    if cost["parameters"] is None:
        return f"seed {best.seed}"
    parts = [parameters(cost["parameters"])]
    if (left := cost.get("nonzero_parameters")) is not None:
        parts.append(f"{left:,} of them not 0 (which makes dense code no faster)")
    if cost["compression_factor"]:
        parts.append(f"{times_smaller(cost['compression_factor'])} the teacher")
    if cost["macs"]:
        parts.append(multiply_adds(cost["macs"]))
    if cost["latency_ms"]:
        parts.append(f"{milliseconds(cost['latency_ms'])} for an image on one CPU thread")
    return ", ".join([*parts, f"seed {best.seed}"])


def caution(best: BestTrial) -> str:
    """Say how far a result of one seed can be trusted."""
    if best.completed == 1:
        only = "This is the only completed trial within the limits, with" if best.under else "This is one trial with"
        return f"{only} one seed, so nothing can be said yet about how much of it is luck."
    limited = " within the limits" if best.under else ""
    return (
        f"The highest of {best.completed} completed trials{limited} with one seed each is partly luck: "
        "one seed each cannot tell a real gain from it."
    )
