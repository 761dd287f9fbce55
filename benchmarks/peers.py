"""One and the same search, from nothing to its winner: `igkd-hpo launch`, and by hand with Optuna, Ray Tune, Syne Tune.

    python benchmarks/peers.py --check                       # in about an hour on two idle cores
    python benchmarks/peers.py --rounds 1 --killed 0 --trials 4 --epochs 2 --teacher-epochs 2 --seeds 1   # a try
    python benchmarks/peers.py --sides ours optuna --folder peers        # the same command goes on where it stopped

What a user would write is in `by_hand/`: the same images, student, teacher, settings to search, number of trials,
epochs and processes, each with one thread of torch. A round is each side once, in another order each time. Every side
begins with an empty folder: it trains its teacher and makes its maps. Its time ends with the name of its winner.

In rounds with a kill the process that trains a trial gets SIGKILL, once a quarter of all epochs were trained; so does
the kernel where memory runs out. *Lost* are trials without a result at the end. *In vain* are epochs of an attempt
that was killed, without those that another attempt could go on from.

Then the winners' settings of each round, whose accuracy is partly luck, are trained anew with fresh seeds by one and
the same code, ours, with the teacher of our side, and looked at on the test split. Accuracies of sides can be compared
with these alone. A peer that is not installed is left out, with a line that says so.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it

import psutil
import yaml
from by_hand.distil import GRACE
from chaos import read_journal

from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.reading import read_study
from igkd_hpo.confirmation.statistics import contrasts, t_interval
from igkd_hpo.distillation.device import processor
from igkd_hpo.errors import IgkdError
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, find_study
from igkd_hpo.settings import Paths, Settings

BY_HAND = Path(__file__).parent / "by_hand"
GOAL = 0.5  # of the time of a peer that we are measured by
GOAL_PEERS = ("optuna", "ray")
NEEDS = {"ray": ("ray", "pandas", "pyarrow"), "syne": ("syne_tune", "statsmodels")}
SAYS = {"ours": "igkd-hpo launch", "optuna": "plain Optuna", "ray": "Ray Tune", "syne": "Syne Tune"}
FRESH_SEED = 100_000  # the first of those that no search uses
TEST_IMAGES = 360
LOOK_SECONDS = 0.5
KILL_SECONDS = 2.0  # between looks for whom to kill, which read our side's database
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search of one side.

    Args:
        killed: whether a process that trained got SIGKILL.
        seconds: from nothing to the winner.
        prepared: of them, until teacher and maps were there.
        cpu_seconds: of all its processes, looked at again and again.
        ended, lost: trials with a result, and without.
        epochs: that were trained; `in_vain` of them by the attempt that was killed.
        accuracy: the winner's on validation, which it was chosen by.
        settings: the winner's.
        load: of the machine, the mean of the minute at its end.
    """

    side: str
    round: int
    killed: bool
    seconds: float
    prepared: float
    cpu_seconds: float
    ended: int
    lost: int
    epochs: int
    in_vain: int
    accuracy: float
    settings: dict[str, float]
    load: float


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A winner's settings, trained anew with another seed: its accuracy on test, a fraction; 0 where it diverged."""

    side: str
    round: int
    seed: int
    accuracy: float


class Trained(NamedTuple):
    """A process that trains, and the epochs that its trial has."""

    pid: int
    epoch: int


Look = Callable[[Path], tuple[int, list[Trained]]]


class Watch:
    """CPU seconds of a process and of all that it ever started, those that left it included."""

    def __init__(self, root: int) -> None:
        self._ticks = {root: 0}

    def look(self) -> None:
        """Read all clocks; what a process does after the last look is not counted."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has left
                continue
            if (pid := int(folder.name)) in self._ticks or int(fields[1]) in self._ticks:
                self._ticks[pid] = int(fields[11]) + int(fields[12])

    @property
    def seconds(self) -> float:
        """The sum."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")


def study_file(options: argparse.Namespace, seed: int) -> str:
    """Our side: what the scripts of the peers have in code."""
    document = yaml.safe_load((BY_HAND / "study.yaml").read_text(encoding="utf-8"))
    document["n_trials"] = options.trials
    document["training"] |= {"epochs": options.epochs, "seed": seed}
    document["teacher"]["epochs"] = options.teacher_epochs
    document["sampler"]["seed"] = seed
    return yaml.safe_dump(document)


