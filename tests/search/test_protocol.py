"""The protocol against whatever may happen in any order: workers that claim, beat, report, stall and wake."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import ProcessIdentity
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open, open_study

N_TRIALS = 3
WORKERS = st.integers(0, 2)


def empty_study(folder: Path) -> Path:
    """A database with a fresh study, to be copied: making one costs as much as fifty steps of the protocol."""
    path = folder / "template.db"
    digits = read_study(builtin_studies()["digits"]).model_dump()
    changes = {
        "n_trials": N_TRIALS,
        "controls": ("student",),
        "max_retries": 2,
        "max_failures": 99,
        "pruner": {"name": "none"},
    }
    storage = open_storage(f"sqlite:///{path}", create=True)
    create_or_open(storage, Study.model_validate(digits | changes), n_trials=None, pins=None)
    storage.engine.dispose()
    return path


class Protocol(RuleBasedStateMachine):
    """Three workers on hosts that cannot see each other's processes, and a clock that only rules move.

    A worker keeps its claims for ever, so that what it does with an old one is what a process does that was suspended
    and woke up after others had taken over.
    """

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name) / "study.db"
        shutil.copy(self.template, path)
        self.storage = open_storage(f"sqlite:///{path}", create=False)
        self.study = open_study(self.storage, "digits")
        self.now = 0.0
        self.leases = [Leases(self.study, lease_seconds=60, clock=lambda: self.now) for _ in range(3)]
        self.workers = [
            Worker(name=f"w{n}", process=ProcessIdentity(host=f"h{n}", boot_id=f"b{n}", pid=1, start_time=1.0))
            for n in range(3)
        ]
        self.claims: list[tuple[int, Claim]] = []
        self.ended: dict[int, FrozenTrial] = {}
        self.beats: dict[
            tuple[int, int, int], float
        ] = {}  # (trial, attempt, beat): the time since when it stands there

    def teardown(self) -> None:
        try:
            self.one_worker_alone_can_finish()
        finally:
            self.storage.engine.dispose()
            self.folder.cleanup()

    def holds(self, claim: Claim) -> bool:
        return (claim.trial_id, claim.attempt) in {(lease.trial_id, lease.attempt) for lease in self.leases[0].held()}

    def snapshot(self) -> list[FrozenTrial]:
        return [self.storage.get_trial(trial._trial_id) for trial in self.study.trials()]

    @rule(worker=WORKERS)
    def claim(self, worker: int) -> None:
        claim = self.leases[worker].claim(self.workers[worker])
        if isinstance(claim, Claim):
            assert all((c.trial_id, c.attempt) != (claim.trial_id, claim.attempt) for _, c in self.claims)
            self.claims.append((worker, claim))

    @rule(worker=WORKERS)
    def reap(self, worker: int) -> None:
        self.leases[worker].reap()

    @rule(seconds=st.sampled_from([10.0, 30.0, 60.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len({worker for worker, _ in self.claims}) > 1)
    @rule(seconds=st.sampled_from([130.0, 60.0]), dead=WORKERS)
    def time_goes_by_while_the_others_train(self, seconds: float, dead: int) -> None:
        living = [(worker, claim) for worker, claim in self.claims if worker != dead and self.holds(claim)]
        for _ in range(int(seconds / 10)):
            self.now += 10
            for worker, claim in living:
                assert self.leases[worker].heartbeat(claim, last_epoch=0) is Verdict.GO_ON
            self.note_beats()
        if living:
            silent = [key for key, since in self.beats.items() if self.now - since >= 120]
            assert not silent, "the dead still hold trials, although somebody beats"

    def note_beats(self) -> None:
        leases = [(lease.trial_id, lease.attempt, lease.beat) for lease in self.leases[0].held()]
        self.beats = {key: self.beats.get(key, self.now) for key in leases}

    @rule(worker=WORKERS)
    def a_worker_is_stopped(self, worker: int) -> None:
        self.leases[worker].drop_worker(self.workers[worker])

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        action=st.sampled_from(["beat", "report", "annotate", "complete", "prune", "fail", "give_back"]),
    )
    def act(self, data: st.DataObject, action: str) -> None:
        worker, claim = data.draw(st.sampled_from(self.claims))
        leases, held, before = self.leases[worker], self.holds(claim), self.snapshot()
        match action:
            case "beat":
                done = leases.heartbeat(claim, last_epoch=1) is not Verdict.LOST
            case "report":
                done = leases.report(claim, epoch=claim.attempt, accuracy=0.5) is not Verdict.LOST
            case "annotate":
                done = leases.annotate(claim, {"parameters": claim.attempt})
            case "complete":
                done = leases.complete(claim, claim.attempt / 100, {})
            case "prune":
                done = leases.prune(claim, "slow", {})
            case "fail":
                done = leases.fail(claim, "broken", {})
            case _:
                done = leases.release(claim, "stopped", counted=False, epochs_gained=False)
        if held:
            assert done, f"the holder of trial {claim.number} was refused"
        else:
            assert self.snapshot() == before, f"a superseded attempt changed trial {claim.number}"

    @invariant()
    def no_trial_is_lost_and_none_changes_after_its_end(self) -> None:
        trials = self.snapshot()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        leased = {lease.trial_id for lease in self.leases[0].held()}
        running = {trial._trial_id for trial in trials if trial.state is TrialState.RUNNING}
        assert leased == running, "a trial runs without a lease, or a lease is for nothing"
        for number, ended in self.ended.items():
            assert trials[number] == ended
        self.ended = {trial.number: trial for trial in trials if trial.state.is_finished()}
        assert self.study.counts().finished + len(leased) <= N_TRIALS

    def one_worker_alone_can_finish(self) -> None:
        # Whatever happened before.
        leases, worker = self.leases[0], self.workers[0]
        for _ in range(3):
            leases.reap()
            self.now += 30
        while isinstance(claim := leases.claim(worker), Claim):
            assert leases.complete(claim, 0.5, {})
        assert self.study.counts().finished == N_TRIALS
        assert leases.held() == []


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    Protocol.template = empty_study(tmp_path_factory.mktemp("template"))


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
