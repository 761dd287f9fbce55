"""Kill nodes, launches and the head of a Ray cluster under a study, and read from the database what became of it.

    python benchmarks/cluster.py --nodes 3 --kills 10 --trials 40 --check
    python benchmarks/cluster.py --kills 0 --actors 2 --databases 2 --interrupts 1 --driver --head --trials 12 --check
    python benchmarks/cluster.py --nodes 2 --kills 0 --cut 30 --driver --trials 8 --check   # as root
    python benchmarks/cluster.py --overhead --trials 24 --rounds 3 --check

A real cluster on this machine: a head without room for workers, and nodes of one CPU, each another host for leases.
They share the folder. A node dies as by a power cut: all its processes get SIGKILL at once, and a new one takes its
place. Then, as asked for: actors are killed, PostgreSQL crashes and starts again, the launch is interrupted as by
Ctrl-C, the network of one node is cut, the launch is killed, the head is killed and the study goes on with the local
engine. The verdict is that of chaos.py. `--overhead` compares two workers on Ray and under the local engine, in turn:
trials an hour, and the CPU time of each, which other programs on the same cores change less; needs root.
"""

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from chaos import Verdict, database, goals, install_audit, judge, submit

from igkd_hpo.search.lease import Leases
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Paths

LEASE_SECONDS = 10.0
MOST_OVERHEAD = 0.05
GRACE_SECONDS = 1800
KINDS = ("node", "actor", "database", "interrupt", "cut", "launch", "head")  # in this order
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",  # not Ray's 15: under the local engine trials have 0, and so has all else that runs
    "IGKD_HPO_LEASE_SECONDS": str(LEASE_SECONDS),
}


class Network:
    """A network namespace on a bridge: what runs in it is a machine with a cable that can be pulled. Needs root."""

    HERE, THERE = "10.201.77.1", "10.201.77.2"
    _NAME, _BRIDGE, _PORT = "igkd-cut", "igkd-bridge", "igkd-port"

    def __init__(self) -> None:
        self.remove()
        for words in (
            f"link add {self._BRIDGE} type bridge",
            f"addr add {self.HERE}/24 dev {self._BRIDGE}",
            f"link set {self._BRIDGE} up",
            f"netns add {self._NAME}",
            f"link add {self._PORT} type veth peer name eth0 netns {self._NAME}",
            f"link set {self._PORT} master {self._BRIDGE} up",
            f"-n {self._NAME} addr add {self.THERE}/24 dev eth0",
            f"-n {self._NAME} link set eth0 up",
            f"-n {self._NAME} link set lo up",
        ):
            subprocess.run(["ip", *words.split()], check=True)

    def inside(self, *command: str) -> list[str]:
        """A command as it runs in there."""
        return ["ip", "netns", "exec", self._NAME, *command]

    def plug(self, how: str) -> None:
        """Put the cable in, `up`, or pull it, `down`: no packet passes, and nobody is told."""
        subprocess.run(["ip", "link", "set", self._PORT, how], check=True)

    def remove(self) -> None:
        """All of it, where it is there."""
        for words in (f"netns del {self._NAME}", f"link del {self._PORT}", f"link del {self._BRIDGE}"):
            subprocess.run(["ip", *words.split()], check=False, stderr=subprocess.DEVNULL)


