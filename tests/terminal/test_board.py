"""The board: what it says at each width, and that it fits."""

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from igkd_hpo.search.counts import Counts
from igkd_hpo.search.status import ControlStatus, PrunedTrial
from igkd_hpo.terminal.board import Board, WorkerRow, render, summary_line
from tests.terminal.studies import begun_study


def counts(**states: int) -> Counts:
    return Counts(**{"complete": 0, "pruned": 0, "fail": 0, "running": 0, "waiting": 0, **states})


def drawn(board: Board, width: int, height: int | None = None) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(board, width, height))
    return [line.rstrip() for line in console.export_text().splitlines()]


REASON = "71.20 % by epoch 5, below the bar of 80.10 % (the best 50 % of 7 completed trials)"
CURVE = (0.1, 0.8, 0.85, 0.9, 0.92, 0.9306)
STUDY = begun_study(
    counts=counts(complete=6, pruned=2, fail=1, running=3),
    best_accuracy=0.9611,
    best_trial=17,
    controls=(
        ControlStatus(control="student", trial=0, validation_accuracy=0.9194),
        ControlStatus(control="kd", trial=1, validation_accuracy=0.95),
        ControlStatus(control="ig", trial=2, validation_accuracy=None),
    ),
    last_pruned=PrunedTrial(trial=12, reason=REASON),
)
ROWS = (
    WorkerRow(worker="0", state="training", trial=9, control="kd_ig", epoch=6, curve=CURVE, images_per_second=12400,
        memory=412_000_000, device="cpu", seconds=31),
    WorkerRow(worker="1", state="starting", trial=10, device="cuda:0", attempt=2, seconds=1),
    WorkerRow(worker="2", state="waiting"),
    WorkerRow(worker="3", state="no database", trial=7, epoch=12, curve=CURVE * 2, images_per_second=980,
        memory=2_100_000_000, device_memory=12_300_000_000, device_memory_total=141_000_000_000, device="cuda:1",
        seconds=3600),
)  # fmt: skip
BOARD = Board(kind="launch", study=STUDY, rows=ROWS, elapsed=62, left=130)


def test_at_eighty_columns() -> None:
    assert drawn(BOARD, 80) == [
        "digits                                           1:02 so far, about 2:10 left",
        "━━━━━━━━━━━━━━━━━━━━━━━────────────────────────────────────────────── 8 of 24",
        "6 complete  2 pruned  1 failed  3 running",
        "best      96.11 %  #17  +1.11 points over kd",
        "controls  student 91.94 %  kd 95.00 %  ig -",
        "pruned    #12 71.20 % by epoch 5, below the bar of 80.10 % (the best 50 % of 7 …",
        "",
        "    trial       try  epoch  accuracy                images/s   memory  device",
        " 0  #9 kd_ig      1   6/12   93.06 %  ▁▄▅▆▇▇······    12,400  393 MiB  cpu",
        " 1  #10           2   0/12            starting                         cuda:0",
        " 2                                    waiting",
        " 3  #7            1  12/12   93.06 %  no database        980  2.0 GiB  cuda:1",
    ]


def test_at_sixty_columns_the_value_and_the_bar_it_missed_are_still_there() -> None:
    lines = drawn(BOARD, 60)
    assert lines[5] == "pruned    #12 71.20 % by epoch 5, below the bar of 80.10 % …"
    assert lines[7] == "    trial       try  epoch  accuracy                images/s"
    assert lines[8] == " 0  #9 kd_ig      1   6/12   93.06 %  ▁▄▅▆▇▇······    12,400"


def test_on_a_wide_terminal_there_is_more() -> None:
    lines = drawn(BOARD, 160)
    assert lines[3] == "best      96.11 %  #17  +1.11 points over kd, the best control"
    assert lines[5] == f"pruned    #12 {REASON}"
    assert " ".join(lines[7].split()) == "trial try epoch accuracy images/s memory GPU memory device time"
    assert "▁▁▁▁▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇▇▇▇▇▇" + "·" * 24 in lines[8]
    assert lines[11].split()[-6:] == ["2.0", "GiB", "11.5/131", "GiB", "cuda:1", "1:00:00"]


