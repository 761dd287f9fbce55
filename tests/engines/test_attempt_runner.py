"""What becomes of an attempt at each message, with a trial that is made up: no process, no torch, no waiting."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.strata import Stratum
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.class_table import ClassResult, ClassTable
from igkd_hpo.distillation.metrics import EpochMetrics, MemoryUse
from igkd_hpo.engines import stall
from igkd_hpo.engines.attempt_runner import LAST_RETRY_SECONDS, AttemptRunner
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.outcome import Completed, Failed, Lost, Outcome, Pruned, Released
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, StorageError
from igkd_hpo.search.identity import ProcessIdentity, this_process
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study
from igkd_hpo.settings import Settings
from igkd_hpo.trial.messages import (
    Crashed,
    Diverged,
    EpochDone,
    Infeasible,
    Measured,
    Message,
    OutOfMemory,
    Overlays,
    Started,
    StepsDone,
    Trained,
    Waiting,
)
from tests.engines.made_up import MadeUpTrial

EPOCHS = 3
PNG = b"\x89PNG"
MEASURED = Measured(
    cost=StudentCost(parameters=1000, macs=2000, size_kb=3.9, latency_ms=1.5), excess={"parameters": -0.5}
)
STARTED = Started(
    pid=4242,
    device="cpu",
    execution=Execution(
        device="cpu", threads=1, precision="float32", memory_format="channels_last", compile="none", torch="2.11.0"
    ),
)
BEGIN = (Waiting(), MEASURED, Overlays(png=PNG), STARTED, StepsDone(steps=3))
NOT_LAST = (*BEGIN, "epoch")


def epoch(number: int, accuracy: float = 0.5) -> EpochDone:
    metrics = EpochMetrics(
        epoch=number, train_loss=1.5, validation_accuracy=accuracy, validation_loss=1.25, learning_rate=0.1,
        images_per_second=100.0, seconds=1.0,
    )  # fmt: skip
    return EpochDone(metrics=metrics, memory=MemoryUse(process=1 << 20))


CLASSES = ClassTable(count=9, worst=(ClassResult(name="crack", images=3, right=1, answered=2, mistaken_for="fine"),))
WHOLE = (
    *BEGIN,
    *(epoch(number, number / 4) for number in range(1, EPOCHS + 1)),
    Trained(accuracy=0.75, classes=CLASSES),
)


class Clock:
    """Goes on by itself, a little at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a study of one trial; making one costs as much as all of these tests."""
    path = tmp_path_factory.mktemp("template") / "study.db"
    digits = read_study(builtin_studies()["digits"]).model_dump()
    changes = {
        "name": "made-up", "n_trials": 1, "controls": (), "max_retries": 0, "training": {"epochs": EPOCHS},
        "pruner": {"name": "none"},
    }  # fmt: skip
    storage = open_storage(f"sqlite:///{path}", create=True)
    create_or_open(storage, Study.model_validate(digits | changes), n_trials=None, pins=None)
    storage.engine.dispose()
    return path


class Bench:
    """A claimed trial, and how to run an attempt at it."""

    def __init__(self, url: str, stop: StopSignal) -> None:
        self.settings = Settings.resolve(storage_url=url)
        self.storage = open_storage(url, create=False)
        self.study: SearchStudy = open_study(self.storage, "made-up")
        self.leases = Leases(self.study)
        self.worker = Worker(name="worker", process=this_process())
        self.stop = stop
        self.clock = Clock()
        self.events: list[Event] = []
        self.trial: MadeUpTrial | None = None

    def claim(self) -> Claim:
        claim = self.leases.claim(self.worker)
        assert isinstance(claim, Claim), claim
        return claim

    def run(
        self,
        *messages: Message,
        claim: Claim | None = None,
        leases: Leases | None = None,
        start: Callable[[Any], MadeUpTrial] | None = None,
        emit: Callable[[Event], None] | None = None,
        process: ProcessIdentity | None = None,
        **how: Any,
    ) -> Outcome:
        def started(_: object) -> MadeUpTrial:
            self.trial = MadeUpTrial(messages, **how)
            self.trial.process = process
            return self.trial

        runner = AttemptRunner(
            claim or self.claim(),
            leases or self.leases,
            self.study,
            self.settings,
            Slot(number=0, device="cpu", threads=1),
            start=start or started,
            emit=emit or self.events.append,
            stop=self.stop,
            costs={},
            clock=self.clock,
        )
        try:
            return runner.run()
        finally:
            assert self.trial is None or self.trial.closed, "what was started is let go of, whatever happened"

    @property
    def row(self) -> FrozenTrial:
        return self.study.trials()[0]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events if event.kind != "alive"]

    def skip(self, seconds: float) -> Callable[[], None]:
        def skip() -> None:
            self.clock.now += seconds

        return skip


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Iterator[Bench]:
    path = tmp_path / "study.db"
    shutil.copy(template, path)
    with StopSignal() as stop:
        made = Bench(f"sqlite:///{path}", stop)
        yield made
        made.storage.engine.dispose()


class Unreliable(Leases):
    """Leases of a database that is away whenever the next call's number is in `away`."""

    def __init__(self, study: SearchStudy, away: set[int]) -> None:
        super().__init__(study)
        self._away = away
        self.calls = 0

    def _step(self) -> Any:
        self.calls += 1
        if self.calls in self._away:
            raise StorageError("the database is away")
        return super()._step()


