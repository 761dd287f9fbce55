"""One attempt at a claimed trial, from its start to what the database has of its end."""

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar

from igkd_hpo.config.cost import StudentCost, architecture
from igkd_hpo.config.space import Value
from igkd_hpo.engines.events import Event, Kind
from igkd_hpo.engines.outcome import Completed, Failed, Lost, Outcome, Pruned, Released, record
from igkd_hpo.engines.retention import remove_checkpoints
from igkd_hpo.engines.running_trial import RunningTrial, Slot, Start
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.engines.stall import StepWatch
from igkd_hpo.errors import IgkdError, StorageError
from igkd_hpo.search.artifacts import attach_pictures, written_pictures
from igkd_hpo.search.lease import Claim, Leases, Verdict
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial import messages
from igkd_hpo.trial.checkpoint_copies import remove_copies
from igkd_hpo.trial.pictures import draw_curve
from igkd_hpo.trial.task import AttemptTask, TrialTask

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
KILLED_FOR_MEMORY = "the trial process was ended by SIGKILL, probably by the kernel, which was out of memory"

_Answer = TypeVar("_Answer")

Costs = dict[tuple[Value, ...], StudentCost]
"""Cache of student costs by architecture; measuring one takes about 0.3 s."""

_log = logging.getLogger(__name__)


class _GoOn:
    """The answer to a message that is not the last."""