def test_below_sixty_columns_are_left_out() -> None:
    lines = drawn(BOARD, 40)
    assert lines[7:9] == ["    trial       try  epoch  accuracy", " 0  #9 kd_ig      1   6/12   93.06 %"]


def test_from_the_database_alone_workers_have_names() -> None:
    name = "a-host-with-a-long-name.example.com-3117-0"
    rows = (replace(ROWS[0], worker=name), replace(ROWS[1], worker="host-7-1", state="gone"))
    board = replace(BOARD, kind="status", rows=rows, elapsed=None)
    assert drawn(board, 80)[0].endswith("  about 2:10 left")
    lines = drawn(board, 80)[-3:]
    assert lines[0].split() == ["trial", "try", "epoch", "accuracy", "device", "worker"]
    assert lines[1] == "#9 kd_ig      1   6/12   93.06 %  ▁▄▅▆▇▇······  cpu     …me.example.com-3117-0"
    assert lines[2] == "#10           2   0/12            gone          cuda:0  host-7-1"
    assert drawn(board, 160)[-2].endswith(f"  {name}")
    assert drawn(replace(board, left=None), 80)[0] == "digits"


def test_a_confirmation_has_no_best_and_nothing_pruned() -> None:
    board = replace(BOARD, study=replace(STUDY, confirms="digits"))
    assert len(drawn(board, 80)) == len(drawn(BOARD, 80)) - 3
    assert "best" not in "\n".join(drawn(board, 80))


def test_lines_stay_where_they_are_when_the_first_of_a_kind_comes() -> None:
    begun = begun_study(controls=tuple(replace(control, validation_accuracy=None) for control in STUDY.controls))
    nothing = replace(BOARD, study=begun, rows=tuple(WorkerRow(worker=str(slot)) for slot in range(4)))
    assert len(drawn(nothing, 80)) == len(drawn(BOARD, 80))
    assert drawn(nothing, 80)[3:6] == [
        "best      no trial completed yet",
        "controls  student -  kd -  ig -",
        "pruned    none yet",
    ]
    assert drawn(nothing, 80)[7] == drawn(BOARD, 80)[7]


def test_a_best_that_is_a_control_is_not_compared_with_itself() -> None:
    board = replace(BOARD, study=replace(STUDY, best_accuracy=0.95, best_trial=1, best_control="kd"))
    assert drawn(board, 80)[3] == "best      95.00 %  #1 kd"
    assert drawn(board, 120)[3] == "best      95.00 %  #1 kd  which is a control"


def test_the_difference_is_that_of_the_figures_shown() -> None:
    controls = (ControlStatus(control="kd", trial=1, validation_accuracy=0.95004),)
    board = replace(BOARD, study=replace(STUDY, best_accuracy=0.95006, best_trial=2, controls=controls))
    assert drawn(board, 80)[3] == "best      95.01 %  #2  +0.01 points over kd"


def test_curves_share_one_scale_on_which_halving_the_error_is_one_step() -> None:
    rows = (replace(ROWS[0], curve=(0.2, 0.62), epoch=2), replace(ROWS[0], worker="1", curve=(0.62, 0.8), epoch=2))
    lines = drawn(replace(BOARD, rows=rows, study=replace(STUDY, best_accuracy=None)), 80)
    assert "▁▅·" in lines[-2]
    assert "▅█·" in lines[-1]
    lines = drawn(replace(BOARD, rows=rows), 80)
    assert "▄·" in lines[-1], "the best is the top"


