"""What a study is given to begin with: its controls, what is known to be good, and another study's best."""

from collections.abc import Callable

import pytest
from optuna.trial import TrialState

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.study import Study
from igkd_hpo.errors import NoCompletedTrial, UsageError
from igkd_hpo.search.carry_over import carry_over, enqueue_carried, other_images
from igkd_hpo.search.confirmation_study import create_linked
from igkd_hpo.search.enqueued import enqueued_trials
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open
from tests.search.conftest import PINS

MakeStudy = Callable[..., SearchStudy]
GOOD = ({"alpha": 0.25, "temperature": 3.0}, {"learning_rate": 0.05})


def run(study: SearchStudy, worker: Worker, accuracies: list[float]) -> list[Claim]:
    leases, claims = Leases(study), []
    for accuracy in accuracies:
        claim = leases.claim(worker)
        assert isinstance(claim, Claim), claim
        assert leases.complete(claim, accuracy, {})
        claims.append(claim)
    return claims


def test_known_good_runs_after_the_controls_and_counts(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study(n_trials=4, controls=("student",), known_good=GOOD)
    assert enqueued_trials(study.trials()) == []
    control, first, second, _ = run(study, worker, [0.5] * 4)
    assert control.control == "student"
    assert (first.hyperparameters["alpha"], first.hyperparameters["temperature"]) == (0.25, 3.0)
    assert second.hyperparameters["learning_rate"] == 0.05
    assert [claim.control for claim in (first, second)] == [None, None]
    assert Leases(study).claim(worker) is Idle.FINISHED
    assert study.read().n_trials == study.counts().finished == 4
    searched = set(study.config.hyperparameters.searched())
    assert all(set(trial.params) == searched for trial in study.trials())


def test_what_is_added_to_the_file_later_runs_too_and_once(
    storage: SharedStorage, make_study: MakeStudy, worker: Worker
) -> None:
    study = make_study(known_good=GOOD[:1])
    run(study, worker, [0.5, 0.5])
    again = make_study(known_good=GOOD)
    (waiting,) = [trial for trial in again.trials() if trial.state is TrialState.WAITING]
    assert waiting.system_attrs["fixed_params"] == GOOD[1]
    assert len(make_study(known_good=GOOD).trials()) == 3


def test_a_total_without_room_ends_them_and_a_larger_one_brings_them_back(
    storage: SharedStorage, study_file: Study, worker: Worker
) -> None:
    file = Study.model_validate(study_file.model_dump() | {"known_good": GOOD})
    with pytest.raises(UsageError, match="1 trials leave no room for 0 controls and 2 of known_good"):
        create_or_open(storage, file, n_trials=1, pins=PINS)
    study = create_or_open(storage, file, n_trials=2, pins=PINS)
    run(study, worker, [0.5])
    create_or_open(storage, file, n_trials=1, pins=PINS)
    assert Leases(study).claim(worker) is Idle.FINISHED
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.FAIL]
    study = create_or_open(storage, file, n_trials=3, pins=PINS)
    (claim,) = run(study, worker, [0.5])
    assert claim.hyperparameters["learning_rate"] == 0.05


def test_a_confirmation_is_given_its_arms_alone(make_study: MakeStudy) -> None:
    study = make_study(known_good=GOOD)
    assert create_linked(study.storage, study.config, "confirm", pins=PINS).trials() == []


