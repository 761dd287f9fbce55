"""What the search itself costs: the time and CPU of a claim, a report, a result, and of starting a trial process.

    python benchmarks/overhead.py --check

Each figure is taken with so many trials in the study before (30 % COMPLETE with 100 epochs, the others PRUNED after 4
to 20), and with so many trials RUNNING, each with up to 99 epochs reported. `first claim` is that of a process that
knows nothing yet: it opens the database and reads the whole history. `epoch` is the report of an accuracy together
with the pruner's answer, and `rung` the same where successive halving compares trials; all epochs of a trial are
reported. `crowd` is `epoch` while as many processes as there are workers report as fast as they can.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count, takewhile
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from chaos import database
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Table, delete, event, insert, select, text

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open, open_study

EPOCHS = 100
CYCLES = 5  # claims and results a figure
CROWD_EPOCHS = 20  # reports of each process of a crowd
FOR_EVER = 1e6  # lease seconds: nobody beats here
EPOCH_GOAL_MS = 30.0
GOAL_WORKERS = 32
TRIAL_SECONDS = 60.0
SHARE_GOAL = 0.01
BEAT_SECONDS = 4.0

EXECUTION = Execution(
    device="cpu", threads=1, precision="float32", memory_format="channels_last", compile="none", torch="2.14.1"
)
FACTS: dict[str, Any] = {
    "pid": 1,
    "device": "cpu",
    "execution": EXECUTION.model_dump(mode="json"),
    "parameters": 45354,
    "macs": 1234567,
    "size_kb": 180.0,
    "compression_factor": 12.3,
}
INTERMEDIATE: Table = models.TrialIntermediateValueModel.__table__
RUNGS: Table = models.TrialSystemAttributeModel.__table__  # where Optuna's successive halving keeps what it compares
DEFAULT_PRUNER = Study.model_fields["pruner"].default
FIRST_RUNG = DEFAULT_PRUNER.first_rung(EPOCHS)
RUNG_EPOCHS = list(
    takewhile(lambda epoch: epoch < EPOCHS, (FIRST_RUNG * DEFAULT_PRUNER.reduction_factor**rung for rung in count()))
)
FINITE = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One kind of call in one situation; times in milliseconds, of one call.

    Args:
        cpu: of this process, median; the database server's is not in it.
        statements: SQL statements of one call, median.
    """

    storage: str
    earlier: int
    workers: int
    call: str
    n: int
    wall: float
    wall_10: float
    wall_90: float
    cpu: float
    statements: float