class Nodes:
    """The cluster and its nodes, by the names that leases know them by."""

    def __init__(self, count: int, folder: Path, network: Network | None) -> None:
        from ray.cluster_utils import Cluster

        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        self._at = {"node_ip_address": network.HERE} if network else {}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | self._at)
        self.address = self._cluster.address
        self._made = 0
        self.names: list[str] = []
        for _ in range(count - bool(network)):
            self.add()
        if network is not None:
            self._add_inside(network, folder)

    def add(self) -> None:
        """One more."""
        there = {"IGKD_HPO_HOST": self._name()}
        memory = {"object_store_memory": 100_000_000}
        self._cluster.add_node(num_cpus=1, env_vars=there, wait=False, **memory, **self._at)

    def _add_inside(self, network: Network, folder: Path) -> None:
        """One whose network can be cut; its sockets and notes are not seen from outside, nor others' by it."""
        own = folder.with_name(f"{folder.name}-inside")
        own.mkdir()
        start = f"ray start --address={self.address} --node-ip-address={network.THERE} --num-cpus=1 --block"
        hidden = f"mount --bind {own} {folder} && exec {sys.executable} -m ray.scripts.scripts {start[4:]}"
        with (own / "start.log").open("wb") as log:
            subprocess.Popen(
                network.inside("sh", "-c", f"{hidden} --object-store-memory=100000000"), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=os.environ | {"IGKD_HPO_HOST": self._name()}, start_new_session=True,
            )  # fmt: skip

    def _name(self) -> str:
        self.names.append(f"node-{os.getpid()}-{self._made}")  # not that of another cluster here: nodes die by name
        self._made += 1
        return self.names[-1]

    def processes(self, name: str, words: str = "") -> list[psutil.Process]:
        """All that runs on a node, whoever started it, or what has these words in its arguments."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("IGKD_HPO_HOST") == name and words in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self, name: str) -> None:
        """End all that runs on a node."""
        self.names.remove(name)
        for process in self.processes(name):
            process.kill()

    def kill_actor(self, name: str) -> None:
        """End one actor of a node, as the kernel does when memory runs out."""
        self.processes(name, "ray::WorkerActor")[0].kill()

    def kill_head(self) -> None:
        """End what knows the cluster."""
        self._cluster.head_node.kill_gcs_server()
        self._cluster.head_node.kill_raylet()

    def end(self) -> None:
        """End everything."""
        for name in list(self.names):
            self.kill(name)
        self._cluster.shutdown()


@contextmanager
def cluster(count: int, network: Network | None = None) -> Iterator[Nodes]:
    """A cluster of a head and so many nodes, the last of them in a network of its own."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        os.environ.update(RAY, RAY_TMPDIR=f"{folder}/r")
        (Path(folder) / "r").mkdir()
        nodes = Nodes(count, Path(folder) / "r", network)
        try:
            yield nodes
        finally:
            nodes.end()


