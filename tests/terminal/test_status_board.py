"""What people see of all studies, from the database alone, once and again and again."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.engines.slurm.queue import Queue
from igkd_hpo.errors import StorageError
from igkd_hpo.search.counts import Counts
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.status import ControlStatus, PrunedTrial, RunningTrial, StudyStatus
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Paths, Settings
from igkd_hpo.terminal import status_watch
from igkd_hpo.terminal.status_board import status_board
from igkd_hpo.terminal.status_watch import StatusWatch

REASON = "30.00 % by epoch 2, below the bar of 55.00 % (the best 50 % of 5 completed trials)"


RUNNING = RunningTrial(
    trial=4,
    attempt=1,
    epoch=2,
    epochs=3,
    validation_accuracy=0.7,
    validation_accuracies=(0.6, 0.7),
    control=None,
    worker="far-0",
    host="far",
    device="cpu",
    beat=7,
    lost=None,
)
DIGITS = StudyStatus(
    name="digits",
    n_trials=6,
    counts=Counts(complete=3, pruned=0, fail=1, running=1, waiting=0),
    best_accuracy=0.8125,
    best_trial=2,
    best_cost=None,
    controls=(
        ControlStatus(control="student", trial=0, validation_accuracy=0.7),
        ControlStatus(control="kd", trial=1, validation_accuracy=0.75),
    ),
    last_pruned=PrunedTrial(trial=9, reason=REASON),
    epochs=3,
    running=(RUNNING,),
    seconds_left=62.0,
    last_failure="ValueError: no",
)
ENDED = replace(
    DIGITS,
    name="ended",
    counts=Counts(complete=3, pruned=0, fail=1, running=0, waiting=0),
    running=(),
    finished=True,
    last_failure=None,
)
STUDIES = [DIGITS, ENDED, replace(ENDED, name="ended-confirm", confirms="ended", stopped="by [/hand]", finished=False)]


def shown(studies: list[StudyStatus], width: int, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(status_board(studies, width, height))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_what_runs_has_a_board_and_every_other_study_a_line() -> None:
    lines = shown(STUDIES, 120)
    assert lines[0].split() == ["digits", "about", "1:02", "left"]
    assert lines[1].endswith(" 3 of 6")
    assert lines[2] == "3 complete  0 pruned  1 failed  1 running"
    assert lines[3] == "best      81.25 %  #2  +6.25 points over kd, the best control"
    assert lines[4] == "controls  student 70.00 %  kd 75.00 %"
    assert lines[5] == f"pruned    #9 {REASON}"
    assert lines[8].split() == ["#4", "1", "2/3", "70.00", "%", "▁" * 16 + "▄" * 16 + "·" * 16, "cpu", "far-0"]
    assert lines[9] == "digits: the last failed trial: ValueError: no"
    assert [line.split() for line in lines[11:14]] == [
        ["study", "state", "best", "trials"],
        ["ended", "finished", "81.25", "%", "#2", "3", "of", "6:", "3", "complete,", "1", "failed"],
        ["ended-confirm", "stopped", "3", "of", "6:", "3", "complete,", "1", "failed"],
    ]
    assert lines[13].startswith("  ended-confirm")
    assert lines[14] == "ended-confirm: stopped: by [/hand]"


@pytest.mark.parametrize("width", [20, 60, 80, 160])
def test_nothing_is_wider_than_the_terminal_and_what_counts_is_there(width: int) -> None:
    lines = shown(STUDIES, width, 40)
    assert max(map(len, lines)) <= width
    if width >= 60:
        text = "\n".join(lines)
        for content in ("about 1:02 left", "3 of 6", "81.25 %", "2/3", "70.00 %", "far-0", "finished"):
            assert content in text
        assert "#9 30.00 % by epoch 2, below the bar of 55.00 %" in text


def test_the_reason_of_a_failure_is_cut_only_where_lines_are_drawn_again() -> None:
    failed = [replace(DIGITS, last_failure="ValueError: " + "no " * 40 + "end")]
    assert shown(failed, 60)[-1].endswith("end")
    assert shown(failed, 60, 40)[-1].endswith("…")


def test_an_attempt_that_was_repeated_and_a_worker_that_is_gone() -> None:
    gone = replace(RUNNING, attempt=2, control="kd", lost=True, worker="named-by-hand")
    line = shown([replace(DIGITS, running=(gone,))], 80)[8]
    assert line.split() == ["#4", "kd", "2", "2/3", "70.00", "%", "gone", "cpu", "far:named-by-hand"]


def test_no_study_at_all() -> None:
    (line,) = shown([], 80)
    assert "igkd-hpo launch" in line


def test_no_study_yet_and_what_is_made_for_one(tmp_path: Path, storage: SharedStorage) -> None:
    storage.assets = tmp_path / "assets"
    with AssetStore(storage.assets).build("maps", {}, SilentProgress()):
        watch = StatusWatch(storage)
        watch.look()
        assert "makes maps" in " ".join(watched(watch))
    assert "makes maps" not in " ".join(watched(watch))


class Clock:
    """Seconds that pass only when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watched(watch: StatusWatch) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=100)
    console.print(watch.draw(100, 30))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_an_outage_is_said_and_hides_nothing(
    storage: SharedStorage, study: SearchStudy, run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(0.4, 0.5, end="leave")
    clock = Clock()
    watch = StatusWatch(storage, clock=clock)
    watch.look()
    before = watched(watch)

    def away(*_: object) -> list[StudyStatus]:
        raise StorageError("no connection to postgresql://db")

    with monkeypatch.context() as patched:
        patched.setattr(status_watch, "status", away)
        clock.now += 12
        watch.look()
        trouble, *rest = watched(watch)
        assert re.fullmatch("the database is away, .* 12 s ago: no connection to postgresql://db", trouble)
        assert rest == before
        assert watch.lines() == [trouble]
        assert watch.lines() == []
    watch.look()
    assert watched(watch) == before
    assert watch.lines()[0].startswith("digits: 0 of 6 finished, 1 running")


def test_a_beat_that_stands_still_is_told_by_the_own_clock(
    storage: SharedStorage, study: SearchStudy, run: Callable[..., object]
) -> None:
    claim = run(0.4, 0.5, end="leave")
    clock = Clock()
    watch = StatusWatch(storage, clock=clock)
    watch.look()
    clock.now += 25
    watch.look()
    assert "silent, 25 s" in "\n".join(watched(watch))
    Leases(study).heartbeat(claim, last_epoch=2)
    watch.look()
    assert "silent" not in "\n".join(watched(watch))


def test_a_log_has_a_line_when_something_happened_and_every_half_minute(
    storage: SharedStorage, study: SearchStudy, run: Callable[..., object]
) -> None:
    clock = Clock()
    watch = StatusWatch(storage, clock=clock)
    lines: list[str] = []

    def pass_seconds(seconds: int) -> None:
        for _ in range(0, seconds, 5):
            clock.now += 5
            watch.look()
            lines.extend(watch.lines())

    pass_seconds(40)
    assert lines == ["digits: 0 of 6 finished, 0 running"]  # it does not run: nothing to repeat
    run(0.4, end="leave")
    pass_seconds(35)
    assert lines[1:] == ["digits: 0 of 6 finished, 1 running"] * 2
    run(0.4, 0.5, 0.6)
    pass_seconds(5)
    assert lines[3].startswith("digits: 1 of 6 finished, 1 running, best 60.00 % (#1 kd)")


def test_what_waits_in_a_clusters_queue_is_told_of_its_study(
    storage: SharedStorage, study: SearchStudy, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 7 Resources\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    url = f"sqlite:///{paths.database}"
    paths.logs.mkdir()
    paths.slurm_jobs.write_text(json.dumps({"job": 7, "study": "digits", "storage": url}))
    settings = Settings(paths=paths, storage_url=url, data_root=tmp_path, allow_import=frozenset())
    watch = StatusWatch(storage, queue=Queue(settings), clock=Clock())
    watch.look()
    waits = "1 task waiting in Slurm's queue: 1 for Resources"
    assert watch.lines() == [f"digits: 0 of 6 finished, 0 running; {waits}"]
    assert watched(watch)[-1] == f"digits: {waits}"