def test_a_whole_trial_is_in_the_database_as_it_was_told(bench: Bench) -> None:
    assert bench.run(*WHOLE, process=this_process()) == Completed(accuracy=0.75)
    trial = bench.row
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.75)
    assert trial.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
    expected = {
        "pid": 4242, "device": "cpu", "parameters": 1000, "macs": 2000, "images_per_second": 100.0,
        "validation_loss": 1.25, "train_loss": 1.5, "attempts": 1,
        "classes": json.loads(json.dumps(CLASSES.as_record())),
    }  # fmt: skip
    assert expected.items() <= trial.user_attrs.items()
    assert trial.constraints == {"parameters": -0.5}
    assert bench.leases.held() == []
    assert bench.kinds == ["claimed", "waiting", "claimed", "epoch", "epoch", "epoch", "complete"]
    artifacts = sorted(path.read_bytes()[:4] for path in bench.settings.paths.artifacts.iterdir())
    assert artifacts == [PNG, PNG], "a curve and the overlays"


@pytest.mark.parametrize("call", range(1, 8))
def test_an_outage_at_any_step_delays_and_loses_nothing(bench: Bench, call: int) -> None:
    leases = Unreliable(bench.study, {call, call + 1})
    claim = bench.claim()
    assert bench.run(*WHOLE, claim=claim, leases=leases, process=this_process()) == Completed(accuracy=0.75)
    assert bench.kinds.count("storage") == 2
    assert bench.row.intermediate_values == {1: 0.25, 2: 0.5, 3: 0.75}
    assert bench.row.value == 0.75
    assert bench.leases.held() == []


def test_the_process_is_written_into_the_lease_once_the_database_is_back(bench: Bench) -> None:
    seen: list[ProcessIdentity | None] = []
    leases = Unreliable(bench.study, {1, 2})

    def look() -> None:
        seen.append(bench.leases.held()[0].trial_process)
        if seen[-1] is not None:
            bench.stop.set(signal.SIGTERM)

    bench.run(claim=bench.claim(), leases=leases, then=look, process=this_process())
    assert seen[0] is None
    assert seen[-1] == this_process()


