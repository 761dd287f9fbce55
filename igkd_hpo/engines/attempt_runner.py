"""One attempt at a claimed trial: its process is started and heard, and the database told, until the attempt ends."""

import base64
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeVar

from igkd_hpo.config.cost import StudentCost, architecture
from igkd_hpo.config.space import Value
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local.trial_process import Attempt
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.engines.stall import StepWatch
from igkd_hpo.errors import StorageError
from igkd_hpo.search.artifacts import upload_trial_pictures
from igkd_hpo.search.lease import Claim, Leases, Verdict
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.pictures import draw_curve
from igkd_hpo.trial.task import TrialTask

BEAT_SECONDS = 4.0  # `stop --now` ends what runs within this time and a moment
BEATS_PER_LEASE = 6  # at least: five beats may be missed
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
KILLED_FOR_MEMORY = "the trial process was ended by SIGKILL, probably by the kernel, which was out of memory"

_Answer = TypeVar("_Answer")

Costs = dict[tuple[Value, ...], StudentCost]
"""What a worker knows of students by their architecture: a third of a second to measure, the same for every trial."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where a worker trains.

    Args:
        number: from 0 on this host; spreads workers over GPUs.
        device: auto, cpu, cuda or cuda:N.
        threads: for torch in each trial process.
    """

    number: int
    device: str
    threads: int