def test_workers_that_do_not_fit_in_height_are_counted() -> None:
    board = replace(BOARD, rows=tuple(WorkerRow(worker=str(slot)) for slot in range(64)))
    lines = drawn(board, 80, 24)
    assert len(lines) == 24
    assert lines[-1] == "… and 49 more"
    assert len(drawn(BOARD, 80, 12)) == 12
    assert drawn(BOARD, 80, 12)[-1].startswith(" 3  #7")


maybe = st.none()
fractions = st.floats(0, 1)
rows = st.builds(
    WorkerRow,
    worker=st.sampled_from(["0", "63", "host-1-2", "a-very-long-host-name-of-a-cloud.internal-123456-12", "主机-1"]),
    state=st.sampled_from(["starting", "training", "waiting", "no database", "released", "gone", "silent, 1:02:03"]),
    trial=maybe | st.integers(0, 99_999),
    attempt=st.integers(1, 12),
    control=st.sampled_from([None, "student", "kd_ig_at", "paper"]),
    epoch=st.integers(0, 300),
    curve=st.lists(fractions, max_size=300).map(tuple),
    images_per_second=maybe | st.floats(0, 1e6),
    memory=maybe | st.integers(0, 10**12),
    device_memory=maybe | st.integers(0, 10**12),
    device_memory_total=maybe | st.integers(0, 10**12),
    device=st.sampled_from([None, "cpu", "cuda:0", "cuda:15"]),
    seconds=maybe | st.floats(0, 1e6),
)
names = st.sampled_from(["student", "kd", None])
controls = st.builds(
    ControlStatus, control=st.just("kd_ig"), trial=st.integers(0, 99_999), validation_accuracy=maybe | fractions
)
studies = st.builds(
    begun_study,
    name=st.sampled_from(["digits", "n" * 100, "学"]),
    n_trials=st.integers(1, 100_000),
    epochs=st.integers(1, 300),
    counts=st.builds(counts, complete=st.integers(0, 99_999), fail=st.integers(0, 999), infeasible=st.integers(0, 9)),
    best_accuracy=maybe | fractions,
    best_trial=st.integers(0, 99_999),
    best_control=names,
    controls=st.lists(controls, max_size=8).map(tuple),
    last_pruned=maybe
    | st.builds(PrunedTrial, trial=st.integers(0, 99_999), reason=st.sampled_from([REASON, "not trained: 主"])),
    confirms=st.sampled_from([None, "digits"]),
)
boards = st.builds(
    Board,
    kind=st.sampled_from(["launch", "status"]),
    study=studies,
    rows=st.lists(rows, max_size=6).map(tuple),
    elapsed=maybe | st.floats(0, 1e6),
    left=maybe | st.floats(0, 1e6),
)


@given(board=boards, width=st.integers(1, 200))
def test_every_line_fits_the_terminal_and_every_worker_has_one(board: Board, width: int) -> None:
    shown = drawn(board, width)
    assert max(cell_len(line) for line in shown) <= width
    assert len(shown) == 3 + 3 * (board.study.confirms is None) + (len(board.rows) + 2 if board.rows else 0)


@given(board=boards, width=st.integers(1, 200), height=st.integers(12, 60))
def test_no_more_lines_than_the_terminal_has(board: Board, width: int, height: int) -> None:
    assert len(drawn(board, width, height)) <= height


def test_the_plain_line() -> None:
    assert (
        summary_line(BOARD) == "8 of 24 finished, 3 running, 1 failed, best 96.11 % (#17), 1:02 so far, about 2:10 left"
    )
    begun = Board(kind="launch", study=begun_study(), elapsed=0)
    assert summary_line(begun) == "0 of 24 finished, 0 running, 0 s so far, measuring the time left"
    assert summary_line(replace(begun, kind="status", elapsed=None)) == "0 of 24 finished, 0 running"


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_obey_no_color(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    console.print(render(BOARD, 80))
    output: Any = console.file
    assert ("\x1b[32m" in output.getvalue()) == (not no_color)