def test_retries_wait_longer_and_longer_up_to_a_bound(bench: Bench) -> None:
    times: list[float] = []
    kinds = [""]

    def note(event: Event) -> None:
        if event.kind == "storage" and kinds[-1] != "alive":  # a heartbeat that fails is just the next one's turn
            times.append(bench.clock.now)
        kinds.append(event.kind)

    leases = Unreliable(bench.study, set(range(1, 60)))
    bench.run(*WHOLE, claim=bench.claim(), leases=leases, emit=note, then=bench.skip(0.5))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(later >= 0.99 * earlier for earlier, later in pairwise(pauses))
    assert LAST_RETRY_SECONDS <= pauses[-1] < LAST_RETRY_SECONDS + 5


LASTS: dict[str, tuple[Message, type[Outcome], TrialState, str]] = {  # type: ignore[valid-type]
    "infeasible": (Infeasible(reason="5 parameters"), Pruned, TrialState.PRUNED, "not trained: 5 parameters"),
    "diverged": (Diverged(epoch=2), Pruned, TrialState.PRUNED, "epoch 2"),
    "crashed": (Crashed(reason="ValueError: no", traceback="Traceback ..."), Failed, TrialState.FAIL, "ValueError: no"),
    "out of memory": (OutOfMemory(reason="2 GiB", too_large=False), Released, TrialState.WAITING, "2 GiB"),
}


@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("away", [set(), {2}, {3, 4}], ids=str)
def test_every_other_last_message_ends_the_attempt_as_it_says(bench: Bench, last: str, away: set[int]) -> None:
    message, kind, state, said = LASTS[last]
    outcome = bench.run(MEASURED, message, claim=bench.claim(), leases=Unreliable(bench.study, away))
    assert isinstance(outcome, kind)
    assert bench.row.state is state
    assert said in bench.row.user_attrs["reason"]
    assert bench.leases.held() == []
    if last == "crashed":
        assert bench.row.user_attrs["error"] == "Traceback ..."


def test_a_trial_beyond_a_limit_has_its_cost_and_no_value(bench: Bench) -> None:
    beyond = Measured(cost=MEASURED.cost, excess={"parameters": 0.5})
    bench.run(beyond, Infeasible(reason="too many"))
    assert (bench.row.value, bench.row.constraints) == (None, {"parameters": 0.5})
    assert bench.row.user_attrs["parameters"] == 1000


def test_the_stratum_of_a_claim_goes_with_its_task(bench: Bench) -> None:
    stratum = Stratum(cost="parameters", above=0.0, end=500.0)
    tasks = []

    def start(task: Any) -> MadeUpTrial:
        tasks.append(task)
        return MadeUpTrial((MEASURED, Infeasible(reason="too many")))

    bench.run(claim=replace(bench.claim(), stratum=stratum), start=start)
    assert [task.stratum for task in tasks] == [stratum]


@pytest.mark.parametrize("after", range(len(NOT_LAST) + 1))
def test_a_lost_lease_ends_the_attempt_and_changes_nothing(bench: Bench, after: int) -> None:
    messages: tuple[Message, ...] = (*BEGIN, epoch(1))[:after]
    claim = bench.claim()
    rivals: list[Claim] = []

    def take_away() -> None:
        if not rivals:
            bench.leases.release(claim, "taken", counted=False, epochs_gained=True)
            rivals.append(bench.claim())
            bench.clock.now += 60  # the next heartbeat is due

    assert isinstance(bench.run(*messages, claim=claim, then=take_away), Lost)
    assert bench.kinds[-1] == "lost"
    (lease,) = bench.leases.held()
    assert lease.attempt == rivals[0].attempt == 2
    assert bench.row.state is TrialState.RUNNING


@pytest.mark.parametrize("last", [epoch(1), Trained(accuracy=0.5), Diverged(epoch=1)], ids=lambda m: type(m).__name__)
def test_a_message_after_the_lease_was_lost_writes_nothing(bench: Bench, last: Message) -> None:
    claim = bench.claim()
    bench.leases.release(claim, "taken", counted=False, epochs_gained=True)
    bench.claim()
    assert isinstance(bench.run(last, claim=claim), Lost)
    assert (bench.row.state, bench.row.intermediate_values) == (TrialState.RUNNING, {})