def test_the_best_of_another_study_that_fit(
    storage: SharedStorage, make_study: MakeStudy, study_file: Study, worker: Worker
) -> None:
    alphas = [0.9, 0.1, 0.2, 0.1, 0.3, 0.4, 0.25, 0.05]
    old = make_study(
        n_trials=9, controls=("student",), known_good=tuple({"alpha": alpha, "temperature": 2.0} for alpha in alphas)
    )
    claims = run(old, worker, [0.99, 0.9, 0.7, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2])
    low = study_file.model_dump()["hyperparameters"] | {"alpha": {"type": "float", "low": 0.0, "high": 0.5}}
    narrow = Study.model_validate(study_file.model_dump() | {"name": "narrow", "hyperparameters": low})
    carried = carry_over(old, narrow)
    assert [trial.params["alpha"] for trial in carried.trials] == [0.2, 0.1, 0.1, 0.3, 0.4]
    assert carried.trials[0].params == {
        name: claims[3].hyperparameters[name] for name in narrow.hyperparameters.searched()
    }
    assert carried.told[0] == f"begins with trial 3 of {old.name}, which had 80.00 % there"
    assert carried.told[-1] == (
        f"1 trial left out; trial 1 of {old.name} lies outside the search space: alpha 0.9 is not 0 to 0.5"
    )

    alone = {**old.config.hyperparameters.middle(), "alpha": low["alpha"]}
    once = carry_over(old, Study.model_validate(narrow.model_dump() | {"hyperparameters": alone}))
    assert [trial.params for trial in once.trials] == [{"alpha": alpha} for alpha in (0.2, 0.1, 0.3, 0.4, 0.25)]

    study = create_or_open(storage, narrow, n_trials=4, pins=PINS)
    assert enqueue_carried(study, carried) == 4
    assert enqueue_carried(study, carried) == 0
    assert [claim.hyperparameters["alpha"] for claim in run(study, worker, [0.5] * 4)] == [0.2, 0.1, 0.1, 0.3]
    assert study.trials()[0].user_attrs["known_good"] == f"trial 3 of {old.name}"
    larger = create_or_open(storage, narrow, n_trials=8, pins=PINS)
    assert enqueue_carried(larger, carried) == 1
    assert not other_images(old, study)
    elsewhere = Study.model_validate(narrow.model_dump() | {"name": "elsewhere"})
    pins = AssetPins(dataset_sha256="f" * 64, teacher_sha256="e" * 64)
    assert other_images(old, create_or_open(storage, elsewhere, n_trials=None, pins=pins))


def test_the_worst_may_be_what_does_not_fit(make_study: MakeStudy, study_file: Study, worker: Worker) -> None:
    old = make_study(n_trials=2, known_good=({"alpha": 0.1}, {"alpha": 0.9}))
    run(old, worker, [0.8, 0.2])
    low = study_file.model_dump()["hyperparameters"] | {"alpha": {"type": "float", "low": 0.0, "high": 0.5}}
    carried = carry_over(old, Study.model_validate(study_file.model_dump() | {"name": "low", "hyperparameters": low}))
    begun, left_out = carried.told
    assert "trial 0 of digits" in begun
    assert "trial 1 of digits" in left_out
    assert "more" not in left_out


def test_what_the_other_study_does_not_know_or_fixes(make_study: MakeStudy, study_file: Study, worker: Worker) -> None:
    old = make_study(n_trials=1)
    run(old, worker, [0.5])
    settings = study_file.model_dump()["hyperparameters"]
    wider = settings | {"weight_decay": {"type": "float", "low": 0.0, "high": 0.1}, "alpha": 0.125}
    new = Study.model_validate(study_file.model_dump() | {"name": "wider", "hyperparameters": wider})
    carried = carry_over(old, new)
    (given,) = carried.trials
    assert given.params["weight_decay"] == old.config.hyperparameters.fixed()["weight_decay"]
    assert "alpha" not in given.params
    assert [line.partition(":")[0] for line in carried.told[1:]] == ["weight_decay", "alpha"]


def test_another_study_that_is_of_no_use(make_study: MakeStudy, study_file: Study, worker: Worker) -> None:
    old = make_study(n_trials=2, controls=("student",))
    new = Study.model_validate(study_file.model_dump() | {"name": "new"})
    run(old, worker, [0.5])
    with pytest.raises(NoCompletedTrial, match="no completed trial but controls"):
        carry_over(old, new)
    (claim,) = run(old, worker, [0.5])
    with pytest.raises(UsageError, match="is the study itself"):
        carry_over(old, old.config)
    far = study_file.model_dump()["hyperparameters"] | {"temperature": {"type": "float", "low": 50.0, "high": 60.0}}
    with pytest.raises(UsageError, match=r"no trial of it fits here; .* temperature .* is not 50 to 60; widen it"):
        carry_over(old, Study.model_validate(new.model_dump() | {"hyperparameters": far}))
    assert claim.hyperparameters["temperature"] < 50
