"""All that a confirmation says, read from the database: one frozen object, for people, files and pages alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.cost import recorded_cost
from igkd_hpo.config.space import Value
from igkd_hpo.confirm.evaluation import read_record
from igkd_hpo.confirm.plan import without
from igkd_hpo.confirm.statistics import (
    Against,
    ArmComparison,
    Contrast,
    Estimate,
    compare,
    contrasts,
    t_interval,
)
from igkd_hpo.search.best import accuracy
from igkd_hpo.search.confirmation_study import Arm, arm_trials, arms_of, open_confirmation
from igkd_hpo.search.study import SearchStudy

QUESTIONS = {"ig": "without_ig", "kd": "without_kd", "both": "without_both"}
"""What is asked, by the part that is taken out to answer it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An arm's accuracies on one split, fractions, in the order of its seeds; their mean has a 95 % t interval."""

    accuracies: tuple[float, ...]
    mean: Estimate


@dataclass(frozen=True, kw_only=True)
class ConfirmedArm:
    """One configuration, trained with several seeds.

    Args:
        number: of the arm in its study, from 0.
        names: what it is called; several where several arms turned out to be the same.
        kinds: in the same order: candidate, without_ig, without_kd, without_both or control.
        trial: of the confirmed study, whose configuration it is.
        search_accuracy: what that trial had on validation, a fraction.
        cost: of the student to store and to run, by the names of `StudentCost`; None what was not recorded.
        seeds: that were trained to the end; `trials` are the numbers of those trials in the linked study.
        diverged: seeds whose loss was not finite. Such an arm is shown, and compared with none.
        validation: on the split that the search saw.
        test: on the test split, which decides.
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
        """The first of its names."""
        return self.names[0]

    @property
    def parameters(self) -> int | None:
        """Of the student."""
        parameters: int | None = self.cost["parameters"]
        return parameters

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best."""
        return self.against is not None and self.against.tied


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether a part helps.

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
class Confirmation:
    """What the fresh seeds and the test split say.

    Args:
        study: that was confirmed; `linked_study` holds the trials.
        arms: in the order in which they were planned.
        best: number of the arm with the highest mean on the test split.
        named: it is better than every other arm.
        runner_up_p_value: one-sided.
        tie_set: numbers of the arms that cannot be told from the best, itself included, by mean.
        chosen: the smallest of the tie set by parameters; of equals, the one with the highest mean. What export takes.
        subject: number of the arm that parts were taken out of, the search's best, and its name.
        answers: to ig, kd and both.
        baseline: number of the arm that is plain training with the subject's settings; None when there is none.
        gain: mean of the best minus the baseline's on the test split; `shrunken_gain` without the luck of the seeds.
        kept: the share of the differences between arms that is not noise.
        n_seeds: the least number of seeds that an arm has.
        n_test_images: in the test split; `opened` says when it was opened (ISO 8601, UTC).
    """

    study: str
    linked_study: str
    arms: tuple[ConfirmedArm, ...]
    best: int
    named: bool
    runner_up_p_value: float
    tie_set: tuple[int, ...]
    chosen: int
    subject: int
    subject_name: str
    answers: tuple[Answer, ...]
    baseline: int | None
    gain: float | None
    shrunken_gain: float | None
    kept: float
    n_seeds: int
    n_test_images: int
    opened: tuple[str, ...]

    def arm(self, number: int) -> ConfirmedArm:
        """Return the arm of this number."""
        return next(arm for arm in self.arms if arm.number == number)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; accuracies are fractions."""
        return asdict(self)


def confirmation_of(study: SearchStudy) -> Confirmation | None:
    """Read the confirmation of a study, given it or its confirmation; None before the test split was read."""
    linked = study if study.confirms is not None else open_confirmation(study.storage, study.name)
    return None if linked is None else read_confirmation(linked)


def read_confirmation(linked: SearchStudy) -> Confirmation | None:
    """Read what a linked study says; None before two seeds of an arm were tested."""
    record, trials = read_record(linked), arm_trials(linked.trials())
    named_arms, subject = arms_of(linked), int(linked.read().attributes["subject"])
    measured = [_measured(number, arm, trials, record.accuracies) for number, arm in enumerate(named_arms)]
    arms = [arm for arm in measured if arm is not None]
    compared = [arm for arm in arms if arm.diverged == 0]
    if not compared:
        return None
    samples = [arm.test.accuracies for arm in compared]
    resolution = 1 / record.images
    comparison = compare(samples, resolution=resolution)
    by_number = {arm.number: _judged(arm, comparison, i) for i, arm in enumerate(compared)}
    arms = [by_number.get(arm.number, arm) for arm in arms]
    index = {arm.number: i for i, arm in enumerate(compared)}
    answers = _answers(named_arms, subject, index, samples, resolution)
    tied = sorted((arm for arm in by_number.values() if arm.tied), key=_by_mean)
    best = compared[comparison.best].number
    baseline = next((answer.without for answer in answers if answer.question == "both"), None)
    gain = None
    if baseline is not None and baseline in by_number and baseline != best:
        gain = by_number[best].test.mean.value - by_number[baseline].test.mean.value
    return Confirmation(
        study=str(linked.confirms),
        linked_study=linked.name,
        arms=tuple(arms),
        best=best,
        named=comparison.named,
        runner_up_p_value=comparison.runner_up_p_value,
        tie_set=tuple(arm.number for arm in tied),
        chosen=min(tied, key=lambda arm: (arm.parameters or 0, *_by_mean(arm))).number,
        subject=subject,
        subject_name=named_arms[subject].name,
        answers=answers,
        baseline=baseline,
        gain=gain,
        shrunken_gain=None if gain is None else comparison.kept * gain,
        kept=comparison.kept,
        n_seeds=min(len(sample) for sample in samples),
        n_test_images=record.images,
        opened=record.opened,
    )


def _measured(number: int, arm: Arm, trials: Sequence[FrozenTrial], tested: Mapping[int, float]) -> ConfirmedArm | None:
    own = [trial for trial in trials if trial.user_attrs["arm"] == number]
    done = sorted((t for t in own if t.number in tested), key=lambda trial: int(trial.user_attrs["seed"]))
    if len(done) < 2:
        return None
    facts = done[0].user_attrs
    on_validation = tuple(accuracy(trial) for trial in done)
    on_test = tuple(tested[trial.number] for trial in done)
    return ConfirmedArm(
        number=number,
        names=arm.names,
        kinds=arm.kinds,
        trial=arm.trial,
        search_accuracy=arm.search_accuracy,
        hyperparameters=arm.hyperparameters,
        cost=recorded_cost(facts),
        seeds=tuple(int(trial.user_attrs["seed"]) for trial in done),
        trials=tuple(trial.number for trial in done),
        diverged=sum(trial.state is TrialState.PRUNED for trial in own),
        validation=Measured(accuracies=on_validation, mean=t_interval(on_validation)),
        test=Measured(accuracies=on_test, mean=t_interval(on_test)),
        against=None,
        shrunken=None,
    )


def _judged(arm: ConfirmedArm, comparison: ArmComparison, index: int) -> ConfirmedArm:
    return ConfirmedArm(**{**vars(arm), "against": comparison.against[index], "shrunken": comparison.shrunken[index]})


def _answers(
    arms: Sequence[Arm], subject: int, index: Mapping[int, int], samples: Sequence[Sequence[float]], resolution: float
) -> tuple[Answer, ...]:
    number = {arm.training_key: n for n, arm in enumerate(arms)}
    asked = {
        question: number.get(without(arms[subject], kind).training_key, subject) for question, kind in QUESTIONS.items()
    }
    pairs = sorted({other for other in asked.values() if other != subject and {other, subject} <= index.keys()})
    found = contrasts(samples, [(index[subject], index[other]) for other in pairs], resolution=resolution)
    by_other = dict(zip(pairs, found, strict=True))
    return tuple(
        Answer(
            question=question,
            subject=subject,
            without=None if other == subject else other,
            contrast=by_other.get(other),
            verdict="absent" if other == subject else _verdict(by_other.get(other)),
        )
        for question, other in asked.items()
    )


def _verdict(contrast: Contrast | None) -> str:
    if contrast is None:
        return "untested"
    if not contrast.significant:
        return "unknown"
    return "helps" if contrast.difference.value > 0 else "hurts"


def _by_mean(arm: ConfirmedArm) -> tuple[float, int]:
    return -arm.test.mean.value, arm.number
