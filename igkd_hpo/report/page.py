"""Page of a study that needs nothing else: no network, no JavaScript, no file beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.assets.progress import Progress, SilentProgress
from igkd_hpo.compression.ladder import Ladder, ladder_of
from igkd_hpo.compression.sentences import sentences as ladder_in_words
from igkd_hpo.compression.sentences import step_rows
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.confirmation.confirmation import Confirmation, confirmation_of
from igkd_hpo.confirmation.explanation_sentences import (
    explanations_in_words,
    reasons_rows,
    verdict_on_reasons,
    verdict_on_training,
)
from igkd_hpo.confirmation.explanations import Explanations
from igkd_hpo.distillation.metrics import METRICS, heading
from igkd_hpo.errors import UsageError
from igkd_hpo.escaping import lines
from igkd_hpo.report import figures
from igkd_hpo.report.answer import report_answer
from igkd_hpo.report.examples import make_examples
from igkd_hpo.report.gallery import make_gallery
from igkd_hpo.report.ladder import ladder_figure
from igkd_hpo.report.pictures import curves_figure, importance_figure
from igkd_hpo.report.provenance import provenance_facts
from igkd_hpo.report.svg import drawing, inline_svg
from igkd_hpo.report.timeline import MOST_BARS, MOST_WORKERS, begun_trials, timeline_figure, worker_of
from igkd_hpo.search.best import completed_trials
from igkd_hpo.search.confirmation_study import open_linked
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.status import state_in_words, study_status
from igkd_hpo.search.strata import strata_in_words
from igkd_hpo.search.study import Purpose, SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_REASONS = 5
_LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Figure of the page; `svg` is None where there is nothing to draw, and the caption says why."""

    name: str
    title: str
    svg: Markup | None
    caption: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """HTML of the page, and whether any trial has completed."""

    html: str
    completed: bool


