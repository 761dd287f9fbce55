"""The answer that a report opens with: which configuration, how good it is, and whether IG and KD help."""

from dataclasses import dataclass, replace

from igkd_hpo.config.space import shown
from igkd_hpo.confirmation.choice import confirmed_trial
from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.confirmation.sentences import ArmRow, arm_rows, headline, sentences
from igkd_hpo.distillation.class_table import MOST_CLASSES
from igkd_hpo.distillation.metrics import METRICS, Metric, measured
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.report.figures import PARTS
from igkd_hpo.search.best import BestTrial, best_trial, caution, student_in_words
from igkd_hpo.search.class_lines import ClassRow, class_rows, title
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
    """Verdict on one part: a sign and a word for a glance, a sentence for certainty."""

    part: str
    sign: str
    word: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ReportAnswer:
    """Answer to what a reader asks first, in words.

    Args:
        figure: the accuracy as a large number, and what it is.
        verdicts: on IG, KD and both; empty where nothing is confirmed.
        next_steps: commands, each with its use.
        trained: the trial of the answer and the study that trained it; None where no trial completed.
        hyperparameters: of that trial, as text, the searched ones marked; those at their defaults are left out.
        controls: name, accuracy and difference to the best, as text.
        arms: of the confirmation, by mean.
        metric: what the study is judged by, by its name.
        classes: the worst ones with that trial, or with the seeds of the confirmation; `classes_title` says which.
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
    metric: str = METRICS["accuracy"]
    classes: tuple[ClassRow, ...] = ()
    classes_title: str = ""


def report_answer(study: SearchStudy, confirmation: Confirmation | None) -> ReportAnswer:
    """Compose the answer of a study as it stands now."""
    try:
        best = best_trial(study)
    except NoCompletedTrial:
        return ReportAnswer(
            headline="No trial has completed yet.",
            lines=("Nothing can be said about any configuration. Below is what was tried, and what became of it.",),
            next_steps=(("igkd-hpo status", "names the reasons"), (f"igkd-hpo launch {study.name}", "goes on")),
        )
    if confirmation is None:
        source, chosen, answer = study, best, _unconfirmed(study, best)
    else:
        (source, chosen), answer = confirmed_trial(study, confirmation), _confirmed(study, confirmation)
    searched, highest = study.config.hyperparameters.searched(), best.validation_accuracy
    telling = study.config.hyperparameters.telling(chosen.hyperparameters)
    ordered = sorted(telling, key=lambda name: name not in searched)
    classes, split = best.classes, "the validation split"
    if confirmation is not None:
        classes, split = confirmation.classes, "the test split"
    return replace(
        answer,
        metric=METRICS[best.metric],
        classes=() if classes is None else tuple(class_rows(classes, MOST_CLASSES)),
        classes_title="" if classes is None else title(classes, split, MOST_CLASSES),
        lines=(f"The student: {student_in_words(chosen)}.", *_about_teacher(best), *answer.lines),
        trained=(source, chosen),
        hyperparameters=tuple((name, shown(telling[name]), name in searched) for name in ordered),
        controls=tuple(
            (one.control, percent(one.validation_accuracy), points_between(highest, one.validation_accuracy))
            for one in best.compared
        ),
    )


def _about_teacher(best: BestTrial) -> tuple[str, ...]:
    if best.teacher_accuracy is None:
        return ()
    return (f"Its teacher: {measured(best.teacher_accuracy, best.metric)} on the validation split.",)


def _named(metric: Metric) -> str:
    return "" if metric == "accuracy" else f"{METRICS[metric]} "


def _unconfirmed(study: SearchStudy, best: BestTrial) -> ReportAnswer:
    lines = [caution(best), "Whether IG and KD help on this data is not known yet."]
    linked = open_confirmation(study.storage, study.name)
    if linked is not None:
        lines.append(f"{begun_in_words(linked)} The test split was not opened.")
    return ReportAnswer(
        headline=f"Best so far: {best.title}. Nothing is confirmed yet.",
        figure=(percent(best.validation_accuracy), f"{_named(best.metric)}on the validation split, one seed"),
        lines=tuple(lines),
        next_steps=(
            (f"igkd-hpo confirm {study.name}", "trains the best few with fresh seeds, and tests them once"),
            (f"igkd-hpo export {study.name} -o best.yaml", "writes the configuration to a file that trains"),
        ),
    )


def _confirmed(study: SearchStudy, confirmation: Confirmation) -> ReportAnswer:
    which, *others = sentences(confirmation)
    arm = confirmation.arm(confirmation.chosen)
    mean = arm.test.mean
    verdicts = tuple(
        PartVerdict(part=PARTS[answer.question], sign=sign, word=word, sentence=sentence)
        for answer, sentence in zip(confirmation.answers, others, strict=False)
        for sign, word in [_VERDICTS[answer.verdict]]
    )
    interval = f"95 % interval {percent(mean.low)} to {percent(mean.high)}"
    more = f"igkd-hpo confirm {study.name} --seeds {max(5, 2 * confirmation.n_seeds)}"
    return ReportAnswer(
        headline=headline(confirmation),
        figure=(
            percent(mean.value),
            f"{_named(confirmation.metric)}on the test split; {interval}, {len(arm.seeds)} seeds",
        ),
        lines=(which, *others[len(verdicts) :]),
        verdicts=verdicts,
        next_steps=(
            *([(more, "trains more seeds of each, and tests them once")] if confirmation.inconclusive else []),
            (f"igkd-hpo export {study.name} -o best.yaml", "writes the configuration to a file that trains"),
            (f"igkd-hpo export {study.name} --bundle {study.name}-bundle", "makes the files for a device"),
        ),
        arms=tuple(arm_rows(confirmation)),
    )
