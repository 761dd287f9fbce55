"""A trial or a study that this version cannot use spoils itself alone; on both databases."""

import json
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from igkd_hpo import __version__
from igkd_hpo.config.study import Study
from igkd_hpo.engines.open_studies import OpenStudies
from igkd_hpo.engines.worker import Job
from igkd_hpo.errors import StudyUnusable
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.lease import Claim, Leases, Worker
from igkd_hpo.search.records import study_trials
from igkd_hpo.search.status import state_in_words, status
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open, latest_study, open_study, study_names
from igkd_hpo.settings import Settings

MakeStudy = Callable[..., SearchStudy]


def write(storage: SharedStorage, statement: str, **values: object) -> SharedStorage:
    """Write past Optuna; the storage as a process that starts then sees it."""
    with storage.engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount == 1
    return SharedStorage(storage._backend, storage.url)


@pytest.fixture
def trained(make_study: MakeStudy, worker: Worker) -> SearchStudy:
    """A study with three completed trials, of which the second is the best."""
    study = make_study()
    leases = Leases(study)
    for accuracy in (0.5, 0.7, 0.6):
        claim = leases.claim(worker)
        assert isinstance(claim, Claim)
        leases.report(claim, epoch=1, accuracy=accuracy)
        leases.complete(claim, accuracy, {"parameters": 1000})
    return study


def hyperparameters(study: SearchStudy, **changes: object) -> str:
    return json.dumps(study.trials()[1].user_attrs["hyperparameters"] | changes)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("hyperparameters", lambda _: '"word"'),
        ("hyperparameters", lambda study: hyperparameters(study, alpha="NaN")),
        ("hyperparameters", lambda study: hyperparameters(study, alpha=float("nan"))),
        ("hyperparameters", lambda study: hyperparameters(study, depth=3)),
        ("hyperparameters", lambda _: "{}"),
        ("hyperparameters", lambda _: "no JSON {"),
        ("parameters", lambda _: '"many"'),
        ("seed", lambda _: "[1]"),
        ("attempts", lambda _: '"one"'),
        ("control", lambda _: '"[kd](javascript:0)"'),
        ("control", lambda _: '"<iframe>"'),
        ("arm_name", lambda _: '"a | b\\n# c"'),
    ],
)
def test_a_damaged_attribute_spoils_its_trial(
    trained: SearchStudy, key: str, written: Callable[[SearchStudy], str]
) -> None:
    damaged = trained.trials()[1]._trial_id
    if key not in trained.trials()[1].user_attrs:
        trained.storage._backend.set_trial_user_attrs(damaged, {key: "kd"})
    statement = "UPDATE trial_user_attributes SET value_json = :value WHERE trial_id = :id AND key = :key"
    storage = write(trained.storage, statement, value=written(trained), id=damaged, key=key)
    study = open_study(storage, trained.name)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert best_trial(study).number == 2
    (listed,) = status(storage)
    assert (listed.best_trial, listed.counts.fail, listed.unusable) == (2, 1, None)
    assert key in str(listed.last_failure)
    assert key in str(study_trials(study)[1].reason)


@pytest.mark.parametrize(("value", "kind"), [(None, "INF_POS"), (None, "INF_NEG"), (7.5, "FINITE")])
def test_a_value_that_is_no_accuracy_spoils_its_trial(trained: SearchStudy, value: float | None, kind: str) -> None:
    statement = f"UPDATE trial_values SET value = :value, value_type = '{kind}' WHERE trial_id = :id"
    storage = write(trained.storage, statement, value=value, id=trained.trials()[1]._trial_id)
    study = open_study(storage, trained.name)
    assert best_trial(study).number == 2
    assert study.counts().fail == 1
    learned_from = study.optuna_study.get_trials(states=[TrialState.COMPLETE])  # as samplers and pruners ask
    assert [trial.value for trial in learned_from] == [0.5, 0.6]


def test_a_damaged_distribution_spoils_its_trial(trained: SearchStudy, worker: Worker) -> None:
    statement = "UPDATE trial_params SET distribution_json = '{}' WHERE trial_id = :id AND param_name = 'alpha'"
    storage = write(trained.storage, statement, id=trained.trials()[1]._trial_id)
    study = open_study(storage, trained.name)
    assert study.trials()[1].state is TrialState.FAIL
    assert isinstance(Leases(study).claim(worker), Claim)


def test_a_damaged_trial_that_waits_keeps_no_worker(trained: SearchStudy, worker: Worker) -> None:
    trained.optuna_study.enqueue_trial({"alpha": 0.5}, user_attrs={"attempts": "many"})
    trained.optuna_study.enqueue_trial({"alpha": 0.5}, user_attrs={"hyperparameters": "word"})
    claim = Leases(trained).claim(worker)
    assert isinstance(claim, Claim)
    assert claim.number == 5


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("study_file", lambda file: json.dumps(json.dumps(json.loads(file.model_dump_json()) | {"budget_hours": 3}))),
        ("study_file", lambda _: '"no JSON {"'),
        ("study_file", lambda _: "5"),
        ("n_trials", lambda _: '"many"'),
        ("n_trials", lambda _: "no JSON {"),
        ("launched", lambda _: "{"),
    ],
)
def test_a_study_that_cannot_be_used_hides_no_other(
    storage: SharedStorage, study_file: Study, worker: Worker, key: str, written: Callable[[Study], str]
) -> None:
    create_or_open(storage, study_file, n_trials=None, pins=None)
    newer = create_or_open(storage, study_file.model_copy(update={"name": "newer"}), n_trials=None, pins=None)
    statement = "UPDATE study_user_attributes SET value_json = :value WHERE study_id = :id AND key = :key"
    storage = write(storage, statement, value=written(study_file), id=newer.study_id, key=key)
    listed = {study.name: study for study in status(storage)}
    assert listed["digits"].unusable is None
    assert latest_study(storage) == "digits" or key == "launched"
    if key != "launched":  # which nothing but the order depends on
        assert state_in_words(listed["newer"]) == "unusable"
        with pytest.raises(StudyUnusable, match="'newer'") as error:
            open_study(storage, "newer")
        assert "\n" not in str(error.value)
        assert __version__ not in str(error.value), "it is this version that wrote it"
        assert key in str(error.value) or "budget_hours" in str(error.value) or "study file" in str(error.value)
    said: list[str] = []
    served = OpenStudies(storage, Settings.resolve(), worker, prepare=lambda _: None, on_message=said.append)
    assert isinstance(served.claim(), Job)


def test_a_renamed_study_goes_by_the_name_in_the_database(storage: SharedStorage, study_file: Study) -> None:
    create_or_open(storage, study_file, n_trials=None, pins=None)
    for name in ("renamed", "not/a name"):
        optuna.copy_study(from_study_name="digits", from_storage=storage, to_storage=storage, to_study_name=name)
    optuna.delete_study(study_name="digits", storage=storage)
    renamed = open_study(storage, "renamed")
    assert renamed.config == study_file.model_copy(update={"name": "renamed"})
    assert create_or_open(storage, renamed.config, n_trials=9, pins=None).study_id == renamed.study_id
    assert study_names(storage) == ["not/a name", "renamed"]
    with pytest.raises(StudyUnusable, match="name"):  # folders have the names of studies
        open_study(storage, "not/a name")
