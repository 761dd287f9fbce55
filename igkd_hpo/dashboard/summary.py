"""Summary that a study's note begins with in the dashboard: where the study stands, and how far to trust it."""

from collections.abc import Sequence
from functools import lru_cache
from statistics import median

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.compression.sentences import sentences as ladder_in_words
from igkd_hpo.confirmation.confirmation import read_confirmation
from igkd_hpo.confirmation.sentences import headline, sentences
from igkd_hpo.dashboard.ladder import cached_ladder
from igkd_hpo.distillation.metrics import METRICS, measured
from igkd_hpo.errors import NoCompletedTrial
from igkd_hpo.escaping import markdown
from igkd_hpo.search.best import best_trial, caution, student_in_words
from igkd_hpo.search.confirmation_study import begun_in_words, open_confirmation, open_linked, recorded_state
from igkd_hpo.search.counts import Counts, count
from igkd_hpo.search.deadline import in_words
from igkd_hpo.search.status import seconds_left
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.strata import strata_in_words, strata_status
from igkd_hpo.search.study import SearchStudy, StudyRecord, ended_trials
from igkd_hpo.words import duration, percent, points_between


def live_summary(study: SearchStudy, trials: Sequence[FrozenTrial]) -> str:
    """Write the Markdown that goes above a study's own note; of a study and its confirmation alike."""
    counts, record = count(list(trials)), study.read()
    if study.confirms is not None:
        progress = f"**{counts.finished} of {record.n_trials} trainings finished:** {counts.in_words()}."
        parts = [progress, *(_laddered(study) if study.purpose == "ladder" else _confirmed(study))]
    else:
        linked = open_confirmation(study.storage, study.name)
        confirmed = () if linked is None else _confirmed(linked)
        next_steps = _next_steps(study.name, counts, record.n_trials, confirmed=bool(confirmed))
        best = _best(study, trials, linked, confirmed)
        parts = [best, _progress(study, trials, counts, record), next_steps]
    return "\n\n".join(part for part in parts if part) + "\n\n---\n\n"


def _best(
    study: SearchStudy, trials: Sequence[FrozenTrial], linked: SearchStudy | None, confirmed: Sequence[str]
) -> str:
    """Say what a study found: confirmed, what its confirmation says, and below that what the search alone saw.

    Args:
        linked: its confirmation; `confirmed` is its headline and its sentences, none before the test split was read.
    """
    try:
        best = best_trial(study, trials)
    except NoCompletedTrial:
        return "## No trial has completed yet"
    found = f"{measured(best.validation_accuracy, best.metric)} on validation ({best.title})"
    student = f"The student: {student_in_words(best)}."
    if confirmed:
        first, *others = confirmed
        parts = [f"## {first}", "**With fresh seeds, on the test split:** " + " ".join(others)]
        parts.append(f"**In the search, with one seed:** {found}. {student}")
    else:
        parts = [f"## Best so far: {found}", student]
    if best.compared:
        rows = "\n".join(
            f"| {one.control} | {one.trial} | {percent(one.validation_accuracy)} | "
            f"{points_between(best.validation_accuracy, one.validation_accuracy)} |"
            for one in best.compared
        )
        parts.append(
            "Against the controls, which nobody tuned, one seed each:\n\n"
            f"| control | trial | {METRICS[best.metric]} | the best has |\n| --- | --- | --- | --- |\n{rows}"
        )
    if not confirmed:
        parts.append(caution(best) if linked is None else f"{caution(best)} {begun_in_words(linked)}")
    if (ladder := open_linked(study.storage, study.name, "ladder")) is not None:
        said = _laddered(ladder)
        parts.append(
            f"**How small it may be, on the test split:** {' '.join(said)}" if said else begun_in_words(ladder)
        )
    return "\n\n".join(parts)


def _progress(study: SearchStudy, trials: Sequence[FrozenTrial], counts: Counts, record: StudyRecord) -> str:
    epochs = study.config.training.epochs
    parts = [f"**{counts.finished} of {record.n_trials} trials finished:** {counts.in_words()}."]
    pruned = [
        max(trial.intermediate_values, default=0)
        for trial in trials
        if trial.state is TrialState.PRUNED and trial.value is not None  # one beyond a limit has none
    ]
    if pruned:
        saved = sum(epochs - epoch for epoch in pruned)
        parts.append(
            f"Pruning ended {len(pruned)} at epoch {median(pruned):.0f} (median; {min(pruned)} to {max(pruned)}), "
            f"so {saved:,} of {epochs * counts.finished:,} epochs were not trained."
        )
    if found := strata_status(study.config.strata, trials):
        parts.append(f"Strata: {strata_in_words(found, study.config.metric)}.")
    parts.append(_time(trials, epochs, record.n_trials - counts.finished))
    if record.stopped is not None:
        parts.append(f"The study was stopped: {markdown(record.stopped)}")
    elif record.deadline is not None and counts.finished < record.n_trials:
        parts.append(f"It ends at {in_words(record.deadline)} at the latest.")
    return " ".join(part for part in parts if part)


def _time(trials: Sequence[FrozenTrial], epochs: int, to_go: int) -> str:
    spans = [
        (trial.datetime_start, (trial.datetime_complete - trial.datetime_start).total_seconds())
        for trial in trials
        if trial.datetime_start and trial.datetime_complete and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    if not spans:
        return ""
    seconds = [took for _, took in spans]
    text = f"The trials took {duration(sum(seconds))} in all, {duration(median(seconds))} in the median"
    text += f"; the first began on {min(start for start, _ in spans):%d %b %Y at %H:%M}."
    done = [max(t.intermediate_values, default=0) / epochs for t in trials if t.state is TrialState.RUNNING]
    left = seconds_left(to_go, done, ended_trials(trials))
    return text if left is None else f"{text} About {duration(left)} are left, as the last ones went."


def _next_steps(name: str, counts: Counts, n_trials: int, *, confirmed: bool) -> str:
    steps = []
    if counts.finished < n_trials:
        steps.append((f"igkd-hpo launch {name}", "goes on, if nothing runs"))
    if counts.complete:
        if not confirmed:
            steps.append((f"igkd-hpo confirm {name}", "trains the best few with fresh seeds, and tests them once"))
        steps.append((f"igkd-hpo export {name} -o best.yaml", "writes the best configuration to a file that trains"))
        steps.append((f"igkd-hpo report {name}", "makes one page of all this"))
    width = max((len(command) for command, _ in steps), default=0)
    return "\n".join(f"    {command:<{width}}   # {does}" for command, does in steps)


def _laddered(linked: SearchStudy) -> tuple[str, ...]:
    """Return the sentences of a ladder; none before the test split was read."""
    ladder = cached_ladder(linked)
    return () if ladder is None else tuple(map(markdown, ladder_in_words(ladder)))


def _confirmed(linked: SearchStudy) -> tuple[str, ...]:
    """Return the headline and the sentences of a confirmation; none before the test split was read."""
    return _cached_sentences(linked.storage, linked.name, recorded_state(linked))


@lru_cache(maxsize=32)
def _cached_sentences(storage: SharedStorage, name: str, version: str) -> tuple[str, ...]:
    """Cache them by what is recorded: tests and intervals take long for a page that asks every few seconds."""
    confirmation = read_confirmation(SearchStudy(storage, name))
    return () if confirmation is None else (headline(confirmation), *sentences(confirmation))