def start(options: argparse.Namespace, side: str, folder: Path, seed: int) -> subprocess.Popen[bytes]:
    """Start a side's search in an empty folder."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("IGKD_HPO_", "OPTUNA_"))}
    environment |= {"OMP_NUM_THREADS": "1", "SYNETUNE_FOLDER": str(folder)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    if side == "ours":
        (folder / "study.yaml").write_text(study_file(options, seed), encoding="utf-8")
        command = ["-m", "igkd_hpo", "launch", "study.yaml", "--workers", str(options.workers), "--device", "cpu"]
    else:
        command = [str(BY_HAND / f"{side}_search.py"), "--folder", str(folder),
                   "--trials", str(options.trials), "--workers", str(options.workers), "--seed", str(seed),
                   "--epochs", str(options.epochs), "--teacher-epochs", str(options.teacher_epochs)]  # fmt: skip
    with (folder / "output.log").open("wb") as log:
        return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Lines of JSON; none where there is no file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


@contextmanager
def our_study(folder: Path) -> Iterator[SearchStudy | None]:
    """Open our side's study; None before it is there."""
    try:
        storage = open_storage(f"sqlite:///{folder}/storage/igkd_hpo.db", create=False)
    except IgkdError:
        yield None
        return
    try:
        yield find_study(storage, "peers")
    finally:
        storage.engine.dispose()


def look_at_ours(folder: Path) -> tuple[int, list[Trained]]:
    """Epochs that all trials have, and what trains now."""
    with our_study(folder) as study:
        if study is None:
            return 0, []
        total = sum(len(trial.intermediate_values) for trial in study.trials())
        held = Leases(study).held()
        return total, [Trained(one.trial_process.pid, one.last_epoch) for one in held if one.trial_process]


def look_at_peer(folder: Path) -> tuple[int, list[Trained]]:
    """Epochs that all trials have, and the last one of each process that wrote some."""
    lines = read_lines(folder / "epochs.jsonl")
    last = {line["pid"]: line["epoch"] for line in lines}
    return len(lines), [Trained(pid, epoch) for pid, epoch in last.items()]


def kill_one(look: Look, folder: Path, options: argparse.Namespace) -> int | None:
    """Send SIGKILL to a process in mid-trial, if it is time for that; return which it was."""
    total, training = look(folder)
    if total < options.trials * options.epochs / 4:
        return None
    for one in training:
        if GRACE < one.epoch < options.epochs and psutil.pid_exists(one.pid):
            os.kill(one.pid, signal.SIGKILL)
            return one.pid
    return None


def search(options: argparse.Namespace, side: str, number: int, *, killed: bool) -> Run:
    """Run a side's search from nothing, and read what came out."""
    folder: Path = options.folder / f"round-{number}" / side
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.time()
    process = start(options, side, folder, seed=1000 * number)
    watch, victim, next_look = Watch(process.pid), None, begun
    while process.poll() is None:
        watch.look()
        if killed and victim is None and time.time() > next_look:
            next_look = time.time() + KILL_SECONDS
            victim = kill_one(look_at_ours if side == "ours" else look_at_peer, folder, options)
        if time.time() > begun + PATIENCE_SECONDS:
            process.terminate()
        time.sleep(LOOK_SECONDS)
    seconds = time.time() - begun
    if process.returncode or killed != (victim is not None):
        raise SystemExit(f"{SAYS[side]}: exit code {process.returncode}, killed {victim}; see {folder / 'output.log'}")
    if side != "ours":  # a script has its winner when it writes it; how long it takes to leave is not held against it
        seconds = (folder / "winner.json").stat().st_mtime - begun
    found = read_ours(folder) if side == "ours" else read_peer(folder, victim)
    found["prepared"] = round(found["prepared"] - begun, 1)
    return Run(
        side=side, round=number, killed=killed, seconds=round(seconds, 1), cpu_seconds=round(watch.seconds, 1),
        load=round(os.getloadavg()[0], 1), **found,
    )  # fmt: skip


