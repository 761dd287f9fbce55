"""What a report opens with: which configuration, how good it is, and whether IG and KD help."""

from collections.abc import Mapping
from dataclasses import dataclass

from igkd_hpo.config.space import Value, shown
from igkd_hpo.confirm.choice import confirmed_trial
from igkd_hpo.confirm.confirmation import Confirmation
from igkd_hpo.confirm.sentences import ArmRow, arm_rows, sentences
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.report.figures import PARTS
from igkd_hpo.search.best import BestTrial, best_trial, caution, student_in_words
from igkd_hpo.search.confirmation_study import begun_in_words, open_confirmation
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import percent, points_between

_VERDICTS = {
    "helps": ("+", "helps"),
    "hurts": ("\N{MINUS SIGN}", "hurts"),
    "unknown": ("?", "cannot be told"),
    "absent": ("·", "not part of it"),
    "untested": ("·", "not tested"),
}


@dataclass(frozen=True, kw_only=True)
class PartVerdict:
    """Whether a part helps: a sign and a word for a glance, a sentence for certainty."""

    part: str
    sign: str
    word: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ReportAnswer:
    """The answer in words.

    Args:
        headline: one line.
        figure: the accuracy as a large number, and what it is; empty where there is none.
        lines: sentences that follow.
        verdicts: on IG, KD and both; empty where nothing is confirmed.
        next_steps: commands, each with what it does.
        trained: the trial of the answer and the study that trained it; None where no trial completed.
        hyperparameters: of that trial, as text, the searched ones marked; those at their defaults are left out.
        controls: name, accuracy and difference to the best, as text.
        arms: of the confirmation, by mean.
    """

    headline: str
    figure: tuple[str, str] | None = None
    lines: tuple[str, ...] = ()
    verdicts: tuple[PartVerdict, ...] = ()
    next_steps: tuple[tuple[str, str], ...] = ()
    trained: tuple[SearchStudy, BestTrial] | None = None
    hyperparameters: tuple[tuple[str, str, bool], ...] = ()
    controls: tuple[tuple[str, str, str], ...] = ()
    arms: tuple[ArmRow, ...] = ()


def report_answer(study: SearchStudy, confirmation: Confirmation | None) -> ReportAnswer:
    """Answer for a study as it stands now."""
    try:
        best = best_trial(study)
    except NoCompletedTrial:
        return ReportAnswer(
            headline="No trial has completed yet.",
            lines=("Nothing can be said about any configuration. Below is what was tried, and what became of it.",),
            next_steps=(
                ("igkd-hpo status", "names the reasons"),
                (f"igkd-hpo launch {study.name}", "goes on"),
            ),
        )
    if confirmation is None:
        return _unconfirmed(study, best)
    return _confirmed(study, best, confirmation)


def _unconfirmed(study: SearchStudy, best: BestTrial) -> ReportAnswer:
    lines = [caution(best), "Whether IG and KD help on this data is not known yet."]
    linked = open_confirmation(study.storage, study.name)
    if linked is not None:
        lines.append(f"{begun_in_words(linked)} The test split was not opened.")
    return ReportAnswer(
        headline=f"Best so far: {best.title}. Nothing is confirmed yet.",
        figure=(percent(best.validation_accuracy), "on the validation split, one seed"),
        lines=(f"The student: {student_in_words(best)}.", *lines),
        next_steps=(
            (f"igkd-hpo confirm {study.name}", "trains the best few with fresh seeds, and tests them once"),
            (f"igkd-hpo export {study.name} -o best.yaml", "writes the configuration to a file that trains"),
        ),
        trained=(study, best),
        hyperparameters=_hyperparameters(study, best.hyperparameters),
        controls=_controls(best),
    )


def _confirmed(study: SearchStudy, best: BestTrial, found: Confirmation) -> ReportAnswer:
    source, chosen = confirmed_trial(study, found)
    said = tuple(sentences(found))
    arm, mean = found.arm(found.chosen), found.arm(found.chosen).test.mean
    as_good = len(found.tie_set) - 1
    if found.named:
        headline = f"Take {arm.name}: it is the best, confirmed with fresh seeds."
    elif as_good:
        headline = f"Take {arm.name}: confirmed with fresh seeds, and as good as any of the {len(found.arms)} compared."
    else:
        headline = f"Take {arm.name}: confirmed with fresh seeds."
    verdicts = tuple(
        PartVerdict(part=PARTS[answer.question], sign=sign, word=word, sentence=sentence)
        for answer, sentence in zip(found.answers, said[1:], strict=False)
        for sign, word in [_VERDICTS[answer.verdict]]
    )
    return ReportAnswer(
        headline=headline,
        figure=(
            percent(mean.value),
            f"on the test split; 95 % interval {percent(mean.low)} to {percent(mean.high)}, {len(arm.seeds)} seeds",
        ),
        lines=(f"The student: {student_in_words(chosen)}.", said[0], *said[1 + len(verdicts) :]),
        verdicts=verdicts,
        next_steps=(
            (f"igkd-hpo export {study.name} -o best.yaml", "writes the configuration to a file that trains"),
            (f"igkd-hpo export {study.name} --bundle {study.name}-bundle", "makes the files for a device"),
        ),
        trained=(source, chosen),
        hyperparameters=_hyperparameters(study, chosen.hyperparameters),
        controls=_controls(best),
        arms=tuple(arm_rows(found)),
    )


def _hyperparameters(study: SearchStudy, values: Mapping[str, Value]) -> tuple[tuple[str, str, bool], ...]:
    searched = study.config.hyperparameters.searched()
    telling = study.config.hyperparameters.telling(values)
    ordered = sorted(telling, key=lambda name: name not in searched)
    return tuple((name, shown(telling[name]), name in searched) for name in ordered)


def _controls(best: BestTrial) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (
            comparison.control,
            percent(comparison.validation_accuracy),
            points_between(best.validation_accuracy, comparison.validation_accuracy),
        )
        for comparison in best.compared
    )
