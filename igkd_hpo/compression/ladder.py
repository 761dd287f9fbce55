"""Ladder of a study, read from the database: accuracy over compression, plain and distilled, as one frozen object."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from optuna.trial import FrozenTrial

from igkd_hpo.compression.int8 import Int8Change, changes, read_int8
from igkd_hpo.compression.plan import DISTILLED, PLAIN_KIND
from igkd_hpo.compression.rung import Rung, rungs_of
from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.config.space import Value
from igkd_hpo.confirmation.confirmation import ConfirmedArm, judge, measure_arm, sampling_error
from igkd_hpo.confirmation.evaluation import read_record
from igkd_hpo.confirmation.statistics import Contrast, Estimate, contrasts, t_interval
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.search.confirmation_study import arm_trials, arms_of, open_linked, parent_of
from igkd_hpo.search.study import SearchStudy

KINDS = (DISTILLED, PLAIN_KIND)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A rung with its results.

    Args:
        asked, reached: compression factors: parameters of the teacher over those of the student.
        student: its architecture and the knobs that its network has.
        cost: to store and to run, by the names of `StudentCost`; a latency is the median of all its trainings'.
        distilled, plain: the arms, which are compared where no seed of either diverged; None before two were tested.
        gain: the metric distilled minus plain on the test split, with an interval that holds for all rungs at once.
        int8: what the metric changes by in int8, on validation images: of the distilled and the plain student together,
            with an interval over their trainings; None before two were measured.
        verdict: helps, hurts, unknown (the sign cannot be told), or untested (an arm diverged or is not there yet).
    """

    asked: float
    reached: float
    student: Mapping[str, Value]
    cost: Mapping[str, Any]
    distilled: ConfirmedArm | None
    plain: ConfirmedArm | None
    gain: Contrast | None
    int8: Estimate | None
    verdict: str

    def arm(self, kind: str) -> ConfirmedArm | None:
        """Return the distilled or the plain arm."""
        return self.distilled if kind == DISTILLED else self.plain


@dataclass(frozen=True, kw_only=True)
class Rise:
    """A student that is better than a larger one, as far as the sign of their difference can be told.

    Args:
        kind: distilled or plain, both.
        larger, smaller: factors that the two reach.
        contrast: the metric of the smaller minus that of the larger on the test split.
    """

    kind: str
    larger: float
    smaller: float
    contrast: Contrast


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Results of students of many sizes on the test split.

    Args:
        study: whose configuration the students are trained with; `linked_study` holds the trials.
        trial: of that study; None where a study file has the configuration.
        steps: the rungs that were trained, the largest student first.
        left_out: the other rungs, with the reason of each.
        rises: for distilled and for plain students the largest one; nothing where there is none.
        n_seeds: the least number of seeds that an arm has.
        n_test_images: in the test split; `opened` says when it was opened (ISO 8601, UTC).
        metric: of the study, which all accuracies here are values of.
        sampling_error: of the largest student's value, by another sample of test images: its standard error.
    """

    study: str
    linked_study: str
    trial: int | None
    steps: tuple[Step, ...]
    left_out: tuple[Rung, ...]
    rises: tuple[Rise, ...]
    n_seeds: int
    n_test_images: int
    opened: tuple[str, ...]
    metric: Metric
    sampling_error: float

    @property
    def arms(self) -> tuple[ConfirmedArm, ...]:
        """Return all arms that have results."""
        return tuple(arm for step in self.steps for kind in KINDS if (arm := step.arm(kind)) is not None)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; accuracies are fractions, in the metric that is named."""
        return asdict(self)


def ladder_of(study: SearchStudy) -> Ladder | None:
    """Read the ladder of a study, given it or one that is linked to it; None before the test split was read."""
    linked = study if study.purpose == "ladder" else open_linked(study.storage, parent_of(study).name, "ladder")
    return None if linked is None else read_ladder(linked)


