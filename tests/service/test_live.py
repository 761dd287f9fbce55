"""The live view: what it says, that it fits, and how it reckons the time left."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from igkd_hpo.search.study import Counts
from igkd_hpo.service.events import Event
from igkd_hpo.service.live import Best, LiveState, LiveView, WorkerLine, render, summary_line


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counts(**states: int) -> Counts:
    return Counts(**{"complete": 0, "pruned": 0, "fail": 0, "running": 0, "waiting": 0, **states})


def drawn(state: LiveState, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(state, width))
    return [line.rstrip() for line in console.export_text().splitlines()]


STATE = LiveState(
    total=24,
    epochs=12,
    workers=(
        WorkerLine(slot=0, state="training", trial=9, control="kd_ig", epoch=6, accuracy=0.9306,
                   images_per_second=12400, device="cpu"),
        WorkerLine(slot=1, state="starting", trial=10, device="cuda:0", attempt=2),
        WorkerLine(slot=2, state="waiting"),
        WorkerLine(slot=3, state="database away", trial=7, epoch=12, accuracy=1.0, images_per_second=980,
                   device="cuda:1"),
    ),
    counts=counts(complete=6, pruned=2, fail=1, running=3),
    best=Best(accuracy=0.9611, trial=3, control="kd"),
    elapsed=62,
    left=130,
)  # fmt: skip


def test_at_eighty_columns_nothing_is_cut() -> None:
    bar = "━" * 26 + "╸"  # 8 of 24 of 80 columns
    assert drawn(STATE, 80) == [
        "8 of 24 finished  complete 6  pruned 2  failed 1",
        bar,
        "best 96.11% (#3 kd)  1:02 so far, about 2:10 left",
        "0 #9 kd_ig    ━━━━━━          6/12  93.06%  12,400/s cpu    training",
        "1 #10                         0/12                   cuda:0 attempt 2",
        "2                                                           waiting",
        "3 #7          ━━━━━━━━━━━━   12/12 100.00%     980/s cuda:1 database away",
    ]


def test_on_a_narrow_terminal_columns_are_left_out() -> None:
    assert drawn(STATE, 50)[-1] == "3 #7            12/12 100.00% database away"
    assert drawn(STATE, 60)[-1] == "3 #7            12/12 100.00% cuda:1 database away"


maybe = st.none()
lines = st.builds(
    WorkerLine,
    slot=st.integers(0, 99),
    state=st.sampled_from(["starting", "training", "waiting", "database away", "given back"]),
    trial=maybe | st.integers(0, 99_999),
    attempt=st.integers(1, 12),
    control=st.sampled_from([None, "student", "kd_ig", "paper"]),
    epoch=st.integers(0, 300),
    accuracy=maybe | st.floats(0, 1),
    images_per_second=maybe | st.floats(0, 1e6),
    device=st.sampled_from([None, "cpu", "cuda:0", "cuda:15"]),
)
states = st.builds(
    LiveState,
    total=st.integers(1, 100_000),
    epochs=st.integers(1, 300),
    workers=st.lists(lines, max_size=6).map(tuple),
    counts=st.builds(counts, complete=st.integers(0, 99_999), fail=st.integers(0, 999)),
    best=maybe | st.builds(Best, accuracy=st.floats(0, 1), trial=st.integers(0, 99_999), control=st.just("student")),
    elapsed=st.floats(0, 1e6),
    left=maybe | st.floats(0, 1e6),
)


@given(state=states, width=st.integers(20, 200))
def test_every_line_fits_the_terminal_and_every_worker_has_one(state: LiveState, width: int) -> None:
    shown = drawn(state, width)
    assert max(len(line) for line in shown) <= width
    assert len(shown) == 3 + len(state.workers)


def test_the_plain_line() -> None:
    assert summary_line(STATE) == (
        "8 of 24 finished, 3 running, 1 failed, best 96.11% (#3 kd), 1:02 so far, about 2:10 left"
    )
    assert summary_line(LiveState(total=24, epochs=12)) == (
        "0 of 24 finished, 0 running, 0 s so far, measuring the time left"
    )


def plain_view(clock: Clock) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    return LiveView(Console(file=out, width=80), total=24, epochs=12, clock=clock), out


def said(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def claim(view: LiveView, slot: int, trial: int, **content: Any) -> None:
    view.event(slot, Event(kind="claimed", trial=trial, attempt=1, device="cpu", **content))


def test_elsewhere_than_on_a_terminal_a_line_says_how_each_trial_ended() -> None:
    view, out = plain_view(Clock())
    with view:
        claim(view, 0, 0, control="student")
        view.event(0, Event(kind="epoch", trial=0, attempt=1, epoch=1, accuracy=0.5, images_per_second=100.0))
        view.event(0, Event(kind="complete", trial=0, attempt=1, control="student", accuracy=0.9306))
        claim(view, 0, 12)
        reason = "71.2% below the bar 80.1%"
        view.event(0, Event(kind="pruned", trial=12, attempt=1, epoch=5, accuracy=0.712, reason=reason))
        claim(view, 0, 13)
        view.event(0, Event(kind="epoch", trial=13, attempt=1, epoch=4, accuracy=0.5, images_per_second=100.0))
        view.event(0, Event(kind="fail", trial=13, attempt=1, reason="RuntimeError: [no memory]"))
        view.event(0, Event(kind="claimed", trial=14, attempt=2, device="cpu"))
        view.event(0, Event(kind="given_back", trial=14, attempt=2, reason="stopped by SIGINT"))
        view.event(0, Event(kind="lost", trial=15, attempt=1, reason="another worker has taken over the trial"))
    assert said(out) == [
        "#0 student complete: 93.06%",
        "#12 pruned at epoch 5 of 12: 71.2% below the bar 80.1%",
        "#13 failed at epoch 4 of 12: RuntimeError: [no memory]",
        "#14, attempt 2 given back: stopped by SIGINT",
        "#15 lost: another worker has taken over the trial",
    ]


def test_elsewhere_a_heartbeat_comes_when_nothing_was_said_for_half_a_minute() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        for second in range(1, 66):
            clock.now = 1000.0 + second
            view.counts(counts(running=2), 24)
            if second == 10:
                view.message("worker 1 ended")
    assert said(out) == ["worker 1 ended", "0 of 24 finished, 2 running, 40 s so far, measuring the time left"]


def test_a_database_that_is_away_is_said_once_until_it_is_back() -> None:
    view, out = plain_view(Clock())
    with view:
        claim(view, 0, 1)
        for _ in range(3):
            view.event(0, Event(kind="storage", reason="no connection"))
        view.event(0, Event(kind="epoch", trial=1, attempt=1, epoch=1, accuracy=0.5, images_per_second=1.0))
        view.event(0, Event(kind="storage", reason="no connection"))
    assert said(out) == ["worker 0: no connection"] * 2


def heartbeat(view: LiveView, out: io.StringIO, clock: Clock, found: Counts) -> str:
    """What the next heartbeat says of the time left, half a minute on."""
    clock.now += 30
    view.counts(found, 24)
    return said(out)[-1].rpartition(", ")[2]


def test_the_time_left_follows_from_the_trials_that_ended_here() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        claim(view, 1, 1)
        clock.now += 40
        view.event(0, Event(kind="complete", trial=0, attempt=1, accuracy=0.9))
        clock.now += 20
        view.event(1, Event(kind="pruned", trial=1, attempt=1, epoch=5, accuracy=0.5))
        # mean 50 s; 22 to go over two workers
        assert heartbeat(view, out, clock, counts(complete=1, pruned=1)) == "about 9:10 left"
        claim(view, 0, 2)
        # one of the 22 has run for 30 of its 50 s: (22 * 50 - 30) / 2
        assert heartbeat(view, out, clock, counts(complete=1, pruned=1, running=1)) == "about 8:55 left"
        # other hosts run 8 more: (22 * 50 - 50) / 10
        assert heartbeat(view, out, clock, counts(complete=1, pruned=1, running=10)) == "about 1:45 left"


def test_before_a_trial_ended_its_epochs_tell_the_time_left() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        assert heartbeat(view, out, clock, counts(running=1)) == "measuring the time left"
        for epoch in (1, 2, 3):
            view.event(0, Event(kind="epoch", trial=0, attempt=1, epoch=epoch, accuracy=0.5, images_per_second=1.0))
        # 60 s for 3 of 12 epochs are 240 s for a trial: 24 * 240 - 60 s
        assert heartbeat(view, out, clock, counts(running=1)) == "about 1:35:00 left"


def test_a_resumed_trial_tells_nothing_of_the_time_of_a_whole_one() -> None:
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        clock.now += 10
        view.event(0, Event(kind="epoch", trial=0, attempt=2, epoch=11, accuracy=0.5, images_per_second=1.0))
        assert heartbeat(view, out, clock, counts(running=1)) == "measuring the time left"


def test_the_process_that_is_up_does_not_start_the_trial_anew() -> None:
    """A worker says `claimed` twice: when it has the trial, and when the process knows its device."""
    clock = Clock()
    view, out = plain_view(clock)
    with view:
        claim(view, 0, 0)
        clock.now += 30
        view.event(0, Event(kind="claimed", trial=0, attempt=1, device="cuda:0"))
        clock.now += 30
        view.event(0, Event(kind="complete", trial=0, attempt=1, accuracy=0.9))
        assert heartbeat(view, out, clock, counts(complete=1)) == "about 23:00 left"  # 23 trials of 60 s


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_lines_are_redrawn_and_colours_obey_no_color(
    no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    with LiveView(console, total=24, epochs=12, clock=clock) as view:
        claim(view, 0, 3)
        clock.now += 1
        view.counts(counts(complete=1, running=1), 24)
        view.best(0.9306, 2)
        clock.now += 1
        view.event(0, Event(kind="pruned", trial=3, attempt=1, epoch=5, accuracy=0.5, reason="too low"))
    text = out.getvalue()
    assert "#3 pruned at epoch 5 of 12: too low" in text
    assert "best 93.06% (#2)" in text
    assert "\x1b[2K" in text  # a line is erased before it is drawn again
    assert ("\x1b[32m" in text) == (not no_color)


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out, clock = io.StringIO(), Clock()
    with LiveView(Console(file=out, force_terminal=True, width=80), total=24, epochs=12, clock=clock) as view:
        claim(view, 0, 3)
        view.event(0, Event(kind="complete", trial=3, attempt=1, accuracy=0.5))
        clock.now += 30
        view.counts(counts(complete=1), 24)
    assert said(out)[0] == "#3 complete: 50.00%"
    assert said(out)[1].startswith("1 of 24 finished, 0 running")
