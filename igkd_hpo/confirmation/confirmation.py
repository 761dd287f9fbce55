"""Confirmation of a study, read from the database: one frozen object, for people, files and pages alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.config.space import Value
from igkd_hpo.confirmation.evaluation import SplitRecord, read_record
from igkd_hpo.confirmation.explanations import Explanations, read_explanations
from igkd_hpo.confirmation.plan import without
from igkd_hpo.confirmation.statistics import Against, Contrast, Estimate, compare, contrasts, t_interval
from igkd_hpo.confirmation.steps import StepUp, steps_up
from igkd_hpo.distillation.class_table import ClassTable, class_table
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.distillation.tally import Tally, of_guessing
from igkd_hpo.search.best import accuracy
from igkd_hpo.search.confirmation_study import Arm, arm_trials, arms_of, open_confirmation, parent_of
from igkd_hpo.search.counts import needs_another
from igkd_hpo.search.study import SearchStudy

MOST_UNSEEN = 0.05
"""Difference between two arms of a tie, a fraction: where a larger one could go unseen, the tie says nothing yet."""

_QUESTIONS = ("ig", "kd", "both")
Compare = Callable[[Iterable[int]], Mapping[int, Contrast]]
"""Takes the numbers of a family of arms and returns the subject's contrasts with those that can be compared."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Values of the metric for an arm on one split, in the order of its seeds; their mean has a 95 % t interval."""

    accuracies: tuple[float, ...]
    mean: Estimate


