"""Spread between seeds of one configuration: how far from a trial's value another seed may end."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from optuna.trial import FrozenTrial

from igkd_hpo.distillation.class_table import table_of_record
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.distillation.tally import Tally, resolution
from igkd_hpo.search.best import accuracy, completed_trials
from igkd_hpo.search.confirmation_study import Arm, open_confirmation
from igkd_hpo.search.study import SearchStudy

_LEVEL = 0.05  # share of further seeds that end beyond the reach
_FEWEST = 4  # degrees of freedom of a spread that is taken from repeats: below, Student's t is above 3

Source = Literal["repeats", "images"]
"""Several seeds of the same configurations, or the binomial of the validation images."""


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """Spread between the seeds of one configuration, as far as it is known.

    Args:
        metric: that values are of.
        deviation: standard deviation between seeds, a fraction, of all configurations that were trained with several,
            here or in the confirmation; None where there are too few, and the binomial of the images is taken.
        freedom: its degrees of freedom.
        trainings, configurations: that it is from.
    """

    metric: Metric
    deviation: float | None
    freedom: int
    trainings: int
    configurations: int

    def source(self, trials: Sequence[FrozenTrial]) -> Source | None:
        """Return what the reach of these trials is from; None where it is not known."""
        if self.deviation is not None:
            return "repeats"
        return "images" if any(self.reach(trial) is not None for trial in trials) else None

    def reach(self, trial: FrozenTrial) -> float | None:
        """Return how far from a COMPLETE trial's value another seed ends at most, in 95 of 100 cases; a fraction.

        Two trials that are less than this apart cannot be told apart, as two seeds of one configuration may be.
        None where neither repeats nor the validation images are known.
        """
        from scipy.special import ndtri, stdtrit  # 0.1 s, which `status` does without

        if self.deviation is not None:
            return float(stdtrit(self.freedom, 1 - _LEVEL / 2)) * self.deviation * 2**0.5
        error = _sampling_error(trial, self.metric)
        return None if error is None else float(ndtri(1 - _LEVEL / 2)) * error * 2**0.5

    def in_words(self, trials: Sequence[FrozenTrial]) -> str:
        """Say what an interval is from, given the trials that it is drawn for."""
        begun = "the interval is where another seed ends in 95 of 100 cases, "
        if self.deviation is not None:
            return f"{begun}by {self.trainings} trainings of {self.configurations} configurations with several seeds"
        if self.source(trials) is None:
            return "how far another seed may end is not known: train some configurations with several, as confirm does"
        counts = [count for trial in trials if (count := _images(trial)) is not None]
        return (
            f"{begun}as if each of {counts[0]:,} validation images were right or wrong by chance: too few "
            "configurations were trained with several seeds to know better"
        )


def seed_spread(
    study: SearchStudy, trials: Sequence[FrozenTrial] | None = None, *, confirmed: bool = True
) -> SeedSpread:
    """Pool the spread of all configurations with several seeds, of `trials` if they have been read.

    Args:
        confirmed: also of those of its confirmation.
    """
    completed = completed_trials(study, trials)
    linked = open_confirmation(study.storage, study.name) if confirmed and study.confirms is None else None
    later = study.config.hyperparameters.fixed()

    def key(trial: FrozenTrial) -> str:
        values = later | trial.user_attrs["hyperparameters"]
        return Arm(names=("",), kinds=("",), hyperparameters=values).training_key

    # A search's best was chosen for its luck, which its fresh seeds lack: the two are not of one group.
    by_seed: dict[tuple[int, str], dict[int, float]] = {}
    for kind, some in enumerate((completed, [] if linked is None else completed_trials(linked))):
        for trial in some:
            by_seed.setdefault((kind, key(trial)), {})[trial.user_attrs["seed"]] = accuracy(trial)
    groups = [list(group.values()) for group in by_seed.values() if len(group) > 1]
    trainings = sum(map(len, groups))
    freedom = trainings - len(groups)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    deviation = None
    if freedom >= _FEWEST:
        steps = [step for trial in completed if (step := _step(trial, study.config.metric)) is not None]
        deviation = max(squares / freedom, max(steps, default=0.0) ** 2 / 12) ** 0.5
    return SeedSpread(
        metric=study.config.metric,
        deviation=deviation or None,
        freedom=freedom,
        trainings=trainings,
        configurations=len(groups),
    )


def _sampling_error(trial: FrozenTrial, metric: Metric) -> float | None:
    """Return the standard error of a value over other validation images; one right and one wrong image are added."""
    if metric == "accuracy":
        if (images := _images(trial)) is None:
            return None
        share = (accuracy(trial) * images + 1) / (images + 2)
        return float((share * (1 - share) / images) ** 0.5)
    tally = _tally(trial)
    return None if tally is None else tally.sampling_error(metric)


def _images(trial: FrozenTrial) -> int | None:
    if (record := trial.user_attrs.get("classes")) is None:
        return None
    table = table_of_record(record)
    return table.images if table.images is not None else _sum_of(_tally(trial))


def _sum_of(tally: Tally | None) -> int | None:
    return None if tally is None else sum(tally.images)


def _tally(trial: FrozenTrial) -> Tally | None:
    """Return the counts of all classes; None where they were not recorded, or of the worst classes alone."""
    if (record := trial.user_attrs.get("classes")) is None:
        return None
    table = table_of_record(record)
    if len(table.worst) < table.count:
        return None
    return Tally(
        images=[one.images for one in table.worst],
        right=[one.right for one in table.worst],
        answered=[one.answered for one in table.worst],
        mistaken_for=[-1] * table.count,
        mistaken=[0] * table.count,
    )


def _step(trial: FrozenTrial, metric: Metric) -> float | None:
    tally, images = _tally(trial), _images(trial)
    if tally is not None:
        return resolution(tally.images, metric)
    return 1 / images if images and metric == "accuracy" else None
