"""Several real processes on one study, on both databases."""

from optuna.trial import TrialState
from sqlalchemy import text

from igkd_hpo.config.study import Study
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open, open_study, study_names
from tests.search.processes import fork_server, join_all, open_and_create, work


def test_eight_processes_may_open_an_empty_database_at_once(database_url: str, study_file: Study) -> None:
    context = fork_server()
    ready = context.Barrier(8)
    file = study_file.model_copy(update={"controls": ("student", "kd")}).model_dump_json()
    processes = [context.Process(target=open_and_create, args=(database_url, file, ready)) for _ in range(8)]
    for process in processes:
        process.start()
    assert join_all(processes) == [0] * 8
    storage = open_storage(database_url, create=False)
    with storage.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM version_info")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    assert study_names(storage) == [study_file.name]
    study = open_study(storage, study_file.name)
    assert [trial.user_attrs["control"] for trial in study.trials()] == ["student", "kd"]
    storage.engine.dispose()


def test_four_workers_finish_exactly_n_trials_and_one_of_them_is_killed(database_url: str, study_file: Study) -> None:
    storage = open_storage(database_url, create=True)
    study = create_or_open(storage, study_file, n_trials=20, pins=None)
    context = fork_server()
    claimed = context.Event()
    processes = [
        context.Process(
            target=work, args=(database_url, study.name, f"worker-{slot}", 2 if slot == 0 else None, claimed)
        )
        for slot in range(4)
    ]
    for process in processes:
        process.start()
    assert join_all(processes) == [-9, 0, 0, 0]
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 20
    assert [trial.number for trial in trials] == list(range(20))
    assert sorted(trial.user_attrs["attempts"] for trial in trials) == [1] * 19 + [2]
    assert Leases(study).held() == []
    assert study.read().attributes["late_results"] == 0
    storage.engine.dispose()