@dataclass(frozen=True, kw_only=True)
class ConfirmedArm:
    """One configuration, trained with several seeds.

    Args:
        number: of the arm in its study, from 0.
        names, kinds: in the same order; several where several arms turned out to be the same. A kind is candidate,
            without_ig, without_kd, without_both or control.
        trial: of the confirmed study, whose configuration it is; `search_accuracy` is its validation accuracy.
        cost: of the student to store and to run, by the names of `StudentCost`; None what was not recorded.
        seeds: that were trained to the end; `trials` are the numbers of those trials in the linked study.
        diverged: seeds whose loss was not finite. Such an arm is shown, and compared with none.
        against: on the test split, this arm minus the best one; None where the arm is not compared.
        shrunken: estimated true accuracy on the test split, without the luck of the seeds; None as above.
    """

    number: int
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    trial: int | None
    search_accuracy: float | None
    hyperparameters: Mapping[str, Value]
    cost: Mapping[str, Any]
    seeds: tuple[int, ...]
    trials: tuple[int, ...]
    diverged: int
    validation: Measured
    test: Measured
    against: Against | None
    shrunken: float | None

    @property
    def name(self) -> str:
        """Return the first of the arm's names."""
        return self.names[0]

    @property
    def training_key(self) -> str:
        """Return what `Arm.training_key` returns of its configuration."""
        return Arm(names=self.names, kinds=self.kinds, hyperparameters=self.hyperparameters).training_key

    @property
    def parameters(self) -> int | None:
        """Return the student's number of parameters."""
        parameters: int | None = self.cost["parameters"]
        return parameters

    @property
    def tied(self) -> bool:
        """Tell whether the arm cannot be told from the best."""
        return self.against is not None and self.against.tied


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer to whether a part helps.

    Args:
        question: ig, kd or both.
        subject, without: arm numbers: the configuration with the part, and without it.
        contrast: accuracy with the part minus without it, on the test split; None where there is none.
        verdict: helps, hurts, unknown, absent (the subject does not have the part), or untested (an arm diverged or is
            not there yet).
    """

    question: str
    subject: int
    without: int | None
    contrast: Contrast | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class ControlAnswer:
    """Answer to whether the search's best is better than a control.

    Args:
        control, arm: its name, and the number of its arm.
        contrast: accuracy of the search's best minus the control's, on the test split; None where there is none.
        verdict: better, worse, unknown, or untested (an arm diverged or is not there yet).
    """

    control: str
    arm: int
    contrast: Contrast | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Results of the fresh seeds on the test split.

    Args:
        study: that was confirmed; `linked_study` holds the trials.
        arms: in the order in which they were planned.
        best: number of the arm with the highest mean on the test split.
        named: it is better than every other arm.
        runner_up_p_value: one-sided.
        tie_set: numbers of the arms that cannot be told from the best, itself included, by mean.
        chosen: the smallest of the tie set by parameters; of equals, the one with the highest mean. What export takes.
        detectable: the difference between the chosen and the best, or where it is the best, the next of the tie set,
            that would be found in 80 of 100 repetitions; None where nothing is tied with the best.
        guessing: value of always guessing the test split's most common class; None where the split was read before
            that was recorded.
        subject, subject_name: the search's best by its value there, before any fresh seed: the arm that parts were
            taken out of, and that is compared with each control.
        answers: whether the subject's parts help, a family of their own; `controls`: whether it is better than each
            control, another.
        baseline: number of the arm that is plain training with the subject's settings; None when there is none.
        gain: mean of the best minus the baseline's on the test split; `shrunken_gain` without the luck of the seeds;
            None where the best is plain training itself.
        kept: the share of the differences between arms that is not noise.
        n_seeds: the least number of seeds that an arm has.
        n_test_images: in the test split; `opened` says when it was opened (ISO 8601, UTC).
        metric: of the study, which all accuracies here are values of.
        sampling_error: of the best arm's value, by another sample of test images: its standard error, a fraction.
        classes: what became of each class of the test images with the chosen arm, all its seeds together; None where
            the split was read before that was recorded.
        explanations: how much of the teacher's reasons students kept; None where nobody asked.
        steps: from each student of the frontier to the next larger one, a family of their own; none where nobody asked.
    """

    study: str
    linked_study: str
    arms: tuple[ConfirmedArm, ...]
    best: int
    named: bool
    runner_up_p_value: float
    tie_set: tuple[int, ...]
    chosen: int
    detectable: float | None
    guessing: float | None
    subject: int
    subject_name: str
    answers: tuple[Answer, ...]
    controls: tuple[ControlAnswer, ...]
    baseline: int | None
    gain: float | None
    shrunken_gain: float | None
    kept: float
    n_seeds: int
    n_test_images: int
    opened: tuple[str, ...]
    metric: Metric
    sampling_error: float
    classes: ClassTable | None
    explanations: Explanations | None = None
    steps: tuple[StepUp, ...] = ()

    def arm(self, number: int) -> ConfirmedArm:
        """Return the arm of this number."""
        return next(arm for arm in self.arms if arm.number == number)

    @property
    def at_chance(self) -> bool:
        """Tell whether the chosen arm may do no better than always guessing."""
        return self.guessing is not None and self.arm(self.chosen).test.mean.low <= self.guessing

    @property
    def inconclusive(self) -> bool:
        """Tell whether nothing can be told without more seeds or epochs: a tie that hides large differences."""
        large = self.detectable is not None and self.detectable > MOST_UNSEEN
        return not self.named and (large or self.at_chance)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; accuracies are fractions, in the metric that is named."""
        classes = self.classes.as_json() if self.classes else None
        return asdict(self) | {"classes": classes, "at_chance": self.at_chance, "inconclusive": self.inconclusive}


def confirmation_of(study: SearchStudy) -> Confirmation | None:
    """Read the confirmation of a study, given it or one that is linked to it; None before the test split was read."""
    linked = study if study.purpose == "confirm" else open_confirmation(study.storage, parent_of(study).name)
    return None if linked is None else read_confirmation(linked)


def read_confirmation(
    linked: SearchStudy, wanted: Callable[["ConfirmedArm"], bool] = lambda _: True
) -> Confirmation | None:
    """Read the confirmation that a linked study holds; None before two seeds of an arm were tested.

    Args:
        wanted: whether an arm is compared with the others, or left out.
    """
    record, trials = read_record(linked), arm_trials(linked.trials())
    planned = arms_of(linked)
    if not planned:
        return None
    attributes = linked.read().attributes
    subject = int(attributes["subject"])
    measured = [measure_arm(number, arm, trials, record.accuracies) for number, arm in enumerate(planned)]
    arms = [arm for arm in measured if arm is not None and wanted(arm)]
    compared = [arm for arm in arms if arm.diverged == 0]
    if not compared:
        return None
    metric, samples = linked.config.metric, [arm.test.accuracies for arm in compared]
    step = record.resolution(metric)
    comparison = compare(samples, resolution=step)
    by_number = {
        arm.number: replace(arm, against=against, shrunken=shrunken)
        for arm, against, shrunken in zip(compared, comparison.against, comparison.shrunken, strict=True)
    }
    index = {arm.number: place for place, arm in enumerate(compared)}
    contrast_with = partial(_contrast_with, subject, index, samples, step)
    answers = _answer(planned, subject, contrast_with)
    tied = sorted((arm for arm in by_number.values() if arm.tied), key=lambda arm: (-arm.test.mean.value, arm.number))
    best, baseline, gain = compared[comparison.best].number, answers[-1].without, None
    chosen = min(tied, key=lambda arm: arm.parameters or 0)
    decisive = chosen if chosen.number != best else next(iter(tied[1:]), None)
    plain = without(planned[best], "without_both").training_key == planned[best].training_key
    if baseline is not None and baseline in by_number and not plain:
        gain = by_number[best].test.mean.value - by_number[baseline].test.mean.value
    return Confirmation(
        study=str(linked.confirms),
        linked_study=linked.name,
        arms=tuple(by_number.get(arm.number, arm) for arm in arms),
        best=best,
        named=comparison.named,
        runner_up_p_value=comparison.runner_up_p_value,
        tie_set=tuple(arm.number for arm in tied),
        chosen=chosen.number,
        detectable=None if decisive is None or decisive.against is None else decisive.against.detectable,
        guessing=_guessing(record, metric),
        subject=subject,
        subject_name=planned[subject].name,
        answers=answers,
        controls=_compare_with_controls(planned, subject, contrast_with),
        baseline=baseline,
        gain=gain,
        shrunken_gain=None if gain is None else comparison.shrinkage * gain,
        kept=comparison.shrinkage,
        n_seeds=min(len(sample) for sample in samples),
        n_test_images=record.images,
        opened=record.opened,
        metric=metric,
        sampling_error=sampling_error(compared[comparison.best], record, metric),
        classes=_classes(chosen, record),
        explanations=read_explanations(attributes),
        steps=steps_up(attributes.get("frontier", ()), index, samples, step),
    )


def sampling_error(arm: ConfirmedArm, record: SplitRecord, metric: Metric) -> float:
    """Return the standard error of an arm's value over samples of test images, in the mean over its seeds."""
    tallies = [record.tallies[number] for number in arm.trials if number in record.tallies]
    if metric == "accuracy" or not tallies:
        share = arm.test.mean.value
        return float((share * (1 - share) / record.images) ** 0.5)
    return fmean(tally.sampling_error(metric) for tally in tallies)