@pytest.mark.parametrize("after", range(len(NOT_LAST) + 1))
def test_a_trial_that_does_nothing_any_more_is_released_and_counted(
    bench: Bench, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall, "SLOWEST_START_SECONDS", 40.0)
    monkeypatch.setattr(stall, "SHORTEST_SILENCE_SECONDS", 20.0)
    messages: tuple[Message, ...] = (*BEGIN, epoch(1))[:after]
    outcome = bench.run(*messages, then=bench.skip(1.0))
    assert isinstance(outcome, Released)
    assert outcome.counted
    assert "hangs" in outcome.reason
    assert bench.clock.now < 80


@pytest.mark.parametrize("after", range(len(NOT_LAST) + 1))
def test_a_trial_that_ends_without_a_last_message_is_released_and_counted(bench: Bench, after: int) -> None:
    messages: tuple[Message, ...] = (*BEGIN, epoch(1))[:after]
    assert bench.run(*messages, ends=True) == Released(reason="the made-up trial ended", counted=True)


@pytest.mark.parametrize("after", range(len(NOT_LAST) + 1))
def test_a_stop_releases_the_trial_at_any_message_and_costs_no_attempt(bench: Bench, after: int) -> None:
    messages: tuple[Message, ...] = (*BEGIN, epoch(1))[:after]
    outcome = bench.run(*messages, then=lambda: bench.stop.set(signal.SIGTERM))
    assert outcome == Released(reason="stopped", counted=False)
    assert (bench.row.state, bench.row.user_attrs["attempts_without_progress"]) == (TrialState.WAITING, 0)


def test_a_stop_during_an_outage_leaves_at_once(bench: Bench) -> None:
    leases = Unreliable(bench.study, set(range(1, 1000)))
    bench.run(*WHOLE, claim=bench.claim(), leases=leases, then=lambda: bench.stop.set(signal.SIGTERM))
    assert leases.calls < 20
    assert len(bench.leases.held()) == 1, "which the next look at the leases frees"


def test_a_study_that_is_stopped_now_releases_its_trial(bench: Bench) -> None:
    bench.study.stop("enough", now=True)
    storage = bench.study.storage
    storage.set_study_user_attr(bench.study.study_id, "stopped", None)  # to claim
    claim = bench.claim()
    assert bench.run(claim=claim, then=bench.skip(1.0)) == Released(reason="the study was stopped", counted=False)


def test_a_killed_trial_runs_alone_next_and_there_is_too_large(bench: Bench) -> None:
    first = bench.run(MEASURED, STARTED, killed_for_memory=True)
    assert isinstance(first, Released)
    assert not first.counted
    assert bench.row.state is TrialState.WAITING
    again = bench.claim()
    assert again.out_of_memory == 1
    second = bench.run(MEASURED, STARTED, claim=again, killed_for_memory=True)
    assert isinstance(second, Pruned)
    assert second.excess == {"memory": 1.0}
    assert bench.row.state is TrialState.PRUNED
    assert bench.row.value is None


def test_a_trial_that_cannot_be_started_is_released_and_the_host_is_to_blame(bench: Bench) -> None:
    def start(_: object) -> MadeUpTrial:
        raise IgkdError("no process can be forked")

    with pytest.raises(IgkdError, match="forked"):
        bench.run(start=start)
    assert bench.row.state is TrialState.WAITING
    assert bench.row.user_attrs["attempts_without_progress"] == 0
    assert bench.leases.held() == []


@pytest.mark.parametrize("at", ["claimed", "epoch", "storage"])
def test_whoever_watches_may_be_gone_at_any_moment(bench: Bench, at: str) -> None:
    def emit(event: Event) -> None:
        if event.kind == at:
            raise BrokenPipeError

    leases = Unreliable(bench.study, {2} if at == "storage" else set())
    with suppress(BrokenPipeError):
        bench.run(*WHOLE, claim=bench.claim(), leases=leases, emit=emit)
    assert bench.leases.held() == []
    assert bench.row.user_attrs.get("attempts_without_progress", 0) == 0