class Meter:
    """Times calls, and counts the statements that they send to the database."""

    def __init__(self, study: SearchStudy) -> None:
        self.samples: dict[str, list[tuple[float, float, int]]] = {}
        self._statements = 0
        event.listen(study.storage.engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self._statements += 1

    def time(self, call: str, function: Callable[[], Any]) -> Any:
        """What the function returns."""
        statements, cpu, wall = self._statements, time.process_time(), time.perf_counter()
        answer = function()
        sample = (time.perf_counter() - wall, time.process_time() - cpu, self._statements - statements)
        self.samples.setdefault(call, []).append(sample)
        return answer


def costs(samples: list[tuple[float, float, int]], **where: Any) -> Cost:
    """Medians and the first and last tenth."""
    wall = [1000 * sample[0] for sample in samples]
    tenths = quantiles(wall, n=10, method="inclusive") if len(wall) > 1 else wall * 9
    return Cost(
        n=len(samples),
        wall=round(median(wall), 2),
        wall_10=round(tenths[0], 2),
        wall_90=round(tenths[-1], 2),
        cpu=round(1000 * median(sample[1] for sample in samples), 2),
        statements=median(sample[2] for sample in samples),
        **where,
    )


def study_file(pruner: str | None) -> Study:
    """`digits` with 100 epochs and more trials than will ever finish here, and this pruner, or the default one."""
    digits = read_study(builtin_studies()["digits"])
    training = digits.training.model_copy(update={"epochs": EPOCHS})
    asked = DEFAULT_PRUNER.model_dump() if pruner is None else {"name": pruner}
    changes: dict[str, Any] = {"training": training, "controls": (), "n_trials": 1_000_000, "pruner": asked}
    return digits.model_validate(digits.model_dump() | changes)


def make_history(study: SearchStudy, leases: Leases, count: int) -> None:
    """A claimed and completed trial, copied until there are `count` with parameters and accuracies of their own."""
    if count == 0:
        return
    claim = leases.claim(me())
    assert isinstance(claim, Claim)
    leases.annotate(claim, FACTS)
    leases.complete(claim, 0.5, {"images_per_second": 1234.5, "validation_loss": 0.1, "train_loss": 0.1})
    draw = random.Random(0)
    with study.transaction() as connection:
        pattern = {
            table: [
                dict(row)
                for row in connection.execute(select(table).where(table.c.trial_id == claim.trial_id)).mappings()
            ]
            for table in (model.__table__ for model in MODELS)
        }
        (trial,) = pattern[models.TrialModel.__table__]
        made: dict[Table, list[dict[str, Any]]] = {table: [] for table in [*pattern, INTERMEDIATE]}
        for number in range(1, count):
            trial_id, complete = claim.trial_id + number, draw.random() < 0.3
            last, final = EPOCHS if complete else draw.randint(4, 20), draw.uniform(0.3, 0.9)
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
            for table, rows in pattern.items():
                key = next(iter(table.primary_key)).name
                for row in rows:
                    copied = {name: value for name, value in row.items() if name != key} | {"trial_id": trial_id}
                    if table is models.TrialModel.__table__:
                        copied |= {"number": trial["number"] + number, "state": state}
                    elif "param_value" in copied:
                        copied["param_value"] = row["param_value"] * draw.uniform(0.5, 1.0)
                    elif table is models.TrialValueModel.__table__:
                        copied["value"] = final
                    made[table].append(copied)
            made[INTERMEDIATE] += curve(trial_id, 1, last, final)
            made[RUNGS] += rungs(trial_id, last, final)
        for table, rows in made.items():
            if rows:
                connection.execute(insert(table), rows)
        if connection.dialect.name == "postgresql":  # its sequence has not seen the copies' ids
            connection.execute(text("SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))"))
    with study.storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # What the server would have done long before, and would do beside the measurements now.
        connection.execute(text("ANALYZE"))
        if connection.dialect.name == "postgresql":
            connection.execute(text("VACUUM"))
            connection.execute(text("CHECKPOINT"))


MODELS = (
    models.TrialModel,
    models.TrialParamModel,
    models.TrialValueModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
)


def curve(trial_id: int, first: int, last: int, final: float) -> list[dict[str, Any]]:
    """Rows of accuracies that approach `final`."""
    return [
        {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": accuracy_after(step, final),
            "intermediate_value_type": FINITE,
        }
        for step in range(first, last + 1)
    ]


def accuracy_after(step: int, final: float) -> float:
    """A curve that rises to `final`."""
    return final * (1 - 0.9**step)


def rungs(trial_id: int, last: int, final: float) -> list[dict[str, Any]]:
    """Rows of what successive halving noted of such a curve."""
    return [
        {"trial_id": trial_id, "key": f"completed_rung_{rung}", "value_json": str(accuracy_after(step, final))}
        for rung, step in enumerate(RUNG_EPOCHS)
        if step <= last
    ]


def me() -> Worker:
    """This process as a worker."""
    return Worker(name="benchmark", process=this_process())


def set_epochs(study: SearchStudy, claims: list[Claim], last: int) -> None:
    """Give each of these trials the epochs from 1 to `last`, and no others."""
    ids = [claim.trial_id for claim in claims]
    with study.transaction() as connection:
        connection.execute(delete(INTERMEDIATE).where(INTERMEDIATE.c.trial_id.in_(ids)))
        for trial_id in ids:
            connection.execute(insert(INTERMEDIATE), curve(trial_id, 1, last, 0.95))


def alone(study: SearchStudy, meter: Meter, leases: Leases) -> None:
    """Whole lives of trials, one after the other, beside those that run."""
    for _ in range(CYCLES):
        claim = meter.time("claim", lambda: leases.claim(me()))
        assert isinstance(claim, Claim)
        for epoch in range(1, EPOCHS):
            report = lambda claim=claim, epoch=epoch: leases.report(claim, epoch=epoch, accuracy=0.96)  # noqa: E731
            assert meter.time("rung" if epoch in RUNG_EPOCHS else "epoch", report) is Verdict.GO_ON
        meter.time("beat", lambda claim=claim: leases.heartbeat(claim, last_epoch=EPOCHS - 1))
        meter.time("tell", lambda claim=claim: tell(leases, claim))


def tell(leases: Leases, claim: Claim) -> None:
    """What a worker writes about a trial besides its epochs."""
    assert leases.start(claim, this_process(), "cpu")
    assert leases.annotate(claim, FACTS)
    assert leases.complete(claim, 0.96, {"images_per_second": 1.0, "validation_loss": 0.1, "train_loss": 0.1})


def first_claim(url: str, name: str, samples: Any) -> None:
    """In a process of its own: open, claim, give back."""
    cpu, wall = time.process_time(), time.perf_counter()
    leases = Leases(open_study(open_storage(url, create=False), name), lease_seconds=FOR_EVER)
    claim = leases.claim(me())
    samples.put((time.perf_counter() - wall, time.process_time() - cpu, 0))
    assert isinstance(claim, Claim)
    leases.release(claim, "benchmark", counted=False, epochs_gained=False)


def in_crowd(url: str, claim: Claim, ready: Barrier, samples: Any) -> None:
    """In a process of its own: report as fast as the others let it."""
    leases = Leases(study := open_study(open_storage(url, create=False), claim.study), lease_seconds=FOR_EVER)
    study.trials()
    mine = []
    ready.wait()
    for epoch in range(EPOCHS - CROWD_EPOCHS, EPOCHS):
        cpu, wall = time.process_time(), time.perf_counter()
        assert leases.report(claim, epoch=epoch, accuracy=0.96) is Verdict.GO_ON
        mine.append((time.perf_counter() - wall, time.process_time() - cpu, 0))
    samples.put(mine)


def crowd(url: str, claims: list[Claim]) -> list[tuple[float, float, int]]:
    """Reports of all these at the same time."""
    context = multiprocessing.get_context("forkserver")
    ready, samples = context.Barrier(len(claims)), context.SimpleQueue()
    processes = [context.Process(target=in_crowd, args=(url, claim, ready, samples)) for claim in claims]
    for process in processes:
        process.start()
    found = [sample for _ in processes for sample in samples.get()]
    for process in processes:
        process.join()
    return found


def measure(kind: str, url: str, earlier: int, crowds: list[int], options: argparse.Namespace) -> Iterator[Cost]:
    """All calls on one database with this much history."""
    file = study_file(options.pruner)
    storage = open_storage(url, create=True)
    with emptied(storage):
        study = create_or_open(storage, file, n_trials=None, pins=None)
        leases = Leases(study, lease_seconds=FOR_EVER)
        make_history(study, leases, earlier)
        context = multiprocessing.get_context("forkserver")
        held: list[Claim] = []
        for workers in options.workers:
            where = {"storage": kind, "earlier": earlier, "workers": workers}
            while len(held) < workers:
                claim = leases.claim(me())
                assert isinstance(claim, Claim)
                held.append(claim)
            if workers in crowds:
                set_epochs(study, held, EPOCHS - CROWD_EPOCHS - 1)
                yield costs(crowd(url, held), call="crowd", **where)
            set_epochs(study, held, EPOCHS - 1)
            leases.complete(held.pop(), 0.96, {})
            samples = context.SimpleQueue()
            for _ in range(options.first_claims):
                process = context.Process(target=first_claim, args=(url, study.name, samples))
                process.start()
                process.join()
            if options.first_claims:
                found = [samples.get() for _ in range(options.first_claims)]
                yield costs(found, call="first claim", **where)
            meter = Meter(study)
            alone(study, meter, leases)
            for call, taken in meter.samples.items():
                yield costs(taken, call=call, **where)


@contextmanager
def emptied(storage: SharedStorage) -> Iterator[None]:
    """Nothing of the study is left for the next one."""
    try:
        yield
    finally:
        name = study_file(None).name
        storage.delete_study(storage.get_study_id_from_name(name))
        storage.engine.dispose()


def process_start(folder: Path) -> Iterator[Cost]:
    """From the start of a trial process to its word that it is ready to train `digits`."""
    from igkd_hpo.engines.local.fork_server import ForkServer
    from igkd_hpo.engines.local.trial_process import start_trial
    from igkd_hpo.settings import Settings
    from igkd_hpo.trial.messages import Measured, Started
    from igkd_hpo.trial.task import AttemptTask, TrialTask

    quick = {"teacher": {"width": 0.25, "epochs": 2}, "attribution": {"n_steps": 2}, "controls": ()}
    digits = read_study(builtin_studies()["digits"])
    study = digits.model_validate(digits.model_dump() | quick)
    prepare = [sys.executable, "-m", "igkd_hpo", "prepare", "-", "--json", "--device", "cpu"]
    subprocess.run(prepare, input=study.model_dump_json().encode(), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    os.chdir(folder)
    server = ForkServer()
    task = AttemptTask(
        trial=TrialTask(study=study, hyperparameters=middle(study), seed=0),
        device="cpu",
        slot=0,
        threads=1,
        alone=False,
        settings=Settings.resolve(),
        cost=None,
        pins=None,
        checkpoint=folder / "attempt.pt",
        log=folder / "trial.log",
    )
    kinds = ["forked", "first of its architecture", "ready to train"]
    samples: dict[str, list[tuple[float, float, int]]] = {kind: [] for kind in kinds}
    for again in range(2 * CYCLES + 1):
        wall = time.perf_counter()
        attempt = start_trial(server, task)
        messages: list[Any] = []
        while attempt.identity is None:
            messages += attempt.messages()
        forked = time.perf_counter() - wall
        while not any(isinstance(message, Started) for message in messages):
            wait(attempt.waitables(), 60)
            messages += attempt.messages()
        ready = time.perf_counter() - wall
        (started,) = (message for message in messages if isinstance(message, Started))
        (measured,) = (message for message in messages if isinstance(message, Measured))
        used = psutil.Process(started.pid).cpu_times()
        attempt.close()
        if again:  # the first waits for the fork server
            samples["forked"].append((forked, 0.0, 0))
            kind = "ready to train" if task.cost else "first of its architecture"
            samples[kind].append((ready, used.user + used.system, 0))
        if again == CYCLES:  # from then on it goes as in every later trial of a worker
            task = replace(task, cost=measured.cost)
    for call, taken in samples.items():
        yield costs(taken, call=call, storage="", earlier=0, workers=1)


def middle(study: Study) -> dict[str, Any]:
    """The middle of every range."""
    from igkd_hpo.config.controls import make_control

    return make_control("kd_ig", study.hyperparameters).hyperparameters


def goals(found: list[Cost]) -> dict[str, bool]:
    """Which goals were reached; a goal without its figures is left out."""
    reached = {}
    start = next((cost for cost in found if cost.call == "ready to train"), None)
    for kind in ("sqlite", "postgresql"):
        here = [cost for cost in found if cost.storage == kind]
        epochs = [cost for cost in here if cost.call in ("epoch", "rung") and cost.workers == GOAL_WORKERS]
        if epochs:
            slowest = max(cost.wall for cost in epochs)
            name = f"{kind}: an epoch at {GOAL_WORKERS} running trials takes at most {EPOCH_GOAL_MS:g} ms ({slowest:g})"
            reached[name] = slowest <= EPOCH_GOAL_MS
        if start is None:
            continue
        for earlier, workers in sorted({(cost.earlier, cost.workers) for cost in here}):
            by_call = {cost.call: cost for cost in here if (cost.earlier, cost.workers) == (earlier, workers)}
            # Nothing trains during claim, start and tell; epochs and beats take CPU beside the training.
            waited = start.wall + by_call["claim"].wall + by_call["tell"].wall
            beside = (EPOCHS - len(RUNG_EPOCHS)) * by_call["epoch"].cpu + len(RUNG_EPOCHS) * by_call["rung"].cpu
            beside += TRIAL_SECONDS / BEAT_SECONDS * by_call["beat"].cpu
            share = (waited + beside) / 1000 / TRIAL_SECONDS
            name = f"{kind}, {earlier} trials before, {workers} running: {share:.2%} of a trial of {TRIAL_SECONDS:g} s"
            reached[f"{name} and {EPOCHS} epochs, at most {SHARE_GOAL:.0%}"] = share <= SHARE_GOAL
    return reached


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--earlier", nargs="+", type=int, default=[0, 1000, 5000], help="trials before")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4, 16, 32])
    parser.add_argument("--crowds", nargs="*", type=int, default=[1, 4, 16, 32], help="sizes, with the fewest trials")
    parser.add_argument("--first-claims", type=int, default=3)
    parser.add_argument("--pruner", help="its name; without it the default one")
    parser.add_argument("--no-start", action="store_true", help="leave out the trial process")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    options.workers.sort()
    found: list[Cost] = []

    def note(cost: Cost) -> None:
        found.append(cost)
        if not options.json:
            spread = f"{cost.wall_10:8.1f} to {cost.wall_90:.1f}"
            where = f"{cost.storage:10} {cost.earlier:6} {cost.workers:4} {cost.call:15} {cost.n:4}"
            print(f"{where} {cost.wall:9.1f} {spread:22} {cost.cpu:8.1f} {cost.statements:6g}", flush=True)

    if not options.json:
        print(f"{'storage':10} before runs {'call':15}    n   wall ms  10 % to 90 %              cpu ms    SQL")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["igkd_hpo.search.lease"])
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        for kind in options.storage:
            for earlier in options.earlier:
                place = Path(name) / f"{kind}-{earlier}"
                place.mkdir()
                with database(kind, place) as (url, _):
                    crowds = options.crowds if earlier == min(options.earlier) else []
                    for cost in measure(kind, url, earlier, crowds, options):
                        note(cost)
        if not options.no_start:
            place = Path(name) / "start"
            place.mkdir()
            for cost in process_start(place):
                note(cost)
            os.chdir(here)
    reached = goals(found)
    if options.json:
        print(json.dumps({"costs": [asdict(cost) for cost in found], "goals": reached}, indent=2))
    else:
        for goal, holds in reached.items():
            print(f"{'reached' if holds else 'MISSED ':8} {goal}")
    return int(options.check and not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