class AttemptRunner:
    """Runs one attempt: starts it, passes on what it says, and records its outcome.

    Args:
        start: starts the trial.
        emit: told of everything that happens.
        costs: read and added to.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        claim: Claim,
        leases: Leases,
        study: SearchStudy,
        settings: Settings,
        slot: Slot,
        *,
        start: Start,
        emit: Callable[[Event], None],
        stop: StopSignal,
        costs: Costs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claim = claim
        self._leases = leases
        self._study = study
        self._paths = settings.paths
        self._slot = slot
        self._start = start
        self._emit = emit
        self._stop = stop
        self._costs = costs
        self._clock = clock
        self._keep_checkpoints = settings.keep_checkpoints
        self._remote = settings.remote
        self._heartbeat_seconds = settings.heartbeat_seconds
        self._next_heartbeat = clock() + self._heartbeat_seconds
        self._steps = self._new_watch()
        self._pending: deque[messages.Message] = deque()
        self._retry_at = -math.inf
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._identity_written = False
        self._measured: messages.Measured | None = None
        self._device: str | None = None
        self._attributes: dict[str, Any] = {}
        self._speeds: list[float] = []
        self._curve: list[tuple[int, float]] = []
        self._overlays: bytes | None = None
        self._newest_epoch = max(claim.reported_epochs, default=0)
        self._alone = claim.out_of_memory > 0
        self._task = AttemptTask(
            trial=TrialTask(study=study.config, hyperparameters=claim.hyperparameters, seed=claim.seed),
            device=slot.device,
            slot=slot.number,
            threads=slot.threads,
            alone=self._alone,
            settings=settings,
            stratum=claim.stratum,
            cost=costs.get(architecture(claim.hyperparameters)),
            pins=study.pins_when_opened,
            checkpoint=self._paths.checkpoint(study.folder, claim.number, claim.attempt),
            log=self._paths.trial_log(study.folder, claim.number, claim.attempt),
        )

    def run(self) -> Outcome:
        """Start the trial, follow it to its end, and return what the database has of it.

        Raises:
            IgkdError: this host cannot start a trial; the claim is released first, as after any other error.
        """
        outcome: Outcome = Released(reason="its worker ended with an error", counted=False)
        try:
            self._say("claimed", device=self._slot.device)
            trial = self._start(self._task)
            try:
                outcome = self._follow(trial)
            finally:
                trial.close()
        finally:
            outcome = self._record(outcome)
        return outcome

    def _follow(self, trial: RunningTrial) -> Outcome:
        while True:
            self._wait(trial)
            if self._stop.received is not None:
                return Released(reason="stopped", counted=False)
            self._take_in(trial)
            outcome = self._write_identity(trial) or self._deliver() or self._check_life(trial) or self._beat()
            if outcome is not None:
                return outcome

    def _wait(self, trial: RunningTrial) -> None:
        now = self._clock()
        wake = self._next_heartbeat if self._retry_at <= now else min(self._next_heartbeat, self._retry_at)
        wait([*trial.waitables(), self._stop.descriptor], max(0.0, wake - now))

    def _take_in(self, trial: RunningTrial) -> None:
        for message in trial.messages():
            match message:
                case messages.StepsDone(steps=steps):
                    self._steps.steps(steps)
                case messages.Waiting():
                    self._steps = self._new_watch()
                    self._emit(Event(kind="waiting"))
                case _:
                    self._pending.append(message)

    def _write_identity(self, trial: RunningTrial) -> Outcome | None:
        """Note in the lease which process trains, so that whoever frees the lease can end it."""
        if self._identity_written or self._clock() < self._retry_at or (identity := trial.identity) is None:
            return None
        started = self._try(lambda: self._leases.start(self._claim, identity, self._slot.device))
        self._identity_written = started is not None
        return Lost() if started is False else None

    def _deliver(self) -> Outcome | None:
        """Pass on what has arrived, in order; what the database refuses stays for later."""
        while self._pending and self._clock() >= self._retry_at:
            handled = self._try(partial(self._handle, self._pending[0]))
            if handled is None:
                return None
            self._pending.popleft()
            if not isinstance(handled, _GoOn):
                return handled
        return None

    def _handle(self, message: messages.Message) -> "Outcome | _GoOn":
        match message:
            case messages.Measured():
                self._measured = message
                self._costs[architecture(self._claim.hyperparameters)] = message.cost
            case messages.Infeasible(reason=reason):
                self._annotate({})
                return Pruned(reason=f"not trained: {reason}")
            case messages.Overlays(png=png):
                self._overlays = png
            case messages.Started(pid=pid, device=device, execution=execution):
                self._annotate({"pid": pid, "device": device, "execution": execution.model_dump(mode="json")})
                self._device = device
                self._say("claimed", device=device)
            case messages.EpochDone():
                return self._handle_epoch(message)
            case messages.Trained(accuracy=accuracy, classes=classes):
                if classes is not None:
                    self._attributes = {**self._attributes, "classes": classes.as_record()}
                return Completed(accuracy=accuracy)
            case messages.Diverged(epoch=epoch):
                return Pruned(reason=f"the loss was not finite in epoch {epoch}")
            case messages.OutOfMemory(reason=reason, too_large=too_large):
                return self._handle_out_of_memory(reason, too_large=too_large)
            case messages.Crashed(reason=reason, traceback=traceback):
                return Failed(reason=reason, traceback=traceback)
        return _GoOn()

    def _annotate(self, facts: dict[str, Any]) -> None:
        measured = self._measured
        cost, excess = (measured.cost.as_attributes(), measured.excess) if measured else ({}, {})
        self._leases.annotate(self._claim, facts | cost, excess=excess)

    def _handle_epoch(self, message: messages.EpochDone) -> "Outcome | _GoOn":
        metrics, memory = message.metrics, message.memory
        epoch, accuracy = metrics.epoch, metrics.validation_accuracy
        verdict = self._leases.report(self._claim, epoch=epoch, accuracy=accuracy)
        self._newest_epoch = max(self._newest_epoch, epoch)
        self._speeds.append(metrics.images_per_second)
        self._curve.append((epoch, accuracy))
        self._attributes = {
            "images_per_second": round(sum(self._speeds) / len(self._speeds), 1),
            "validation_loss": metrics.validation_loss,
            "train_loss": metrics.train_loss,
        }
        if verdict is Verdict.LOST:
            return Lost()
        if verdict is Verdict.PRUNE and epoch < self._study.config.training.epochs:
            return Pruned(reason=None, epoch=epoch, accuracy=accuracy)
        self._say(
            "epoch",
            epoch=epoch,
            accuracy=accuracy,
            images_per_second=metrics.images_per_second,
            memory=memory and memory.process,
            device_memory=memory and memory.device,
            device_memory_total=memory and memory.device_total,
        )
        return _GoOn()

    def _handle_out_of_memory(self, reason: str, *, too_large: bool) -> Outcome:
        """Let the trial wait to be alone on a device; one that was, and gained no epoch, is beyond a limit."""
        self._leases.annotate(self._claim, {"out_of_memory": self._claim.out_of_memory + 1})
        if too_large and not self._epochs_gained:
            why = f"too large: out of memory with the device to itself: {reason}"
            return Pruned(reason=why, excess={"memory": 1.0})  # by how much is not known
        return Released(reason=f"out of memory, and runs alone next: {reason}", counted=self._alone)

    def _check_life(self, trial: RunningTrial) -> Outcome | None:
        """Tell whether the trial has ended without a last message, or makes no step any more."""
        if self._pending:
            return None
        if trial.killed_for_memory:
            # On a GPU it is another memory that is short.
            too_large = self._alone and self._device == "cpu"
            self._pending.append(messages.OutOfMemory(reason=KILLED_FOR_MEMORY, too_large=too_large))
            return self._deliver()
        if trial.ended:
            return Released(reason=trial.describe_end(), counted=True)
        if (stalled := self._steps.hung()) is not None:
            return Released(reason=f"the trial process hangs: {stalled}", counted=True)
        return None

    def _beat(self) -> Outcome | None:
        """Show life to the database and to the supervisor, when it is time to."""
        if self._clock() < self._next_heartbeat:
            return None
        self._next_heartbeat = self._clock() + self._heartbeat_seconds
        self._emit(Event(kind="alive"))
        try:
            verdict = self._leases.heartbeat(self._claim, last_epoch=self._newest_epoch)
        except StorageError as error:  # which a lease survives
            self._emit(Event(kind="storage", reason=str(error)))
            return None
        for reaped in self._leases.take_reaped():
            self._emit(Event(kind="reaped", reason=str(reaped)))
        if verdict is Verdict.STOP:
            return Released(reason="the study was stopped", counted=False)
        return Lost() if verdict is Verdict.LOST else None

    def _record(self, outcome: Outcome) -> Outcome:
        """Write the outcome, again and again while the database is away: a worker that goes on must not keep a lease.

        After a signal one try is enough, for a worker that is gone holds nothing, and its trial's checkpoint has all.
        """
        while (recorded := self._try(lambda: self._write(outcome))) is None and self._stop.received is None:
            wait([self._stop.descriptor], max(0.0, self._retry_at - self._clock()))
        ended = recorded or outcome
        self._tell_end(ended)
        if recorded is not None:
            self._clean(recorded)
        return ended

    def _write(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Completed) or (isinstance(outcome, Pruned) and outcome.reason is None):
            self._upload_pictures()
        return record(outcome, self._leases, self._claim, self._attributes, epochs_gained=self._epochs_gained)

    def _upload_pictures(self) -> None:
        """Attach pictures for the dashboard; those that cannot be written are left out: the result matters more."""
        title = f"trial {self._claim.number}" + (f", control {self._claim.control}" if self._claim.control else "")
        curve = draw_curve(
            self._curve, title, epochs=self._study.config.training.epochs, metric=self._study.config.metric
        )
        pictures = {"learning curve.png": curve} | ({"overlays.png": self._overlays} if self._overlays else {})
        try:
            # The files are written before the transaction, during which nobody else can write into SQLite.
            with written_pictures(self._paths, pictures) as written, self._leases.holding(self._claim) as held:
                if held:  # else another attempt has the trial
                    attach_pictures(self._study.storage, self._claim.trial_id, self._paths, written)
        except OSError as error:
            _log.warning("the pictures of trial %d are left out: %s", self._claim.number, error)

    def _tell_end(self, outcome: Outcome) -> None:
        match outcome:
            case Completed(accuracy=accuracy):
                self._say("complete", accuracy=accuracy)
            case Pruned(reason=reason, epoch=epoch, accuracy=accuracy):
                self._say("pruned", epoch=epoch, accuracy=accuracy, reason=reason)
            case Failed(reason=reason):
                self._say("fail", reason=reason)
            case Released(reason=reason):
                self._say("released", reason=reason)
            case Lost(reason=reason):
                self._say("lost", reason=reason)

    def _clean(self, outcome: Outcome) -> None:
        """Remove the checkpoints that nobody needs any more."""
        folder = self._paths.trial_checkpoints(self._study.folder, self._claim.number)
        if self._remote is not None and self._is_over(outcome):
            remove_copies(self._remote, self._task.checkpoint)
        if isinstance(outcome, Pruned):
            shutil.rmtree(folder, ignore_errors=True)
        elif isinstance(outcome, Completed) and self._task.checkpoint.exists():
            for path in folder.iterdir():  # other attempts, and what one that was killed had half written
                if path != self._task.checkpoint:
                    path.unlink(missing_ok=True)
            if not self._keep_checkpoints:
                with suppress(StorageError):  # the next trial that completes removes them
                    remove_checkpoints(self._study, self._paths)

    def _is_over(self, outcome: Outcome) -> bool:
        """Return whether the trial has ended, by this attempt or, where that lost its lease, by another.

        The other one has removed the copies as well, but the last of ours may have arrived after that.
        """
        if not isinstance(outcome, Lost):
            return isinstance(outcome, Completed | Pruned | Failed)
        with suppress(IgkdError):  # the database is away, or the study is gone
            return self._study.trials()[self._claim.number].state.is_finished()
        return False

    @property
    def _epochs_gained(self) -> bool:
        return self._newest_epoch > max(self._claim.reported_epochs, default=0)

    def _new_watch(self) -> StepWatch:
        return StepWatch(longest_look=2 * self._heartbeat_seconds, clock=self._clock)

    def _try(self, call: Callable[[], _Answer]) -> _Answer | None:
        """Return what the call returns; None when the database is away, and the next try must wait a little longer."""
        try:
            answer = call()
        except StorageError as error:
            self._emit(Event(kind="storage", reason=str(error)))
            self._retry_at = self._clock() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
            return None
        self._retry_seconds = FIRST_RETRY_SECONDS
        return answer

    def _say(self, kind: Kind, **content: Any) -> None:
        claim, metric = self._claim, self._study.config.metric
        self._emit(
            Event(kind=kind, trial=claim.number, attempt=claim.attempt, control=claim.control, metric=metric, **content)
        )
