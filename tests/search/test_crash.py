"""A process may end between any two statements: every step of the protocol happens as a whole or not at all."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from igkd_hpo.config.study import Study
from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import create_or_open, open_study, study_names
from tests.search.processes import die_in_claim, fork_server, join_all


class Death(BaseException):
    """The end of the process, as far as the database can see."""


@contextmanager
def death_before(storage: SharedStorage, statement: int | None) -> Iterator[list[str]]:
    """Die before the given statement, counted from 1, or with None before the commit; the statements so far."""
    statements: list[str] = []

    def die_in_time(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        statements.append(sql)
        if len(statements) == statement:
            raise Death

    def die(_connection: Any) -> None:
        if any(sql.startswith(("INSERT", "UPDATE")) for sql in statements):  # not where something was only read
            raise Death

    listeners = [("before_cursor_execute", die_in_time)] + ([("commit", die)] if statement is None else [])
    for name, listener in listeners:
        event.listen(storage.engine, name, listener)
    try:
        yield statements
    finally:
        for name, listener in listeners:
            event.remove(storage.engine, name, listener)


def everything(storage: SharedStorage) -> list[tuple[Any, ...]]:
    """All that the database says about studies, trials and leases."""
    tables = ("studies", "study_user_attributes", "trials", "trial_params", "trial_values", "trial_user_attributes",
              "trial_system_attributes", "trial_intermediate_values", "igkd_hpo_leases")  # fmt: skip
    with storage.reading() as connection:
        rows = [connection.exec_driver_sql(f"SELECT * FROM {table}").fetchall() for table in tables]
        return sorted((table, *map(str, row)) for table, found in zip(tables, rows, strict=True) for row in found)


def die_and_then_do(storage: SharedStorage, step: Callable[[], object]) -> None:
    """Die in a step here and there, last of all before its commit, then make it."""
    before = everything(storage)
    with pytest.raises(Death), death_before(storage, None) as statements:
        step()
    assert everything(storage) == before, "half a step is left by a death before the commit"
    n = len(statements)
    assert n > 3
    for statement in (2, n // 3, 2 * n // 3, n):
        with pytest.raises(Death), death_before(storage, statement):
            step()
        assert everything(storage) == before, f"half a step is left by a death before statement {statement} of {n}"
    step()
    assert everything(storage) != before


def test_every_step_is_made_whole_or_not_at_all(
    storage: SharedStorage, study_file: Study, worker: Worker, elsewhere: Callable[[str], Worker]
) -> None:
    file = Study.model_validate(study_file.model_dump() | {"controls": ("student", "kd"), "n_trials": 4})
    die_and_then_do(storage, lambda: create_or_open(storage, file, n_trials=None, pins=None))
    assert study_names(storage) == ["digits"]
    study = open_study(storage, "digits")
    assert [trial.user_attrs["control"] for trial in study.trials()] == ["student", "kd"]
    leases = Leases(study)
    claims: list[Claim] = []

    def claim() -> None:
        taken = leases.claim(worker)
        assert isinstance(taken, Claim)
        claims.append(taken)

    die_and_then_do(storage, claim)  # a control, which waits
    control = claims[-1]
    die_and_then_do(storage, lambda: leases.report(control, epoch=1, accuracy=0.5))
    die_and_then_do(storage, lambda: leases.release(control, "stop", counted=True, epochs_gained=False))
    die_and_then_do(storage, claim)
    die_and_then_do(storage, lambda: leases.complete(claims[-1], 0.5, {"a": 1, "b": 2}))
    leases.claim(elsewhere("a"))
    die_and_then_do(storage, claim)  # a new trial
    die_and_then_do(storage, lambda: leases.prune(claims[-1], "slow", {"a": 1}))
    die_and_then_do(storage, lambda: leases.drop_worker(elsewhere("a")))
    die_and_then_do(storage, claim)
    die_and_then_do(storage, lambda: leases.fail(claims[-1], "broken", {"a": 1}))
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]


def test_a_process_that_is_killed_in_the_middle_of_a_claim(
    database_url: str, study_file: Study, worker: Worker
) -> None:
    storage = open_storage(database_url, create=True)
    study = create_or_open(storage, study_file, n_trials=None, pins=None)
    leases = Leases(study)
    context = fork_server()
    before = everything(storage)
    statements = (3, 12, 25)
    processes = [context.Process(target=die_in_claim, args=(database_url, study.name, n)) for n in statements]
    for process in processes:
        process.start()
    assert join_all(processes) == [-signal.SIGKILL] * len(statements)
    assert everything(storage) == before
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert (claim.number, claim.attempt) == (0, 1)
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    storage.engine.dispose()
