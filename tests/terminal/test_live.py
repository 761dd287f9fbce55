"""The live view: what it draws and says of what workers tell, and how it reckons the time left."""

import io
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from igkd_hpo.engines.events import Event
from igkd_hpo.search.counts import Counts
from igkd_hpo.search.status import PrunedTrial, StudyStatus
from igkd_hpo.terminal.live import LiveView
from tests.terminal.studies import begun_study

NOTHING = begun_study()


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def study_with(total: int = 24, **states: int) -> StudyStatus:
    counts = Counts(**{"complete": 0, "pruned": 0, "fail": 0, "running": 0, "waiting": 0, **states})
    return begun_study(n_trials=total, counts=counts)


def plain_view(clock: Clock, workers: int = 1) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    return LiveView(Console(file=out, width=80), NOTHING, workers=workers, clock=clock), out


def said(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def epoch(view: LiveView, slot: int, trial: int, number: int, **content: Any) -> None:
    told = {"accuracy": 0.5, "images_per_second": 100.0, "memory": 10**6} | content
    view.event(slot, Event(kind="epoch", trial=trial, attempt=1, epoch=number, **told))


def claim(view: LiveView, slot: int, trial: int, **content: Any) -> None:
    view.event(slot, Event(kind="claimed", trial=trial, attempt=1, device="cpu", **content))


def test_elsewhere_than_on_a_terminal_a_line_says_how_each_trial_ended() -> None:
    view, out = plain_view(Clock())
    with view:
        claim(view, 0, 0, control="student")
        epoch(view, 0, 0, 1)
        view.event(0, Event(kind="complete", trial=0, attempt=1, control="student", accuracy=0.9306))
        claim(view, 0, 12)
        reason = "71.20 % by epoch 5, below the bar of 80.10 % (the best 50 % of 7)"
        view.event(0, Event(kind="pruned", trial=12, attempt=1, epoch=5, accuracy=0.712, reason=reason))
        claim(view, 0, 13)
        epoch(view, 0, 13, 4)
        view.event(0, Event(kind="fail", trial=13, attempt=1, reason="RuntimeError: [no memory]"))
        view.event(0, Event(kind="claimed", trial=14, attempt=2, device="cpu"))
        view.event(0, Event(kind="released", trial=14, attempt=2, reason="stopped by SIGINT"))
        view.event(0, Event(kind="lost", trial=15, attempt=1, reason="another worker has taken over the trial"))
    assert said(out) == [
        "#0 student complete   93.06 %",
        "#12        pruned     71.20 % by epoch 5, below the bar of 80.10 % (the best 50 % of 7)",
        "#13        failed     at epoch 4 of 12: RuntimeError: [no memory]",
        "#14        released   attempt 2: stopped by SIGINT",
        "#15        lost       another worker has taken over the trial",
    ]


def test_elsewhere_a_heartbeat_comes_when_nothing_was_said_for_half_a_minute() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        for second in range(1, 66):
            clock.now = 1000.0 + second
            view.refresh(study_with(running=2))
            if second == 10:
                view.message("worker 1 ended")
    first, beat = said(out)
    assert first == "worker 1 ended"
    assert beat.startswith("0 of 24 finished, 2 running, 40 s so far, ")


def test_a_database_that_is_away_is_said_once_until_it_is_back() -> None:
    view, out = plain_view(Clock())
    with view:
        claim(view, 0, 1)
        for _ in range(3):
            view.event(0, Event(kind="storage", reason="no connection"))
        epoch(view, 0, 1, 1)
        view.event(0, Event(kind="storage", reason="no connection"))
    assert said(out) == ["worker 0: no connection"] * 2


def heartbeat(view: LiveView, out: io.StringIO, clock: Clock, found: StudyStatus) -> str:
    """What the next heartbeat says of the time left, half a minute on."""
    clock.now += 30
    view.refresh(found)
    return said(out)[-1].rpartition(", ")[2]


def test_the_time_left_follows_from_the_trials_that_ended_here() -> None:
    clock = Clock()
    view, out = plain_view(clock, workers=2)
    with view:
        claim(view, 0, 0)
        claim(view, 1, 1)
        clock.now += 40
        epoch(view, 0, 0, 1)
        epoch(view, 1, 1, 1)
        view.event(0, Event(kind="complete", trial=0, attempt=1, accuracy=0.9))
        clock.now += 20
        view.event(1, Event(kind="pruned", trial=1, attempt=1, epoch=2, accuracy=0.5))
        # mean 50 s; 22 to go over two workers
        assert heartbeat(view, out, clock, study_with(complete=1, pruned=1)) == "about 9:10 left"
        claim(view, 0, 2)
        # one of the 22 has run for 30 of its 50 s: (22 * 50 - 30) / 2
        assert heartbeat(view, out, clock, study_with(complete=1, pruned=1, running=1)) == "about 8:55 left"
        # other hosts run 8 more: (22 * 50 - 50) / 10
        assert heartbeat(view, out, clock, study_with(complete=1, pruned=1, running=10)) == "about 1:45 left"
        # one trial to go: ten workers cannot share it
        assert heartbeat(view, out, clock, study_with(complete=23)) == "about 0 s left"
        claim(view, 1, 23)
        assert heartbeat(view, out, clock, study_with(total=25, complete=23)) == "about 10 s left"


def test_before_a_trial_ended_its_epochs_tell_the_time_left() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        assert heartbeat(view, out, clock, study_with(running=1)) == "measuring the time left"
        for number in (1, 2, 3):
            clock.now += 20
            epoch(view, 0, 0, number)
        # 20 s an epoch, 240 s a trial; 30 + 60 + 30 s have passed: 24 * 240 - 120
        assert heartbeat(view, out, clock, study_with(running=1)) == "about 1:34:00 left"
        # no other trial is to come: 9 epochs are left of the only one
        assert heartbeat(view, out, clock, study_with(complete=23, running=1)) == "about 3:00 left"


def test_epochs_of_an_earlier_attempt_tell_nothing_of_the_time() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        for number in range(1, 10):
            epoch(view, 0, 0, number, memory=None)
        assert heartbeat(view, out, clock, study_with(complete=23, running=1)) == "measuring the time left"
        for number in (10, 11):
            clock.now += 15
            epoch(view, 0, 0, number)
        assert heartbeat(view, out, clock, study_with(complete=23, running=1)) == "about 15 s left"
        view.event(0, Event(kind="complete", trial=0, attempt=2, accuracy=0.9))
        # its last three epochs were no whole trial
        assert heartbeat(view, out, clock, study_with(complete=22)) == "measuring the time left"


def test_the_process_that_is_up_does_not_start_the_trial_anew() -> None:
    """A worker says `claimed` twice: when it has the trial, and when the process knows its device."""
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        clock.now += 30
        view.event(0, Event(kind="claimed", trial=0, attempt=1, device="cuda:0"))
        clock.now += 30
        epoch(view, 0, 0, 1)
        view.event(0, Event(kind="complete", trial=0, attempt=1, accuracy=0.9))
        assert heartbeat(view, out, clock, study_with(complete=1)) == "about 23:00 left"  # 23 trials of 60 s


def study_in_a_view(console: Console) -> None:
    clock = Clock()
    with LiveView(console, NOTHING, workers=1, clock=clock) as view:
        claim(view, 0, 3)
        for number, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
            clock.now += 1
            epoch(view, 0, 3, number, accuracy=accuracy)
        clock.now += 1
        reason = "70.00 % by epoch 4, below the bar of 80.00 % (the best 50 % of 5 completed trials)"
        pruned = PrunedTrial(trial=3, reason=reason)
        one = study_with(complete=1, running=1)
        view.refresh(replace(one, best_accuracy=0.9306, best_trial=2, last_pruned=pruned))
        clock.now += 1
        view.event(0, Event(kind="pruned", trial=3, attempt=1, epoch=4, accuracy=0.7, reason=reason))
        view.message("[a message] of some words")
        clock.now += 30
        view.refresh(study_with(complete=1, pruned=1))


def test_a_trial_that_waits_for_its_device_stays_and_has_not_begun() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        clock.now += 100
        view.event(0, Event(kind="waiting"))
        claim(view, 0, 0)
        clock.now += 60
        epoch(view, 0, 0, 1)
        view.event(0, Event(kind="complete", trial=0, attempt=1, accuracy=0.9))
        assert heartbeat(view, out, clock, study_with(complete=1)) == "about 23:00 left"


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_lines_are_redrawn_and_colours_obey_no_color(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    console = Console(file=Terminal(), force_terminal=True, width=80, height=24)
    study_in_a_view(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "#3         pruned     70.00 % by epoch 4, below the bar of 80.00 % (the best 50…" in text
    assert "[a message] of some words" in text
    assert "93.06 %" in text
    assert "▁▄█" in text
    assert "\x1b[2K" in text  # a line is erased before it is drawn again
    assert ("\x1b[32m" in text) == (not no_color)


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"JPY_PARENT_PID": "1"}, {"FORCE_COLOR": "1"}],
    ids=["a cursor that cannot move", "a notebook's !igkd-hpo", "a log file"],
)
def test_elsewhere_nothing_is_redrawn_and_no_code_is_written(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    out = io.StringIO() if "FORCE_COLOR" in environment else Terminal()
    study_in_a_view(Console(file=out, width=80))
    lines = said(out)
    assert lines[0].startswith("#3         pruned ")
    assert lines[0].endswith("(the best 50 % of 5 completed trials)")
    assert lines[1:] == [
        "[a message] of some words",
        "2 of 24 finished, 0 running, 35 s so far, about 1:50 left",
    ]
    assert "\x1b" not in out.getvalue()


def test_in_a_notebook_one_output_is_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IPython is where notebooks run, not here: this stands in for the two functions of it that are called."""
    shown: list[str] = []

    class Output:
        def update(self, html: str) -> None:
            shown[-1] = html

    def display(html: str, *, display_id: bool) -> Output:
        assert display_id
        shown.append(html)
        return Output()

    module = ModuleType("IPython.display")
    module.HTML, module.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    study_in_a_view(Console(force_jupyter=True))
    (html,) = shown
    assert "2 of 24" in html
    assert "\x1b" not in html
    assert capsys.readouterr().out.splitlines()[1] == "[a message] of some words"


def test_the_same_message_is_not_said_again_and_again() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        for _ in range(35):
            clock.now += 1
            view.message("no connection")
            view.message("no connection either")
    assert said(out) == ["no connection", "no connection either"] * 2
