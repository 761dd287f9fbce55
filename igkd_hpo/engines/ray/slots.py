"""The slots of a launch on Ray: an actor for each, started again by the rule of all engines, wherever there is room."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import igkd_hpo
from igkd_hpo.engines.engine import SlotState
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.ray.messages import (
    Cluster,
    Launch,
    NodeReport,
    Probe,
    Said,
    States,
    Stopped,
    Told,
    WorkerEnd,
    WorkerPlace,
    WorkerTask,
)
from igkd_hpo.engines.ray.node import look_around
from igkd_hpo.engines.ray.worker_actor import STOP_SECONDS, WorkerActor
from igkd_hpo.engines.restarts import FIRST_RESTART_SECONDS, Restarts, describe_exit
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.errors import ExitCode, first_line
from igkd_hpo.files import make_folder, write_bytes
from igkd_hpo.search.lease import Worker
from igkd_hpo.words import counted

TICK_SECONDS = 0.5
WAIT_SECONDS = 30.0  # an actor for which there is room is up in four, under load in twenty
_PROBE_SECONDS = 120.0
_RESULT_SECONDS = 60.0
_CANNOT_BEGIN = "creation task"  # in Ray's words, where the class cannot be loaded on a node


def living_nodes() -> list[dict[str, Any]]:
    """Return what Ray knows of the nodes that live: it keeps the dead ones, under the same names."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def cluster_reached() -> Cluster:
    """Describe the cluster that this process is connected with."""
    return Cluster(
        ray=ray.__version__,
        python=platform.python_version(),
        nodes=tuple(node["Resources"] for node in living_nodes()),
    )


def probe_nodes(probe: Probe) -> list[NodeReport]:
    """Look around on every node that has room for a worker, side by side."""
    nodes = [node for node in living_nodes() if probe.request.fit(node["Resources"])]
    look: Any = ray.remote(look_around)
    asked = [
        look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            probe.place, igkd_hpo.__version__
        )
        for node in nodes
    ]
    reports = []
    for node, answer in zip(nodes, asked, strict=True):
        host = str(node["NodeManagerHostname"])
        try:
            reports.append(ray.get(answer, timeout=_PROBE_SECONDS))
        except Exception as error:  # Ray raises what the node raised, of any class
            what = _last_line(error)
            reports.append(NodeReport(host=host, fault=f"node {host} cannot run igkd-hpo ({what})"))
    return reports


@dataclass(kw_only=True)
class _Slot:
    """One slot: its actor now, and what was asked of it."""

    slot: Slot
    actor: Any = None
    asked: dict[Any, str] = field(default_factory=dict)  # by reference: place, run, events
    since: float = 0.0
    place: WorkerPlace | None = None
    waits: bool = False
    exit_code: int | None = None
    restarts: Restarts = field(default_factory=Restarts)

    @property
    def phase(self) -> Literal["waiting", "running", "restarting", "done", "down"]:
        if self.exit_code == ExitCode.DONE:
            return "done"
        if self.restarts.given_up:
            return "down"
        if not self.asked:
            return "restarting"
        return "waiting" if self.place is None else "running"