def read_ours(folder: Path) -> dict[str, Any]:
    """What our study came to, from its database and the logs of its trial processes."""
    paths = Paths(root=folder / "storage")
    with our_study(folder) as study:
        assert study is not None
        trials, counts, best = study.trials(), study.counts(), best_trial(study)
        trained = [
            (trial.number, epoch)
            for trial in trials
            for attempt in range(1, trial.user_attrs.get("attempts", 0) + 1)
            for epoch in read_journal(paths.trial_log(study.folder, trial.number, attempt)).trained
        ]
        searched = study.config.hyperparameters.searched()
    return {
        "prepared": min(trial.datetime_start.timestamp() for trial in trials if trial.datetime_start),
        "ended": counts.finished,
        "lost": len(trials) - counts.finished,
        "epochs": len(trained),
        "in_vain": len(trained) - len(set(trained)),
        "accuracy": best.validation_accuracy,
        "settings": {name: best.hyperparameters[name] for name in searched},
    }


def read_peer(folder: Path, victim: int | None) -> dict[str, Any]:
    """What a peer's search came to."""
    lines = read_lines(folder / "epochs.jsonl")
    last = {line["pid"]: line["training"] for line in lines}  # a victim's is the one that it was killed in
    return {
        "prepared": (folder / "maps.pt").stat().st_mtime,
        "epochs": len(lines),
        "in_vain": sum(line["training"] == last.get(victim) for line in lines),
        **json.loads((folder / "winner.json").read_text()),
    }


def retrain(folder: Path, settings: dict[str, float], seed: int) -> float:
    """Train our side's student with these settings; return its accuracy on the test split, 0 where it diverged."""
    import torch

    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.evaluation import accuracy, predict
    from igkd_hpo.distillation.training import NonFiniteLoss
    from igkd_hpo.trial.build import make_trial

    torch.set_num_threads(1)
    study, device = read_study(folder / "study.yaml"), torch.device("cpu")
    here = Settings(
        paths=Paths(root=folder / "storage"), storage_url="sqlite://", data_root=folder, allow_import=frozenset()
    )
    values = study.hyperparameters.middle() | settings
    training = make_trial(study, values, open_assets(study, here), seed=seed, device=device).training
    try:
        for _ in training.epochs():
            pass
    except NonFiniteLoss:  # as a winner's that was lucky in its search
        return 0.0
    images, labels = open_test(study.dataset, here, purpose=TestPurpose.BENCHMARK)
    return accuracy(predict(training.network, images, device=device), labels)


def installed(sides: Sequence[str]) -> list[str]:
    """Leave out the peers that are not there, with a line about each."""
    found = []
    for side in sides:
        missing = [name for name in NEEDS.get(side, ()) if importlib.util.find_spec(name) is None]
        if missing:
            print(f"{SAYS[side]} is left out: no {', '.join(missing)} here", file=sys.stderr)
        else:
            found.append(side)
    return found


def measure(options: argparse.Namespace) -> tuple[list[Run], list[Fresh]]:
    """Run what is not there yet: all sides in each round, then the winners of those without a kill."""
    output: Path = options.folder / "runs.jsonl"
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = read_lines(output)
    runs = [Run(**line["run"]) for line in lines if "run" in line]
    fresh = [Fresh(**line["fresh"]) for line in lines if "fresh" in line]

    def keep(line: dict[str, Any]) -> None:
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)

    for number in range(1, 1 + options.rounds + options.killed):
        killed = number > options.rounds
        for side in options.sides if number % 2 else reversed(options.sides):
            if (side, number) not in {(run.side, run.round) for run in runs}:
                runs.append(search(options, side, number, killed=killed))
                keep({"run": asdict(runs[-1])})
    folder_of = {run.round: options.folder / f"round-{run.round}" / "ours" for run in runs if run.side == "ours"}
    done = {(one.side, one.round, one.seed) for one in fresh}
    for seed in range(FRESH_SEED, FRESH_SEED + options.seeds):
        for run in runs:
            if run.killed or run.round not in folder_of or (run.side, run.round, seed) in done:
                continue
            reached = retrain(folder_of[run.round], run.settings, seed)
            fresh.append(Fresh(side=run.side, round=run.round, seed=seed, accuracy=reached))
            keep({"fresh": asdict(fresh[-1])})
    return [run for run in runs if run.side in options.sides], [one for one in fresh if one.side in options.sides]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median, lowest and highest."""
    middle, low, high = (format(value, form) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}-{high})"


def shares(runs: Sequence[Run], peer: str, measure: str) -> list[float]:
    """What we take of a peer's seconds in each round without a kill."""
    taken = {(run.side, run.round): getattr(run, measure) for run in runs if not run.killed}
    return [
        taken["ours", number] / seconds
        for (side, number), seconds in sorted(taken.items())
        if side == peer and ("ours", number) in taken
    ]