def read_ladder(linked: SearchStudy) -> Ladder | None:
    """Read the ladder that a linked study holds; None before two seeds of an arm were tested."""
    record, trials, planned = read_record(linked), arm_trials(linked.trials()), arms_of(linked)
    measured = [measure_arm(number, arm, trials, record.accuracies) for number, arm in enumerate(planned)]
    arms = [arm for arm in measured if arm is not None]
    rungs = rungs_of(linked)
    of_rung = {rung.asked: _arms_of_rung(rung, arms) for rung in rungs if rung.left_out is None}
    trained = sorted((rung for rung in rungs if of_rung.get(rung.asked)), key=lambda rung: rung.reached or 0)
    compared = [arm for arm in arms if arm.diverged == 0]
    if not trained or not compared:
        return None
    metric = linked.config.metric
    differences = _Differences(compared, record.resolution(metric))
    pairs = {
        asked: (arms_of_it[DISTILLED].number, arms_of_it[PLAIN_KIND].number)
        for asked, arms_of_it in of_rung.items()
        if len(arms_of_it) == len(KINDS) and all(arm.diverged == 0 for arm in arms_of_it.values())
    }
    gains = dict(zip(pairs, differences.of([*pairs.values()]).values(), strict=True))
    int8 = read_int8(linked)
    steps = tuple(_step(rung, of_rung[rung.asked], gains.get(rung.asked), trials, int8) for rung in trained)
    return Ladder(
        study=str(linked.confirms),
        linked_study=linked.name,
        trial=planned[0].trial,
        steps=steps,
        left_out=tuple(rung for rung in rungs if rung.left_out is not None),
        rises=_rises(steps, differences),
        n_seeds=min(len(arm.seeds) for arm in compared),
        n_test_images=record.images,
        opened=record.opened,
        metric=metric,
        sampling_error=sampling_error(compared[0], record, metric),
    )


class _Differences:
    """Contrasts of arms that can be compared, by their numbers in the study; all arms help to estimate the noise."""

    def __init__(self, arms: Sequence[ConfirmedArm], step: float) -> None:
        self._samples, self._step = [arm.test.accuracies for arm in arms], step
        self.index = {arm.number: place for place, arm in enumerate(arms)}

    def of(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Contrast]:
        """Return the first minus the second of each pair, with intervals that hold for all of these at once."""
        places = [(self.index[first], self.index[second]) for first, second in pairs]
        return dict(zip(pairs, contrasts(self._samples, places, resolution=self._step), strict=True))


def _arms_of_rung(rung: Rung, arms: Sequence[ConfirmedArm]) -> dict[str, ConfirmedArm]:
    """Select the arms of a rung's student, by kind."""
    return {arm.kinds[0]: arm for arm in arms if rung.student.items() <= arm.hyperparameters.items()}


def _step(
    rung: Rung,
    arms: Mapping[str, ConfirmedArm],
    gain: Contrast | None,
    trials: Sequence[FrozenTrial],
    int8: Mapping[int, Int8Change],
) -> Step:
    assert rung.reached is not None, "it is not left out"
    own = [trial for trial in trials if trial.user_attrs["arm"] in {arm.number for arm in arms.values()}]
    cost = dict(next(iter(arms.values())).cost)
    for name in ("latency_ms", "latency_ms_p95"):
        measured = [value for trial in own if (value := recorded_cost(trial.user_attrs)[name]) is not None]
        cost[name] = median(measured) if measured else None
    in_int8 = changes(int8, [trial.number for trial in own])
    return Step(
        asked=rung.asked,
        reached=rung.reached,
        student=rung.student,
        cost=cost,
        distilled=arms.get(DISTILLED),
        plain=arms.get(PLAIN_KIND),
        gain=gain,
        int8=t_interval(in_int8) if len(in_int8) > 1 else None,
        verdict=judge(gain, "helps", "hurts"),
    )


def _rises(steps: Sequence[Step], differences: _Differences) -> tuple[Rise, ...]:
    """Return where accuracy certainly rises with compression, of each kind the largest rise."""
    places: dict[tuple[int, int], tuple[str, float, float]] = {}
    for kind in KINDS:
        on = [(step.reached, arm.number) for step in steps if (arm := step.arm(kind)) and arm.diverged == 0]
        for place, (larger, before) in enumerate(on):
            places |= {(after, before): (kind, larger, smaller) for smaller, after in on[place + 1 :]}
    found = []
    for kind in KINDS:
        pairs = [pair for pair, (whose, *_) in places.items() if whose == kind]
        compared = differences.of(pairs).items()
        risen = [(pair, one) for pair, one in compared if one.significant and one.difference.value > 0]
        if risen:
            pair, contrast = max(risen, key=lambda one: one[1].difference.value)
            _, larger, smaller = places[pair]
            found.append(Rise(kind=kind, larger=larger, smaller=smaller, contrast=contrast))
    return tuple(found)