def _guessing(record: SplitRecord, metric: Metric) -> float | None:
    tally = next(iter(record.tallies.values()), None)
    return None if tally is None else of_guessing(tally.images, metric)


def _classes(arm: ConfirmedArm, record: SplitRecord) -> ClassTable | None:
    tallies = [record.tallies[number] for number in arm.trials if number in record.tallies]
    if len(tallies) < len(arm.trials):
        return None
    return class_table(Tally.added(tallies), record.class_names, runs=len(tallies))


def measure_arm(
    number: int, arm: Arm, trials: Sequence[FrozenTrial], tested: Mapping[int, float]
) -> ConfirmedArm | None:
    """Return an arm's results on both splits, compared with none; None before two of its seeds were tested.

    Args:
        number: of the arm in its study, as its trials name it.
        trials: of the study, those of other arms too.
        tested: values of the metric on the test split by trial number, fractions.
    """
    own = [trial for trial in trials if trial.user_attrs["arm"] == number]
    complete = [trial for trial in own if trial.state is TrialState.COMPLETE]
    done = sorted((t for t in complete if t.number in tested), key=lambda trial: int(trial.user_attrs["seed"]))
    if len(done) < 2:
        return None
    on_validation = tuple(accuracy(trial) for trial in done)
    on_test = tuple(tested[trial.number] for trial in done)
    return ConfirmedArm(
        number=number,
        **vars(arm),
        cost=recorded_cost(done[0].user_attrs),
        seeds=tuple(int(trial.user_attrs["seed"]) for trial in done),
        trials=tuple(trial.number for trial in done),
        diverged=sum(trial.state is TrialState.PRUNED and not needs_another(trial) for trial in own),
        validation=Measured(accuracies=on_validation, mean=t_interval(on_validation).within(0, 1)),
        test=Measured(accuracies=on_test, mean=t_interval(on_test).within(0, 1)),
        against=None,
        shrunken=None,
    )


def _contrast_with(
    subject: int,
    index: Mapping[int, int],
    samples: Sequence[Sequence[float]],
    resolution: float,
    others: Iterable[int],
) -> dict[int, Contrast]:
    """Return the subject's contrasts with a family of arms, by their numbers, where both can be compared.

    Args:
        index: of each arm's sample, by its number.
    """
    pairs = sorted({other for other in others if other != subject and {other, subject} <= index.keys()})
    differences = contrasts(samples, [(index[subject], index[other]) for other in pairs], resolution=resolution)
    return dict(zip(pairs, differences, strict=True))


def _answer(arms: Sequence[Arm], subject: int, compare_with: Compare) -> tuple[Answer, ...]:
    number = {arm.training_key: n for n, arm in enumerate(arms)}
    others = [number.get(without(arms[subject], f"without_{part}").training_key, subject) for part in _QUESTIONS]
    contrast_with = compare_with(others)
    return tuple(
        Answer(
            question=question,
            subject=subject,
            without=None if other == subject else other,
            contrast=contrast_with.get(other),
            verdict="absent" if other == subject else judge(contrast_with.get(other), "helps", "hurts"),
        )
        for question, other in zip(_QUESTIONS, others, strict=True)
    )


def _compare_with_controls(arms: Sequence[Arm], subject: int, compare_with: Compare) -> tuple[ControlAnswer, ...]:
    """Compare with each control that trains otherwise than the subject."""
    controls = [
        (name, number)
        for number, arm in enumerate(arms)
        for name, kind in zip(arm.names, arm.kinds, strict=True)
        if kind == "control" and number != subject
    ]
    contrast_with = compare_with(number for _, number in controls)
    return tuple(
        ControlAnswer(
            control=name,
            arm=number,
            contrast=contrast_with.get(number),
            verdict=judge(contrast_with.get(number), "better", "worse"),
        )
        for name, number in controls
    )


def judge(contrast: Contrast | None, above: str, below: str) -> str:
    """Return the word for the sign of a difference: unknown where it cannot be told, untested where there is none."""
    if contrast is None:
        return "untested"
    if not contrast.significant:
        return "unknown"
    return above if contrast.difference.value > 0 else below