def start(folder: Path, url: str, *engine: str) -> subprocess.Popen[bytes]:
    """A launch of the study, with its output in a log."""
    with (folder / "launch.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "igkd_hpo", "launch", "chaos.yaml", "--device", "cpu", *engine],
            cwd=folder, env=os.environ | {"IGKD_HPO_STORAGE": url}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def holders(study: SearchStudy) -> list[str]:
    """The hosts that hold a trial with an epoch of this attempt."""
    return [lease.process.host for lease in Leases(study).held() if lease.last_epoch > lease.first_epoch]


def until(reached: Callable[[], bool], seconds: float = 240) -> float:
    """How many seconds it takes until something holds; infinite where it does not in time."""
    begun = time.monotonic()
    while not reached():
        time.sleep(0.3)
        if time.monotonic() > begun + seconds:
            return math.inf
    return round(time.monotonic() - begun, 1)


class Blows:
    """What a study goes through, and what was seen of it."""

    def __init__(
        self, folder: Path, url: str, restart: Callable[[], None] | None, study: SearchStudy, nodes: Nodes,
        network: Network | None, cut_seconds: float,
    ) -> None:  # fmt: skip
        self._folder, self._url, self._restart = folder, url, restart
        self._study, self._nodes, self._network, self._cut_seconds = study, nodes, network, cut_seconds
        self._on_ray = ("--engine", "ray", "--address", nodes.address, "--workers", str(len(nodes.names)))
        self.hits, self.seen = Counter[str](), {}
        self.launched = start(folder, url, *self._on_ray)

    def strike(self, kind: str, victim: str) -> None:
        """One blow, to a node that holds a trial or to what stands behind it."""
        self.hits[kind] += 1
        match kind:
            case "node":
                self._nodes.kill(victim)
                self._nodes.add()
            case "actor":
                self._nodes.kill_actor(victim)
            case "database":
                assert self._restart is not None
                self._restart()
            case "interrupt":
                attempts = self._in_vain()
                self.launched.send_signal(signal.SIGINT)
                self.seen["no lease after an interrupt, seconds"] = until(lambda: not Leases(self._study).held())
                self.launched.wait(60)
                self.seen["exit code after an interrupt"] = self.launched.returncode
                self.seen["attempts counted by an interrupt"] = self._in_vain() - attempts
                self._again(*self._on_ray)
            case "cut":
                self._cut(self._nodes.names[-1])
            case "launch":
                self.launched.kill()
                self.launched.wait()
                self._again(*self._on_ray)
            case "head":
                self._nodes.kill_head()
                self.seen["exit code without a head"] = self.launched.wait(GRACE_SECONDS)
                self._again("--workers", "2")

    def _cut(self, name: str) -> None:
        assert self._network is not None
        begun = time.monotonic()

        def works() -> bool:
            return bool(self._nodes.processes(name, "worker_main"))

        self._network.plug("down")
        self.seen["lease of the cut node gone, seconds after the cut"] = until(
            lambda: name not in [lease.process.host for lease in Leases(self._study).held()]
        )
        until(lambda: not works(), self._cut_seconds - (time.monotonic() - begun))
        self.seen["workers left on the cut node when the cut ended"] = works()
        self.seen["seconds of the cut"] = round(time.monotonic() - begun, 1)
        self._network.plug("up")
        self.seen["no worker there, seconds later"] = until(lambda: not works())
        self.seen["no process there, seconds later"] = until(lambda: not self._nodes.processes(name))

    def _again(self, *engine: str) -> None:
        self.launched = start(self._folder, self._url, *engine)

    def _in_vain(self) -> int:
        return sum(trial.user_attrs.get("attempts_without_progress", 0) for trial in self._study.trials())


def run(options: argparse.Namespace) -> tuple[Verdict, dict[str, float]]:
    """A study under kills from its launch to its end."""
    chosen = random.Random(options.seed)
    coming = [kind for kind in KINDS for _ in range(bool(options.cut) if kind == "cut" else getattr(options, kind))]
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        ExitStack() as stack,
    ):
        network = None
        if options.cut:
            network = Network()
            stack.callback(network.remove)
        host = network.HERE if network else None
        url, restart = stack.enter_context(database("postgresql", Path(name), host=host))
        nodes = stack.enter_context(cluster(options.nodes, network))
        folder = Path(name)
        study = submit(folder, url, trials=options.trials, epochs=options.epochs, pruner="{name: none}")
        install_audit(study.storage)
        begun, next_blow = time.monotonic(), 0.0
        blows = Blows(folder, url, restart, study, nodes, network, options.cut or 0)
        try:
            while blows.launched.poll() is None and time.monotonic() < begun + GRACE_SECONDS:
                time.sleep(0.2)
                if time.monotonic() < next_blow or not coming:
                    continue
                there = [host for host in holders(study) if host in nodes.names]
                if coming[0] == "cut":
                    there = [host for host in there if host == nodes.names[-1]]
                if there:
                    blows.strike(coming.pop(0), chosen.choice(there))
                    next_blow = time.monotonic() + options.every
        finally:
            blows.launched.send_signal(signal.SIGTERM)
            blows.launched.wait(60)
        verdict = Verdict(storage="postgresql", seconds=round(time.monotonic() - begun, 1))
        verdict.events, verdict.by_kind = sum(blows.hits.values()), dict(blows.hits)
        judge(verdict, study, Paths(root=folder / "storage"))
        if options.show:
            print((folder / "launch.log").read_text(), file=sys.stderr)
        study.storage.engine.dispose()
        return verdict, blows.seen


class Group:
    """Processes whose CPU time is counted, those included that have ended: a control group, which root may make."""

    def __init__(self, name: str) -> None:
        mounted = Path("/sys/fs/cgroup")
        self._above = mounted / "cpuacct" if (mounted / "cpuacct").is_dir() else mounted
        self._folder = self._above / f"igkd-{name}"
        self._folder.mkdir(exist_ok=True)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Let what is started meanwhile belong to it."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._above / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def seconds(self) -> float:
        """Of a CPU, that its processes took until now."""
        if (nanoseconds := self._folder / "cpuacct.usage").exists():
            return int(nanoseconds.read_text()) / 1e9
        counts = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(counts["usage_usec"]) / 1e6


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One study under one engine, from its first claim to its last end, without starts.

    Args:
        rate: trials an hour.
        cpu: seconds of a CPU for each trial, of all that the engine runs.
    """

    engine: str
    rate: float
    cpu: float


@dataclass(kw_only=True)
class Overhead:
    """What Ray takes away: a share of the local engine's trials an hour, and adds: a share of its CPU time."""

    fewer_trials: float
    more_cpu: float
    each: list[Pace]