def show(runs: Sequence[Run], fresh: Sequence[Fresh], sides: Sequence[str]) -> None:
    """For people."""
    print(f"\n{'':18} {'seconds':>16} {'prepared':>14} {'CPU seconds':>18} {'our share, time':>20} "
          f"{'CPU':>18} {'trials':>7} {'epochs':>14} {'load':>5}")  # fmt: skip
    for side in sides:
        own = [run for run in runs if run.side == side and not run.killed]
        if not own:
            continue
        share = [spread(shares(runs, side, what), ".2f") for what in ("seconds", "cpu_seconds") if "ours" in sides]
        print(
            f"{SAYS[side]:18} {spread([run.seconds for run in own]):>16} {spread([run.prepared for run in own]):>14} "
            f"{spread([run.cpu_seconds for run in own]):>18} {share[0] if share else '':>20} "
            f"{share[1] if share else '':>18} {statistics.median([run.ended for run in own]):>7g} "
            f"{spread([run.epochs for run in own]):>14} {max(run.load for run in own):>5}"
        )
    for run in (run for run in runs if run.killed):
        print(
            f"{SAYS[run.side]:18} with one process killed: {run.seconds:,.0f} s, {run.ended} trials ended, {run.lost} "
            f"lost, {run.epochs} epochs, {run.in_vain} of them in vain"
        )
    samples = {side: [one.accuracy for one in fresh if one.side == side] for side in sides}
    told = [side for side in sides if len(samples[side]) > 1]
    for side in told:
        within = t_interval(samples[side])
        ends = f"{within.low:.2%} to {within.high:.2%}"
        print(f"{SAYS[side]:18} winners with fresh seeds, on test: {within.value:.2%} ({ends}), n {len(samples[side])}")
    others = [side for side in told if side != "ours"]
    if "ours" not in told or not others:
        return
    every = [samples[side] for side in ("ours", *others)]
    found_all = contrasts(every, [(0, index + 1) for index in range(len(others))], resolution=1 / TEST_IMAGES)
    for side, found in zip(others, found_all, strict=True):
        gain, told_apart = found.difference, "" if found.significant else "; cannot be told"
        ends = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
        print(f"ours - {SAYS[side]:18} {100 * gain.value:+.2f} points ({ends}){told_apart}")


def goals(runs: Sequence[Run]) -> dict[str, bool]:
    """What is to be reached, and whether it is."""
    reached = {
        f"{GOAL:.0%} of the time of {SAYS[peer]}, or less": statistics.median(found) <= GOAL
        for peer in GOAL_PEERS
        if (found := shares(runs, peer, "seconds"))
    }
    ours = [run for run in runs if run.side == "ours"]
    if any(run.killed for run in ours):
        reached["one process killed: no trial of ours lost, no epoch in vain"] = all(
            run.lost == run.in_vain == 0 for run in ours
        )
    return reached


def versions() -> str:
    """Of what took part."""
    here = {one.name: one.version for one in distributions()}
    found = [f"{name} {here[name]}" for name in ("torch", "optuna", "ray", "syne-tune") if name in here]
    return f"Python {platform.python_version()}, {', '.join(found)}, commit {(code_commit() or 'unknown')[:9]}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", choices=SAYS, default=list(SAYS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--killed", type=int, default=1, help="rounds after them in which a process is killed")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--teacher-epochs", type=int, default=15)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3, help="fresh ones, for each winner")
    parser.add_argument("--folder", type=Path, default=Path("peers"), help="for everything; finished runs are kept")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    import torch

    what = f"{options.trials} trials of {options.epochs} epochs, {options.workers} processes"
    sizes = (options.trials, options.epochs, options.workers, options.teacher_epochs)  # runs of others are others
    options.folder = options.folder.absolute() / "-".join(map(str, sizes))
    options.sides = installed(options.sides)
    print(f"{processor(torch.device('cpu'))}, {len(os.sched_getaffinity(0))} cores, {versions()}\n{what}")
    runs, fresh = measure(options)
    show(runs, fresh, options.sides)
    reached = goals(runs)
    for goal, holds in reached.items():
        print(f"{'reached' if holds else 'MISSED '}  {goal}")
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
