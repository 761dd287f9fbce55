"""The page of a study: what it says, that nothing leaves it, and that nothing from outside becomes part of its code."""

import io
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.explanations import ATTRIBUTE
from igkd_hpo.confirmation.sentences import headline
from igkd_hpo.report import figures, timeline
from igkd_hpo.report.page import Report, write_report
from igkd_hpo.report.palette import CONTROL_LOOKS
from igkd_hpo.search.best import summary
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import LineProgress
from tests.confirm.test_confirmation import EVEN, confirm, test, train
from tests.confirm.test_explaining import explained

HOSTILE = "<script>$x_1$&\"'"
HIDDEN = "\x1b[31m\u202e\x9b"
SECTIONS = ["answer", "search", "gallery", "workers", "provenance"]


class Page(HTMLParser):
    """What a browser makes of the page: its elements, their attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


@pytest.fixture
def settings(paths: Paths, tmp_path: Path) -> Settings:
    return Settings(paths=paths, storage_url="", data_root=tmp_path, allow_import=frozenset())


def checked(report: Report) -> Page:
    """The page, after checking that a browser asks nobody for anything and runs nothing."""
    page = Page(report.html)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "xlink:href" not in dict(page.attributes)
    for name in ("src", "href", "srcset", "action", "poster"):
        assert [value[:40] for value in page.of(name) if not value.startswith(("#", "data:"))] == []
    assert set(re.findall(r"url\((.)", report.html)) <= {"#"}
    assert "@import" not in report.html
    identifiers = page.of("id")
    assert len(set(identifiers)) == len(identifiers)
    referred = {value[1:] for value in page.of("href") if value.startswith("#")}
    assert referred | set(re.findall(r"url\(#([^)]+)\)", report.html)) <= set(identifiers)
    assert set(SECTIONS) <= set(identifiers)
    return page


def test_a_confirmed_study_says_what_to_take_and_what_helps(study: SearchStudy, run, settings: Settings) -> None:
    for accuracy in (0.70, 0.75, 0.80, 0.78, 0.81):
        run(0.5, 0.6, accuracy)
    linked = confirm(study)
    train(linked, EVEN | {"trial 4": 0.95, "trial 4 without IG": 0.92, "trial 4 without KD": 0.95})
    found = test(linked)
    study.storage.set_study_user_attr(study.study_id, "teacher_accuracy", 0.8714)
    assert "87.14 %" in summary(study)
    shown = io.StringIO()
    report = write_report(study, settings, LineProgress(Console(file=shown)))
    assert {"drawing", "making"} <= {line.split()[0] for line in shown.getvalue().splitlines()}
    page = checked(report)
    assert report.completed
    assert re.search(r"teacher: 87\.14 % on ", page.text)
    assert headline(found) in page.text
    mean = found.arm(found.chosen).test.mean
    assert f"95 % interval {100 * mean.low:.2f} % to {100 * mean.high:.2f} %, 5 seeds" in page.text
    assert re.search(r"IG helps trial 4 [^.]*\+3\.0 points", page.text)
    verdicts = re.findall(r'aria-hidden="true">(.)</span> <b>([^<]+)</b> ([^<]+)<', report.html)
    assert verdicts == [("+", "IG", "helps"), ("?", "KD", "cannot be told"), ("+", "IG and KD", "helps")]
    assert {"confirmed", "confirmation", "contrasts", "timeline-confirm"} <= set(page.of("id"))
    rows = re.findall(
        r'<th scope="row">([^<]+)(?: <small>([^<]*)</small>)?</th><td data-label="test">([^<]+)<', report.html
    )
    assert [row[0] for row in rows] == [
        " = ".join(arm.names) for arm in sorted(found.arms, key=lambda arm: -arm.test.mean.value)
    ]
    assert rows[0][1] == "best"
    assert "not confirmed" not in page.text.lower()
    assert "trial 4 without IG" in page.text, "text of a picture is text"
    assert f"{'d' * 64}" in page.text
    assert re.search(r"images and maps [^.]* not on this machine: ", page.text)
    assert len(report.html) < 400_000


def test_explanations_have_a_section_and_say_why_they_have_no_pictures(
    study: SearchStudy, run, settings: Settings
) -> None:
    for accuracy in (0.70, 0.75, 0.80, 0.78, 0.81):
        run(0.5, 0.6, accuracy)
    linked = confirm(study)
    train(linked, EVEN)
    test(linked)
    assert "reasons" not in checked(write_report(study, settings)).of("id")
    linked.storage.set_study_user_attr(linked.study_id, ATTRIBUTE, explained().as_json())
    report = write_report(study, settings)
    page = checked(report)
    assert {"reasons", "agreement"} <= set(page.of("id"))
    assert page.text.count("IG (overlays) keeps more of the teacher's reasons in trial 4") == 2
    rows = re.findall(r'<th scope="row">([^<]+)</th><td data-label="rank correlation">([\d.]+) ', report.html)
    assert [name for name, _ in rows][1:3] == ["arm 0", "arm 1"]
    assert rows[1][1] == "0.60"
    assert len(re.findall(r"images and maps [^.]* not on this machine: ", page.text)) == 2


def test_an_unconfirmed_one_says_so_and_how_to(study: SearchStudy, run, settings: Settings) -> None:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.75)
    run(0.4, end="prune")
    run(0.5, 0.7, 0.80)
    run(0.5, end="leave")
    report = write_report(study, settings)
    page = checked(report)
    assert re.search(r"Best so far: trial 3\. Nothing [^.]*confirmed", page.text)
    assert "80.00 % on the validation split, one seed" in page.text
    assert re.search(r"IG and KD [^.]* not known", page.text)
    assert "igkd-hpo confirm digits" in page.text
    assert "running: 4 of 6 trials (3 complete, 1 pruned, 1 running)" in page.text
    assert "Trial 4 is at epoch 1 of 3" in page.text
    assert re.search(r"Not ranked: [^.]*digits [^.]* 3 completed", page.text)
    linked = confirm(study)
    said = rf"\b0 of {linked.read().n_trials} trainings of digits-confirm [^.]*\. The test split was not opened"
    assert re.search(said, write_report(study, settings).html)


def test_without_a_completed_trial_the_page_says_so(study: SearchStudy, run, settings: Settings) -> None:
    for accuracies, end in (((0.4,), "prune"), ((0.5,), "fail")):
        run(*accuracies, end=end)
    report = write_report(study, settings)
    page = checked(report)
    assert not report.completed
    assert "No trial has completed yet." in page.text
    assert "Trial 1: ValueError: no" in page.text


def test_an_empty_study_has_a_page(storage: SharedStorage, study_file: Study, settings: Settings) -> None:
    empty = create_or_open(storage, study_file, n_trials=None, pins=None)
    page = checked(write_report(empty, settings))
    assert "No trial has begun yet." in page.text


def test_what_comes_from_outside_is_text(study: SearchStudy, settings: Settings) -> None:
    leases = Leases(study)
    for end in ("complete", "fail"):
        claim = leases.claim(Worker(name=HOSTILE[:16] + HIDDEN, process=this_process()))
        assert isinstance(claim, Claim)
        leases.report(claim, epoch=1, accuracy=0.5)
        if end == "complete":
            assert leases.complete(claim, 0.5, {})
        else:
            assert leases.fail(claim, f"{HOSTILE} reason{HIDDEN}", {})
    study.stop(f"{HOSTILE} stop{HIDDEN}")
    study.name = HOSTILE  # a dashboard renames studies, and asks for no pattern
    report = write_report(study, settings)
    page = checked(report)
    written = r"\x1b[31m\u202e\x9b"
    for what in ("", f" reason{written}", f" stop{written}"):
        assert f"{HOSTILE}{what}" in page.text
    assert set(HIDDEN[:1] + HIDDEN[-2:]).isdisjoint(report.html)
    pictures = report.html.partition('id="workers"')[2].partition("<figcaption>")[0]
    assert "&lt;script&gt;$x_1$" in pictures.replace("&amp;", "&"), "in a picture too"


def test_many_trials_are_thinned_out_and_that_is_said(
    study: SearchStudy, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - as Optuna's are
    searched = {
        "temperature": 2.0,
        "alpha": 0.5,
        "overlay_strength": 0.5,
        "learning_rate": 0.1,
        "batch_size": 64,
    }
    fixed = study.config.hyperparameters.fixed()

    def made(number: int) -> FrozenTrial:
        values = searched | {"alpha": number / 5000}
        trial = optuna.trial.create_trial(
            params=values,
            distributions={name: FloatDistribution(0, 100) for name in values},
            state=TrialState.PRUNED if number % 2 else TrialState.COMPLETE,
            value=0.5 + 1e-5 * number,
            intermediate_values={epoch: 0.3 + 0.001 * epoch for epoch in range(1, 21)},
            user_attrs={
                "hyperparameters": {**fixed, **values},
                "seed": number,
                "worker": f"worker-{number % 60}",
                "attempts": 2 if number == 4999 else 1,
            },
        )
        trial.number = trial._trial_id = number
        trial.datetime_start = start + timedelta(minutes=number)
        trial.datetime_complete = trial.datetime_start + timedelta(minutes=40)
        return trial

    many = [made(number) for number in range(5000)]

    def stored(self: object, study_id: int, deepcopy: bool = True, states: object = None) -> list[FrozenTrial]:
        return [trial for trial in many if states is None or trial.state in states]

    monkeypatch.setattr(SharedStorage, "get_all_trials", stored)
    report = write_report(study, settings)
    page = checked(report)
    assert len(report.html) < 2_000_000
    assert f"Of 5,000 trials, at most {figures.MOST_POINTS} are drawn" in page.text
    assert f"Of 5,000 trials, at most {figures.MOST_LINES} are drawn" in page.text
    assert f"The last {timeline.MOST_BARS} of 5,000 trials are drawn" in page.text
    assert f"The last {timeline.MOST_WORKERS} of 60 workers are drawn" in page.text
    assert "1 trial took more than one attempt" in page.text


def test_students_of_several_sizes_have_a_frontier(study: SearchStudy, run, settings: Settings) -> None:
    for accuracy in (0.70, 0.75, 0.80):
        run(accuracy)
    assert figures.frontier_figure(frontier(study, "parameters"), study.trials()) is None
    claim = run(0.72)
    study.storage.set_trial_user_attrs(claim.trial_id, {"parameters": 20_000})
    page = checked(write_report(study, settings))
    assert "frontier" in page.of("id")
    assert "mathdefault" not in page.text
    assert "20k" in page.text
    assert "how far another seed may end is not known" in page.text


def test_each_attempt_beyond_the_first_is_marked(study: SearchStudy, run, settings: Settings) -> None:
    claim = run(0.5, end="leave")
    Leases(study).release(claim, "the worker was lost", counted=True, epochs_gained=True)
    run(0.5, 0.6, 0.7)
    page = checked(write_report(study, settings))
    assert "1 trial took more than one attempt (x2 " in page.text
    assert "0 x2" in page.text


def test_long_idle_times_are_left_out() -> None:
    along = timeline.stretches([(0.0, 4.0), (3.0, 6.0), (6.5, 10.0), (100.0, 110.0)])
    assert along.spans == ((0.0, 10.0), (100.0, 110.0)), "half a day of idleness in 19.5 busy ones is nothing"
    assert along.idle_width == pytest.approx(0.05 * 19.5)
    assert [along.place(time) for time in (0.0, 10.0, 100.0, 110.0)] == pytest.approx([0, 10, 10.975, 20.975])
    assert along.length == pytest.approx(20.975)


def test_colours_follow_the_page_and_are_never_alone(repository: Path) -> None:
    style = (repository / "igkd_hpo/report/templates/style.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 3, "light, dark, paper"
    wanted = {"paper", "ink", "soft", "grey", "grid", "panel", "accent"}
    wanted |= {f"control-{name.replace('_', '-')}" for name in CONTROL_LOOKS}
    for theme in themes:
        assert set(re.findall(r"--([\w-]+):", theme)) == wanted
    assert len({look.mark for look in CONTROL_LOOKS.values()}) == len(CONTROL_LOOKS)