def write_report(study: SearchStudy, settings: Settings, progress: Progress | None = None) -> Report:
    """Write the page of a study as it is now. Raises StorageError when the database is away.

    Args:
        progress: told what takes long; None tells nobody.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    confirmation, ladder = confirmation_of(study), ladder_of(study)
    status, trials = study_status(study), study.trials()
    answer = report_answer(study, confirmation)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    environment = Environment(
        loader=PackageLoader("igkd_hpo.report"),
        autoescape=True,  # names of studies, classes, hosts, and reasons come from outside
        finalize=lambda shown: type(shown)(lines(shown)) if isinstance(shown, str) else shown,  # Markup stays Markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    said = SilentProgress() if progress is None else progress
    with said.task(f"drawing the pictures of {study.name}", 1), drawing():
        confirmed = [] if confirmation is None else _confirmation_pictures(confirmation)
        explained = None if confirmation is None else confirmation.explanations
        reasons = [] if explained is None else [_reasons_picture(explained)]
        climbed = [] if ladder is None else [_ladder_picture(ladder)]
        searched, timelines = _search_pictures(study, trials), _timelines(study, trials)
    with said.task(f"making images and maps of {study.name}", 2) as advance:
        examples = make_examples(study, confirmation, settings) if confirmation and explained else None
        advance(1)
        gallery = make_gallery(study, answer.trained, settings)
    html = environment.get_template("page.html").render(
        study=study.name,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=state_in_words(status),
        status=status,
        strata=strata_in_words(status.strata, status.metric),
        answer=answer,
        confirmed=confirmed,
        reasons=reasons,
        reasons_rows=[] if explained is None else list(reasons_rows(explained)),
        reasons_lines=_reasons_lines(confirmation),
        examples=examples,
        ladder=climbed,
        ladder_lines=[] if ladder is None else list(ladder_in_words(ladder)),
        ladder_rows=[] if ladder is None else step_rows(ladder),
        ladder_int8=ladder is not None and any(step.int8 is not None for step in ladder.steps),
        searched=searched,
        timelines=timelines,
        failures=[(trial.number, _reason(trial)) for trial in failed[-_MOST_REASONS:]],
        n_failed=len(failed),
        gallery=gallery,
        provenance=provenance_facts(study, answer.trained, confirmation),
        study_file=to_yaml(study.config),
    )
    return Report(html=html, completed=answer.trained is not None)


def _confirmation_pictures(confirmation: Confirmation) -> list[Picture]:
    pictures = (
        _picture(
            "confirmation",
            "Each configuration with fresh seeds",
            figures.confirmation_figure(confirmation),
            "The dot is the mean over the seeds, the line its 95 % interval, each stroke one seed. Filled: cannot be "
            "told from the highest mean. Hollow: worse, or not compared.",
        ),
        _picture(
            "contrasts",
            f"What IG and KD add to {confirmation.subject_name}",
            figures.contrasts_figure(confirmation),
            f"The {METRICS[confirmation.metric]} with a part minus that without it, on the test split. Filled: the "
            "p-value (Holm's correction) tells the sign. Hollow: it cannot be told. The lines are intervals that hold "
            "for all together, a little wider than the test: a filled dot's can still cross zero.",
        ),
    )
    return [picture for picture in pictures if picture.svg is not None]


def _reasons_lines(confirmation: Confirmation | None) -> list[str]:
    if confirmation is None or confirmation.explanations is None:
        return []
    verdicts = [verdict_on_reasons(confirmation), verdict_on_training(confirmation.explanations)]
    return [*verdicts, *explanations_in_words(confirmation)]


def _reasons_picture(found: Explanations) -> Picture:
    return _picture(
        "agreement",
        "Maps beside the teacher's",
        figures.reasons_figure(found),
        "1: the pixels are in the same order. The dot is the mean over images and seeds, the line its 95 % interval. "
        "Filled: students. Hollow: what maps reach without the teacher's reasons (floor), and another look of the "
        "teacher itself (ceiling).",
    )


def _ladder_picture(ladder: Ladder) -> Picture:
    return _picture(
        "ladder",
        f"{heading(ladder.metric)} over compression",
        ladder_figure(ladder),
        "To the right students become smaller: the parameters of the teacher over theirs. The mark is the mean over "
        "the seeds, the line its 95 % interval. Distilled and plain students of one size are drawn a little apart.",
    )


def _search_pictures(study: SearchStudy, trials: Sequence[FrozenTrial]) -> list[Picture]:
    name = METRICS[study.config.metric]
    ended = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    begun = sum(bool(trial.intermediate_values) for trial in trials)
    curves = figures.compact(curves_figure(study, most=figures.MOST_LINES), 5.4) if begun else None
    n_searched, importance, not_ranked = len(study.config.hyperparameters.searched()), None, ""
    try:
        importance = figures.compact(importance_figure(study), 1.0 + 0.36 * n_searched)
    except UsageError as error:
        not_ranked = f"Not ranked: {error}."
    return [
        _picture(
            "history",
            "How the search went",
            figures.history_figure(trials, study.config.metric),
            f"Validation {name} of each trial. The best of many is partly luck."
            + figures.say_left_out(ended, figures.MOST_POINTS),
            "No trial has ended yet.",
        ),
        *_frontier_picture(study, trials),
        _picture(
            "curves",
            "Learning curves",
            curves,
            f"Validation {name} after each epoch. Dotted lines were pruned: ended early because others "
            "were better. The scale is that of the later epochs." + figures.say_left_out(begun, figures.MOST_LINES),
            "No trial has finished an epoch yet.",
        ),
        _picture(
            "importance",
            "Which settings mattered",
            importance,
            "How much each searched setting decided whether a trial was among the better ones.",
            not_ranked,
        ),
        _picture(
            "slices",
            f"{heading(study.config.metric)} over each setting",
            figures.slices_figure(study, trials),
            "Points are completed trials. Crosses at the bottom are pruned ones, where the search gave up early."
            + figures.say_left_out(ended, figures.MOST_POINTS_IN_A_SLICE),
            "There is nothing to draw: no setting is searched, or no trial completed.",
        ),
    ]


def _frontier_picture(study: SearchStudy, trials: Sequence[FrozenTrial]) -> list[Picture]:
    """Draw accuracy over size; nothing where all trials have one size."""
    completed, best = completed_trials(study, trials), frontier(study, "parameters", trials)
    tie = "A hollow step is smaller than that: a tie. " if best.source else ""
    picture = _picture(
        "frontier",
        f"{heading(study.config.metric)} over size",
        figures.frontier_figure(best, completed),
        f"Points are completed trials. The line is the best for each size or less; {best.intervals}. "
        f"{tie}Each is of one seed, and a little lucky." + figures.say_left_out(len(completed), figures.MOST_POINTS),
    )
    return [] if picture.svg is None else [picture]


def _timelines(study: SearchStudy, trials: Sequence[FrozenTrial]) -> list[Picture]:
    now = datetime.now()  # noqa: DTZ005 - as Optuna's times are
    shown = [("timeline", "Who ran what, when", trials)]
    linked: tuple[tuple[Purpose, str], ...] = (("confirm", "The confirmation"), ("ladder", "The ladder"))
    for purpose, called in linked:
        if (other := open_linked(study.storage, study.name, purpose)) is not None:
            shown.append((f"timeline-{purpose}", called, other.trials()))
    pictures = []
    for name, title, some in shown:
        begun = begun_trials(some)
        workers = {worker_of(trial) for trial in begun}
        again = sum(trial.user_attrs.get("attempts", 1) > 1 for trial in some)
        caption = (
            "A row for each worker, a bar for each trial, by the hosts' own clocks. Long times in which nothing ran "
            "are left out, at the dotted lines. "
        ) + (
            f"{counted(again, 'trial')} took more than one attempt (x2 is two): a worker was lost or stopped "
            "on the way. The bar is the last attempt."
            if again
            else "Every trial took one attempt."
        )
        if len(begun) > MOST_BARS:
            caption += f" The last {MOST_BARS:,} of {len(begun):,} trials are drawn."
        if len(workers) > MOST_WORKERS:
            caption += f" The last {MOST_WORKERS} of {len(workers)} workers are drawn."
        pictures.append(_picture(name, title, timeline_figure(some, now=now), caption, "No trial has begun yet."))
    return pictures


def _picture(name: str, title: str, figure: "Figure | None", caption: str, otherwise: str = "") -> Picture:
    if figure is None:
        return Picture(name=name, title=title, svg=None, caption=otherwise)
    svg = inline_svg(figure, name=name, description=f"{title}. {caption}")
    return Picture(name=name, title=title, svg=svg, caption=caption)


def _reason(trial: FrozenTrial) -> str:
    lines = str(trial.user_attrs.get("reason") or "no reason was recorded").strip().splitlines()
    last = lines[-1] if lines else ""
    return last if len(last) <= _LONGEST_REASON else last[:_LONGEST_REASON] + "…"