def compare(options: argparse.Namespace) -> Overhead:
    """The same study under each engine, in turn, each time from new workers. Needs root."""
    each: list[Pace] = []
    local, nodes_group = Group("local"), Group("nodes")
    with ExitStack() as stack:
        with nodes_group.gathering():
            nodes = stack.enter_context(cluster(2))
        engines = {"local": (), "ray": ("--engine", "ray", "--address", nodes.address)}
        for number in range(options.rounds):
            for engine, flags in sorted(engines.items(), reverse=number % 2 == 1):
                groups = [local] if engine == "local" else [local, nodes_group]
                each.append(measure(options, engine, flags, local, groups))
                print(each[-1], file=sys.stderr, flush=True)
    of = {
        (engine, what): statistics.median(getattr(pace, what) for pace in each if pace.engine == engine)
        for engine in engines
        for what in ("rate", "cpu")
    }
    return Overhead(
        fewer_trials=round(1 - of["ray", "rate"] / of["local", "rate"], 3),
        more_cpu=round(of["ray", "cpu"] / of["local", "cpu"] - 1, 3),
        each=each,
    )


def measure(
    options: argparse.Namespace, engine: str, flags: tuple[str, ...], started_in: Group, groups: list[Group]
) -> Pace:
    """One study to its end."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        database("postgresql", Path(name)) as (url, _),
    ):
        study = submit(Path(name), url, trials=options.trials, epochs=options.epochs, pruner="{name: none}")
        with started_in.gathering():
            launched = start(Path(name), url, "--workers", "2", *flags)
        until(lambda: len(study.trials()) > 0)
        before = sum(group.seconds for group in groups)
        until(lambda: launched.poll() is not None or study.counts().finished == options.trials, GRACE_SECONDS)
        cpu = sum(group.seconds for group in groups) - before
        launched.wait(60)
        trials: list[Any] = study.trials()
        seconds = max(t.datetime_complete for t in trials) - min(t.datetime_start for t in trials)
        study.storage.engine.dispose()
        rate = 3600 * len(trials) / seconds.total_seconds()
        return Pace(engine=engine, rate=round(rate, 1), cpu=round(cpu / len(trials), 2))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", dest="node", type=int, default=10, help="of nodes")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two blows")
    parser.add_argument("--actors", dest="actor", type=int, default=0, help="that are killed")
    parser.add_argument("--databases", dest="database", type=int, default=0, help="crashes of PostgreSQL")
    parser.add_argument("--interrupts", dest="interrupt", type=int, default=0, help="of the launch, as by Ctrl-C")
    parser.add_argument(
        "--cut", type=float, help="for so many seconds the network of the last node, or until its workers left; as root"
    )
    parser.add_argument("--driver", dest="launch", action="store_true", help="kill the launch once, near the end")
    parser.add_argument("--head", action="store_true", help="kill the head last")
    parser.add_argument("--overhead", action="store_true", help="compare engines instead")
    parser.add_argument("--rounds", type=int, default=3, help="of each engine")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of victims")
    parser.add_argument("--show", action="store_true", help="print what the launches said")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    if options.overhead:
        compared = compare(options)
        reached = {
            f"at most {MOST_OVERHEAD:.0%} fewer trials an hour": compared.fewer_trials <= MOST_OVERHEAD,
            f"at most {MOST_OVERHEAD:.0%} more CPU time for each trial": compared.more_cpu <= MOST_OVERHEAD,
        }
        print(json.dumps(asdict(compared) | {"goals": reached}, indent=2))
    else:
        verdict, seen = run(options)
        wanted = sum(bool(options.cut) if kind == "cut" else getattr(options, kind) for kind in KINDS)
        reached = goals(verdict, wanted, 0)
        reached["at most one epoch repeated for each kill"] = verdict.epochs_repeated <= math.ceil(wanted)
        print(json.dumps(asdict(verdict) | {"seen": seen, "goals": reached}, indent=2))
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