class AttemptRun:
    """One claimed trial from the start of its process to the word that the database has of its end."""

    def __init__(
        self,
        claim: Claim,
        leases: Leases,
        study: SearchStudy,
        settings: Settings,
        slot: Slot,
        *,
        emit: Callable[[Event], None],
        stop: StopSignal,
        costs: Costs,
    ) -> None:
        self._claim = claim
        self._leases = leases
        self._study = study
        self._paths = settings.paths
        self._slot = slot
        self._emit = emit
        self._stop = stop
        self._costs = costs
        self._beat_seconds = min(BEAT_SECONDS, settings.lease_seconds / BEATS_PER_LEASE)
        self._watch = self._new_watch()
        self._device: str | None = None
        self._pending: deque[dict[str, Any]] = deque()
        self._attributes: dict[str, Any] = {}
        self._speeds: list[float] = []
        self._curve: list[tuple[int, float]] = []
        self._overlays: bytes | None = None
        self._newest_epoch = max(claim.reported_epochs, default=0)
        self._retry_at = 0.0
        self._noted = False
        self._retry = FIRST_RETRY_SECONDS
        self._task = TrialTask(
            study=study.config.model_dump_json(),
            number=claim.number,
            attempt=claim.attempt,
            hyperparameters=claim.hyperparameters,
            seed=claim.seed,
            device=slot.device,
            slot=slot.number,
            threads=slot.threads,
            alone=claim.out_of_memory > 0,
            settings=settings,
            cost=costs.get(architecture(claim.hyperparameters)),
            pins=study.pins_when_opened,
        )

    def run(self) -> None:
        """Start the process, pass on what it says, and end the attempt in the database."""
        self._say("claimed", device=self._slot.device)
        attempt = Attempt(self._task)
        try:
            self._serve(attempt)
        finally:
            attempt.close()

    def _serve(self, attempt: Attempt) -> None:
        next_beat = time.monotonic() + self._beat_seconds
        while True:
            now = time.monotonic()
            due = max(0.0, (self._retry_at if self._pending else next_beat) - now)
            wait([*attempt.waitables(), self._stop.descriptor], min(due, max(0.0, next_beat - now)))
            if self._stop.received is not None:
                attempt.close()
                self._give_back("stopped", counted=False)
                return
            self._hear(attempt)
            if not self._noted and not self._note_process(attempt):
                self._lost()
                return
            if attempt.killed_for_memory and not self._pending:
                # On a GPU it is another memory that is short.
                alone = self._task.alone and self._device == "cpu"
                self._pending.append({"kind": "out_of_memory", "text": KILLED_FOR_MEMORY, "too_large": alone})
            elif attempt.ended and not self._pending:
                self._give_back(attempt.how_it_ended(), counted=True)
                return
            if not attempt.ended and (reason := self._watch.hung()) is not None:
                attempt.close()
                self._give_back(f"the trial process hangs: {reason}", counted=True)
                return
            if self._pending and time.monotonic() >= self._retry_at and self._flush(attempt):
                return
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + self._beat_seconds
                if self._beat(attempt):
                    return

    def _note_process(self, attempt: Attempt) -> bool:
        """Once it has begun, write into the lease which process it is; False when the lease is lost."""
        identity = attempt.identity
        if identity is None:
            return True
        self._noted = True
        return self._try(lambda: self._leases.started(self._claim, identity, self._slot.device)) is not False

    def _hear(self, attempt: Attempt) -> None:
        for message in attempt.messages():
            if message["kind"] == "steps":
                self._watch.steps(message["done"])
            elif message["kind"] == "waiting":
                self._watch = self._new_watch()
                self._emit(Event(kind="waiting"))
            else:
                self._pending.append(message)

    def _beat(self, attempt: Attempt) -> bool:
        """Show life to the database and to the supervisor; True when the answer ended the attempt."""
        self._emit(Event(kind="alive"))
        verdict = self._try(lambda: self._leases.beat(self._claim, last_epoch=self._newest_epoch))
        for reaped in self._leases.take_reaped():
            self._emit(Event(kind="reaped", reason=str(reaped)))
        match verdict:
            case Verdict.LOST:
                self._lost()
            case Verdict.STOP:
                attempt.close()
                self._give_back("the study was stopped", counted=False)
            case _:
                return False
        return True

    def _flush(self, attempt: Attempt) -> bool:
        """Pass on what has arrived, in order; True when that ended the attempt. What the database refuses stays."""
        while self._pending:
            try:
                ended = self._pass_on(self._pending[0], attempt)
            except StorageError as error:
                self._emit(Event(kind="storage", reason=str(error)))
                self._retry_at = time.monotonic() + self._retry
                self._retry = min(2 * self._retry, LAST_RETRY_SECONDS)
                return False
            self._retry = FIRST_RETRY_SECONDS
            self._pending.popleft()
            if ended:
                return True
        return False

    def _pass_on(self, message: dict[str, Any], attempt: Attempt) -> bool:
        claim = self._claim
        if "cost" in message:
            self._costs[architecture(claim.hyperparameters)] = StudentCost(**message["cost"])
        match message["kind"]:
            case "ready":
                facts = {key: message[key] for key in ("pid", "device", "execution")}
                self._leases.annotate(claim, facts | message["cost"], excess=message["excess"])
                self._device = message["device"]
                if message["overlays"] is not None:
                    self._overlays = base64.b64decode(message["overlays"])
                self._say("claimed", device=message["device"])
            case "infeasible":
                reason = f"not trained: {message['reason']}"
                self._leases.annotate(claim, message["cost"], excess=message["excess"])
                told = self._leases.prune(claim, reason, {})
                self._end("pruned" if told else "lost", reason=reason)
                return True
            case "epoch":
                return self._epoch(message, attempt)
            case "result":
                self._upload_pictures()
                told = self._leases.complete(claim, message["accuracy"], self._attributes)
                self._end("complete" if told else "lost", accuracy=message["accuracy"])
                return True
            case "prune":
                self._upload_pictures()
                reason = self._leases.why_pruned(claim)
                told = self._leases.prune(claim, reason, self._attributes)
                self._end(
                    "pruned" if told else "lost", epoch=message["epoch"], accuracy=message["accuracy"], reason=reason
                )
                return True
            case "non_finite":
                attempt.close()
                reason = f"the loss was not finite in epoch {message['epoch']}"
                told = self._leases.prune(claim, reason, self._attributes)
                self._end("pruned" if told else "lost", reason=reason)
                return True
            case "out_of_memory":
                attempt.close()
                self._out_of_memory(message["text"], too_large=message["too_large"])
                return True
            case "error":
                attributes = self._attributes | {"error": message["traceback"] or message["text"]}
                told = self._leases.fail(claim, message["text"], attributes)
                self._end("fail" if told else "lost", reason=message["text"])
                return True
        return False

    def _epoch(self, message: dict[str, Any], attempt: Attempt) -> bool:
        claim, epoch, accuracy = self._claim, message["epoch"], message["validation_accuracy"]
        verdict = self._leases.report(claim, epoch=epoch, accuracy=accuracy)
        self._newest_epoch = max(self._newest_epoch, epoch)
        self._speeds.append(message["images_per_second"])
        self._curve.append((epoch, accuracy))
        self._attributes = {
            "images_per_second": round(sum(self._speeds) / len(self._speeds), 1),
            "validation_loss": message["validation_loss"],
            "train_loss": message["train_loss"],
        }
        if verdict is Verdict.LOST:
            attempt.close()
            self._lost()
            return True
        if verdict is Verdict.PRUNE and epoch < self._study.config.training.epochs:
            attempt.close()
            # Asked again after an outage, a pruner may answer otherwise: from here on only the telling is repeated.
            self._pending[0] = {"kind": "prune", "epoch": epoch, "accuracy": accuracy}
            return self._pass_on(self._pending[0], attempt)
        process, on_device, device_total = message.get("memory", (None, None, None))
        self._say(
            "epoch",
            epoch=epoch,
            accuracy=accuracy,
            images_per_second=message["images_per_second"],
            memory=process,
            device_memory=on_device,
            device_memory_total=device_total,
        )
        return False

    def _out_of_memory(self, text: str, *, too_large: bool) -> None:
        """The first time, the trial waits to be alone on a device. There, without an epoch, it is beyond a limit."""
        claim = self._claim
        facts = {"out_of_memory": claim.out_of_memory + 1}
        if too_large and not self._gained:
            reason = f"too large: out of memory with the device to itself: {text}"
            self._leases.annotate(claim, facts, excess={"memory": 1.0})  # by how much is not known
            told = self._leases.prune(claim, reason, self._attributes)
            self._end("pruned" if told else "lost", reason=reason)
        else:
            self._leases.annotate(claim, facts)
            self._give_back(f"out of memory, and runs alone next: {text}", counted=self._task.alone)

    def _upload_pictures(self) -> None:
        """For the dashboard. Pictures that cannot be written are said and left out: the trial's result matters more."""
        title = f"trial {self._claim.number}" + (f", control {self._claim.control}" if self._claim.control else "")
        curve = draw_curve(self._curve, title, epochs=self._study.config.training.epochs)
        pictures = {"learning curve.png": curve}
        if self._overlays is not None:
            pictures["overlays.png"] = self._overlays
        try:
            with self._leases.holding(self._claim) as held:
                if held:  # else another attempt has the trial
                    upload_trial_pictures(self._study.storage, self._claim.trial_id, self._paths, pictures)
        except OSError as error:
            _log.warning("the pictures of trial %d are left out: %s", self._claim.number, error)

    def _give_back(self, reason: str, *, counted: bool) -> None:
        """Try until the database has it: a worker that goes on must not keep a lease. After a signal one try is enough,
        for a worker that is gone holds nothing.
        """
        while (
            self._try(lambda: self._leases.give_back(self._claim, reason, counted=counted, epochs_gained=self._gained))
            is None
            and self._stop.received is None
        ):
            wait([self._stop.descriptor], self._retry)
            self._retry = min(2 * self._retry, LAST_RETRY_SECONDS)
        self._say("given_back", reason=reason)

    @property
    def _gained(self) -> bool:
        return self._newest_epoch > max(self._claim.reported_epochs, default=0)

    def _new_watch(self) -> StepWatch:
        return StepWatch(longest_look=2 * self._beat_seconds)

    def _lost(self) -> None:
        self._say("lost", reason="the lease is gone: another worker has or had the trial")

    def _end(self, kind: Any, **content: Any) -> None:
        self._say(kind, **content)
        folder = self._paths.trial_checkpoints(self._study.name, self._claim.number)
        if kind == "pruned":
            shutil.rmtree(folder, ignore_errors=True)
        elif kind == "complete":
            kept = self._paths.checkpoint(self._study.name, self._claim.number, self._claim.attempt)
            for path in folder.iterdir():  # other attempts, and what one that was killed had half written
                if path != kept and kept.exists():
                    path.unlink(missing_ok=True)

    def _try(self, call: Callable[[], _Answer]) -> _Answer | None:
        """What the call says; None when the database is away, which a lease survives."""
        try:
            return call()
        except StorageError as error:
            self._emit(Event(kind="storage", reason=str(error)))
            return None

    def _say(self, kind: Any, **content: Any) -> None:
        claim = self._claim
        self._emit(Event(kind=kind, trial=claim.number, attempt=claim.attempt, control=claim.control, **content))