class Slots:
    """Runs the workers of a launch; `look` is called until all have ended, then `stop`."""

    def __init__(self, launch: Launch, say: Callable[[object], None]) -> None:
        self._launch = launch
        self._say = say
        self._sender = ray.get_runtime_context().get_node_id()
        self._slots = [_Slot(slot=slot) for slot in launch.slots]
        for slot in self._slots:
            self._start(slot)

    def look(self) -> None:
        """Wait for something, at most half a second, deal with it, and tell every slot's state."""
        asked = {ref: slot for slot in self._slots for ref in slot.asked}
        if asked:
            ray.wait(list(asked), timeout=TICK_SECONDS)
            ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
            for ref in ready:
                self._hear(asked[ref], ref)
        else:
            time.sleep(TICK_SECONDS)
        now = time.monotonic()
        for slot in self._slots:
            if slot.phase == "restarting" and now >= slot.restarts.at:
                self._start(slot)
        self._tell_waiting(now)
        if any(slot.phase == "done" for slot in self._slots):  # nothing is left, for those without room either
            for slot in self._slots:
                if slot.phase == "waiting":
                    slot.exit_code = ExitCode.DONE
                    self._let_go(slot)
        self._say(States([SlotState(number=slot.slot.number, phase=slot.phase) for slot in self._slots]))

    def stop(self) -> Stopped:
        """End the workers in order, and return those that had to be killed."""
        stopping = {slot.actor.stop.remote(): slot for slot in self._slots if slot.place and slot.actor is not None}
        killed: list[Worker] = []
        if stopping:
            ended, _ = ray.wait(list(stopping), num_returns=len(stopping), timeout=2 * STOP_SECONDS)
            for ref in ended:
                try:
                    worker = ray.get(ref)
                    self._take(stopping[ref], ray.get(stopping[ref].actor.events.remote(), timeout=STOP_SECONDS))
                except RayError:  # the actor has gone, and its worker with it
                    continue
                if worker is not None:
                    killed.append(worker)
        for slot in self._slots:
            self._let_go(slot)
        return Stopped(killed)

    def _start(self, slot: _Slot) -> None:
        slot.exit_code = None
        if slot.actor is not None:
            self._ask(slot, "run")
            return
        task = WorkerTask(
            study=self._launch.study,
            study_folder=self._launch.study_folder,
            place=self._launch.place,
            slot=slot.slot,
            sender=self._sender,
            sender_root=self._launch.place.settings.paths.assets,
        )
        request = self._launch.request
        # Not started again by Ray: it would call `run` without a pause, and nobody would be told.
        options = {"max_restarts": 0, "max_concurrency": 4, "num_cpus": request.cpus, "num_gpus": request.gpus}
        made: Any = ray.remote(WorkerActor)
        slot.actor = made.options(**options, memory=request.memory, scheduling_strategy="SPREAD").remote(task)
        slot.place, slot.waits, slot.since = None, False, time.monotonic()
        slot.asked[slot.actor.place.remote(igkd_hpo.__version__)] = "place"

    def _ask(self, slot: _Slot, *methods: str) -> None:
        for method in methods:
            slot.asked[getattr(slot.actor, method).remote()] = method
        if "run" in methods:
            slot.asked[slot.actor.events.remote()] = "events"

    def _hear(self, slot: _Slot, ref: Any) -> None:
        what = slot.asked.pop(ref, None)
        if what is None:  # of an actor that was found dead a moment ago
            return
        try:
            answer = ray.get(ref)
            if what == "place":
                self._arrive(slot, answer)
            elif what == "events":
                self._take(slot, answer)
                if "run" in slot.asked.values():
                    self._ask(slot, "events")
            else:
                for other in [other for other, kind in slot.asked.items() if kind == "events"]:
                    self._take(slot, ray.get(other))
                self._take(slot, ray.get(slot.actor.events.remote()))
                slot.asked.clear()
                self._end(slot, answer)
        except RayActorError as error:
            self._lose(slot, error)
        except RayError as error:
            self._let_go(slot)
            self._die(slot, first_line(error), "Ray's dashboard")

    def _arrive(self, slot: _Slot, place: WorkerPlace) -> None:
        slot.place = place
        if place.fault is not None:
            self._let_go(slot)
            self._die(slot, place.fault, "that node")
        else:
            self._ask(slot, "run")

    def _take(self, slot: _Slot, said: list[Event | str]) -> None:
        for one in said:
            if isinstance(one, str):
                self._say(Said(one))
                continue
            if one.kind in {"complete", "pruned"}:
                slot.restarts.finished_a_trial()
                if slot.place is not None and not slot.place.shared:
                    self._bring_home(slot, one)
            self._say(Told(slot.slot.number, one))

    def _bring_home(self, slot: _Slot, event: Event) -> None:
        """Fetch what a trial leaves on a node that shares no folder: confirm, export and dashboard look for it here."""
        root = self._launch.place.settings.paths.root
        try:
            answer = slot.actor.results.remote(event.trial, event.attempt)
            for name, content in ray.get(answer, timeout=_RESULT_SECONDS).items():
                make_folder((root / name).parent)
                write_bytes(root / name, content)
        except (RayError, OSError) as error:
            host = slot.place.host if slot.place else "its node"
            self._say(Said(f"weights and pictures of trial {event.trial} stay on {host}: {_last_line(error)}"))

    def _end(self, slot: _Slot, end: WorkerEnd) -> None:
        slot.exit_code = end.exit_code
        if end.exit_code == ExitCode.DONE:
            self._let_go(slot)
            return
        how = describe_exit(end.exit_code)
        self._die(slot, f"{how}: {end.why}" if end.why else how, end.where)

    def _lose(self, slot: _Slot, error: RayActorError) -> None:
        """Note that an actor has gone: with its node, or alone. That is no fault of the worker, and not counted."""
        place = slot.place
        self._let_go(slot)
        if place is None and _CANNOT_BEGIN in str(error):
            self._die(slot, _last_line(error), "Ray's dashboard")
            return
        if place is not None:  # else Ray placed it on a node that had just died
            self._say(Said(f"worker {slot.slot.number} on {place.host} is gone; it starts again where there is room"))
        slot.restarts.at = time.monotonic() + FIRST_RESTART_SECONDS

    def _die(self, slot: _Slot, how: str, where: str) -> None:
        self._say(Said(slot.restarts.died(slot.slot.number, how, where, now=time.monotonic())))
        if slot.restarts.given_up:
            self._let_go(slot)

    def _let_go(self, slot: _Slot) -> None:
        slot.asked.clear()
        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.actor = slot.place = None

    def _tell_waiting(self, now: float) -> None:
        """Say which workers have waited for some time, for Ray itself says nothing."""
        new = [s for s in self._slots if s.phase == "waiting" and not s.waits and now - s.since >= WAIT_SECONDS]
        for slot in new:
            slot.waits = True
            self._say(Told(slot.slot.number, Event(kind="waiting")))
        if new:
            waiting = sum(slot.waits and slot.phase == "waiting" for slot in self._slots)
            verb = "waits" if waiting == 1 else "wait"
            self._say(Said(f"{counted(waiting, 'worker')} {verb} for room in the cluster: {self._launch.request} each"))


def _last_line(error: BaseException) -> str:
    """Return the last line of a text, where Ray puts what a node raised; else the error's class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
