"""Many workers on one PostgreSQL server with its default of 100 connections, to exactly N trials.

    python benchmarks/connections.py --workers 32 --check

Each worker is a process that claims, reports and completes through the protocol as a real one does, without training;
one more process reaps beside them as a supervisor does. Every tenth worker is killed on the way.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from chaos import database
from optuna.trial import TrialState
from sqlalchemy import text

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.errors import StorageError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open, open_study

EPOCHS = 12
PER_WORKER = 2  # connections at most, the supervisor's included
MAX_CONNECTIONS = 100  # PostgreSQL's default


def work(url: str, study: str, number: int, die_in_trial: int | None) -> None:
    """Claim and complete until the study is finished."""
    leases = Leases(open_study(open_storage(url, create=False), study))
    me = Worker(name=f"worker-{number}", process=this_process())
    claims = 0
    while True:
        claim = leases.claim(me)
        if claim is Idle.WAIT:
            time.sleep(0.5)
        elif isinstance(claim, Claim):
            claims += 1
            for epoch in range(1, EPOCHS + 1):
                leases.report(claim, epoch=epoch, accuracy=epoch / 100)
                leases.heartbeat(claim, last_epoch=epoch)
                if claims == die_in_trial and epoch == EPOCHS // 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            leases.complete(claim, 0.5, {"worker_number": number})
        else:
            return


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a goal is missed")
    options = parser.parse_args()
    digits = read_study(builtin_studies()["digits"])
    file = digits.model_validate(
        digits.model_dump() | {"controls": (), "pruner": {"name": "none"}, "n_trials": options.trials}
    )
    context = multiprocessing.get_context("fork")  # everything is imported, nothing is connected yet
    with database("postgresql", Path.cwd()) as (url, _):
        starter = context.Process(target=_create, args=(url, file.model_dump_json()))
        starter.start()
        starter.join()
        begun = time.monotonic()
        processes = [
            context.Process(target=work, args=(url, file.name, number, 2 if number % 10 == 9 else None))
            for number in range(options.workers)
        ]
        for process in processes:
            process.start()
        storage = open_storage(url, create=False)
        study = open_study(storage, file.name)
        leases = Leases(study)
        most = failed = 0
        while any(process.is_alive() for process in processes):
            try:
                leases.reap()
                with storage.reading() as connection:
                    counted = connection.execute(
                        text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'igkd-hpo'")
                    )
                    most = max(most, counted.scalar_one())
            except StorageError:
                failed += 1
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        with storage.reading() as connection:
            limit = int(connection.execute(text("SHOW max_connections")).scalar_one())
        states = [trial.state for trial in study.trials()]
        killed = sum(process.exitcode == -signal.SIGKILL for process in processes)
        found = {
            "workers": options.workers,
            "killed": killed,
            "ended_otherwise": sum(process.exitcode not in {0, -signal.SIGKILL} for process in processes),
            "trials": options.trials,
            "finished": states.count(TrialState.COMPLETE),
            "others": len(states) - states.count(TrialState.COMPLETE),
            "leases_left": len(leases.held()),
            "late_results": study.read().attributes["late_results"],
            "most_connections": most,
            "max_connections": limit,
            "refused_here": failed,
            "seconds": round(seconds, 1),
            "calls_per_second": round(options.trials * (2 * EPOCHS + 2) / seconds),
        }
        storage.engine.dispose()
    reached = {
        "finished exactly N, nothing else": found["finished"] == options.trials and found["others"] == 0,
        "no lease left": found["leases_left"] == 0,
        "no worker refused": found["ended_otherwise"] == 0 and failed == 0,
        f"at most {PER_WORKER} connections each": most <= PER_WORKER * (options.workers + 1),
        f"{MAX_CONNECTIONS} connections are enough": limit == MAX_CONNECTIONS,
    }
    if options.json:
        print(json.dumps(found | {"goals": reached}, indent=2))
    else:
        for key, value in found.items():
            print(f"{key:28} {value}")
        for goal, holds in reached.items():
            print(f"{'reached' if holds else 'MISSED ':28} {goal}")
    return int(options.check and not all(reached.values()))


def _create(url: str, study: str) -> None:
    from igkd_hpo.config.reading import study_from_json

    create_or_open(open_storage(url, create=True), study_from_json(study, source="benchmark"), n_trials=None, pins=None)


if __name__ == "__main__":
    sys.exit(main())
