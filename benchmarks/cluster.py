"""Kill nodes, launches and the head of a Ray cluster under a study, and read from the database what became of it.

    python benchmarks/cluster.py --nodes 3 --kills 10 --trials 40 --check
    python benchmarks/cluster.py --kills 0 --driver --head --trials 12 --check
    python benchmarks/cluster.py --overhead --trials 24 --rounds 3 --check

A real cluster on this machine: a head without room for workers, and nodes of one CPU, each another host for leases.
They share the folder. A node dies as by a power cut: all its processes get SIGKILL at once, and a new one takes its
place. `--driver` also kills the launch once and starts it again; `--head` kills the head, and the study goes on with
the local engine. The verdict is that of chaos.py. `--overhead` compares the trials an hour of two workers on Ray and
under the local engine, in turn.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from chaos import Verdict, database, goals, install_audit, judge, submit

from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Paths

LEASE_SECONDS = 10.0
MOST_OVERHEAD = 0.05
GRACE_SECONDS = 1800
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "IGKD_HPO_LEASE_SECONDS": str(LEASE_SECONDS),
}


class Nodes:
    """The cluster and its nodes, by the names that leases know them by."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self._made = 0
        self.names: list[str] = []
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """One more."""
        name = f"node-{self._made}"
        self._made += 1
        there = {"IGKD_HPO_HOST": name}
        self._cluster.add_node(num_cpus=1, object_store_memory=100_000_000, env_vars=there, wait=False)
        self.names.append(name)

    def kill(self, name: str) -> None:
        """End all that runs on a node."""
        self.names.remove(name)
        for process in psutil.process_iter():
            try:
                if process.environ().get("IGKD_HPO_HOST") == name:
                    process.kill()
            except psutil.Error:
                continue

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
def cluster(count: int) -> Iterator[Nodes]:
    """A cluster of a head and so many nodes."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        os.environ.update(RAY, RAY_TMPDIR=folder)
        nodes = Nodes(count)
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
    from igkd_hpo.search.lease import Leases

    return [lease.process.host for lease in Leases(study).held() if lease.last_epoch > lease.first_epoch]


def run(options: argparse.Namespace) -> Verdict:
    """A study under kills from its launch to its end."""
    chosen, hits = random.Random(options.seed), Counter[str]()
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        database("postgresql", Path(name)) as (url, _),
        cluster(options.nodes) as nodes,
    ):
        folder = Path(name)
        study = submit(folder, url, trials=options.trials, epochs=options.epochs, pruner="{name: none}")
        install_audit(study.storage)
        on_ray = ("--engine", "ray", "--address", nodes.address, "--workers", str(options.nodes))
        begun, launched, next_kill = time.monotonic(), start(folder, url, *on_ray), 0.0
        try:
            while launched.poll() is None and time.monotonic() < begun + GRACE_SECONDS:
                time.sleep(0.2)
                if time.monotonic() < next_kill or not (there := [h for h in holders(study) if h in nodes.names]):
                    continue
                next_kill = time.monotonic() + options.every
                if hits["node"] < options.kills:
                    nodes.kill(chosen.choice(there))
                    nodes.add()
                    hits["node"] += 1
                elif options.driver and not hits["launch"]:
                    launched.kill()
                    launched.wait()
                    hits["launch"] += 1
                    launched = start(folder, url, *on_ray)
                elif options.head and not hits["head"]:
                    nodes.kill_head()
                    hits["head"] += 1
                    code = launched.wait(GRACE_SECONDS)
                    print(f"the launch left with exit code {code}", file=sys.stderr)
                    launched = start(folder, url, "--workers", "2")
        finally:
            launched.send_signal(signal.SIGTERM)
            launched.wait(60)
        verdict = Verdict(storage="postgresql", seconds=round(time.monotonic() - begun, 1))
        verdict.events, verdict.by_kind = sum(hits.values()), dict(hits)
        judge(verdict, study, Paths(root=folder / "storage"))
        if options.show:
            print((folder / "launch.log").read_text(), file=sys.stderr)
        study.storage.engine.dispose()
        return verdict


@dataclass(kw_only=True)
class Overhead:
    """Trials an hour under each engine, the median of the rounds, from the first claim to the last end."""

    rounds: int
    local: float
    ray: float
    each: list[tuple[str, float]]

    @property
    def share(self) -> float:
        """What Ray takes away, of the local engine's."""
        return 1 - self.ray / self.local


def compare(options: argparse.Namespace) -> Overhead:
    """The same study under each engine, in turn, each time from new workers."""
    each: list[tuple[str, float]] = []
    with cluster(2) as nodes:
        engines = {"local": (), "ray": ("--engine", "ray", "--address", nodes.address)}
        for number in range(options.rounds):
            for engine, flags in sorted(engines.items(), reverse=number % 2 == 1):
                with (
                    tempfile.TemporaryDirectory(prefix="chaos-") as name,
                    database("postgresql", Path(name)) as (url, _),
                ):
                    study = submit(Path(name), url, trials=options.trials, epochs=options.epochs, pruner="{name: none}")
                    start(Path(name), url, "--workers", "2", *flags).wait(GRACE_SECONDS)
                    trials: list[Any] = study.trials()
                    seconds = max(t.datetime_complete for t in trials) - min(t.datetime_start for t in trials)
                    each.append((engine, round(3600 * len(trials) / seconds.total_seconds(), 1)))
                    study.storage.engine.dispose()
    median = {engine: statistics.median(rate for of, rate in each if of == engine) for engine in engines}
    return Overhead(rounds=options.rounds, local=median["local"], ray=median["ray"], each=each)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10, help="of nodes")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two kills")
    parser.add_argument("--driver", action="store_true", help="kill the launch once, after the nodes")
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
        reached = {f"at most {MOST_OVERHEAD:.0%} fewer trials an hour": compared.share <= MOST_OVERHEAD}
        print(json.dumps(asdict(compared) | {"share": round(compared.share, 3), "goals": reached}, indent=2))
    else:
        verdict = run(options)
        wanted = options.kills + options.driver + options.head
        reached = goals(verdict, wanted, 0)
        reached["at most one epoch repeated for each kill"] = verdict.epochs_repeated <= math.ceil(wanted)
        print(json.dumps(asdict(verdict) | {"goals": reached}, indent=2))
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