def test_a_pruner_is_asked_once_and_its_word_is_kept_through_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    report = Leases.report

    def prune_once(leases: Leases, claim: Claim, *, epoch: int, accuracy: float) -> Verdict:
        report(leases, claim, epoch=epoch, accuracy=accuracy)
        asked.append(epoch)
        return Verdict.PRUNE

    monkeypatch.setattr(Leases, "report", prune_once)
    monkeypatch.setattr(Leases, "why_pruned", lambda *_: "below the bar")
    leases = Unreliable(bench.study, {5, 6})
    outcome = bench.run(*WHOLE, claim=bench.claim(), leases=leases)
    assert outcome == Pruned(reason="below the bar", epoch=1, accuracy=0.25)
    assert asked == [1]
    assert (bench.row.state, bench.row.value) == (TrialState.PRUNED, 0.25)
    assert not bench.settings.paths.trial_checkpoints("made-up", 0).exists()


def test_the_pictures_are_written_before_the_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts, holding = bench.settings.paths.artifacts, Leases.holding
    ready: list[set[bytes]] = []

    @contextmanager
    def noted(leases: Leases, claim: Claim) -> Iterator[bool]:
        ready.append({path.read_bytes() for path in artifacts.glob(".upload-*/*.png")})
        with holding(leases, claim) as held:
            yield held

    monkeypatch.setattr(Leases, "holding", noted)
    bench.run(*WHOLE)
    attached = {path.read_bytes() for path in artifacts.iterdir()}
    assert len(attached) == 2
    assert attached in ready, "they are whole before nobody else can write into the database"


@pytest.mark.parametrize("keep", [False, True])
def test_a_completed_trial_sends_away_the_checkpoints_that_nobody_needs(bench: Bench, keep: bool) -> None:
    bench.settings = replace(bench.settings, keep_checkpoints=keep)
    claim = bench.claim()
    for number in range(1, 7):
        attributes = {"hyperparameters": bench.study.config.hyperparameters.middle(), "seed": 0, "parameters": 1000}
        worse = optuna.trial.create_trial(value=0.1 * number, user_attrs=attributes)
        bench.study.optuna_study.add_trial(worse)
    files = [bench.settings.paths.checkpoint("made-up", number, 1) for number in range(7)]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    assert bench.run(*WHOLE, claim=claim) == Completed(accuracy=0.75)
    gone = {number for number, path in enumerate(files) if not path.exists()}
    assert gone == (set() if keep else {1, 2})


@pytest.mark.parametrize("ended", [True, False])
def test_a_copy_that_arrived_after_the_trial_was_another_s_goes_when_that_has_ended(
    bench: Bench, tmp_path: Path, ended: bool
) -> None:
    bench.settings = replace(bench.settings, remote=f"file://{tmp_path}/remote")
    folder = tmp_path / "remote" / "checkpoints" / bench.study.folder / "trial-00000"
    folder.mkdir(parents=True)
    claim = bench.claim()
    bench.leases.drop_worker(bench.worker)
    other = bench.claim()
    if ended:
        bench.leases.complete(other, 0.5, {})
    assert isinstance(bench.run(*WHOLE, claim=claim), Lost)
    assert folder.exists() is not ended


def test_copies_of_checkpoints_stay_as_long_as_their_trial_has_not_ended(bench: Bench, tmp_path: Path) -> None:
    bench.settings = replace(bench.settings, remote=f"file://{tmp_path}/remote")
    folder = tmp_path / "remote" / "checkpoints" / bench.study.folder / "trial-00000"
    folder.mkdir(parents=True)
    bench.run(MEASURED, LASTS["out of memory"][0])
    assert folder.exists()
    assert bench.run(*WHOLE) == Completed(accuracy=0.75)
    assert not folder.exists()
