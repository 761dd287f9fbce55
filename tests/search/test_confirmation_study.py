"""The study of a confirmation: its arms and seeds are given, and nothing else is ever trained in it."""

from collections.abc import Callable

import pytest
from optuna.trial import TrialState

from igkd_hpo.api.confirm import check_complete
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.study import LARGEST_SEED
from igkd_hpo.errors import DataError, IgkdError, UsageError
from igkd_hpo.search.confirmation_study import (
    SEED_DISTANCE,
    Arm,
    arms_of,
    create_linked,
    extend,
    fresh_seeds,
    linked_name,
    merge_arms,
    open_confirmation,
    parent_of,
)
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Worker
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy, create_or_open, latest_study, study_names
from tests.search.conftest import PINS


def an_arm(study: SearchStudy, name: str, **changes: object) -> Arm:
    middle = {key: getattr(setting, "middle", setting) for key, setting in study.config.hyperparameters}
    return Arm(names=(name,), kinds=("candidate",), hyperparameters={**middle, **changes})


def work(study: SearchStudy, worker: Worker, *, end: str = "complete") -> Claim:
    leases = Leases(study)
    claim = leases.claim(worker)
    assert isinstance(claim, Claim)
    assert leases.start(claim, this_process(), "cpu")
    if end == "too large":
        assert leases.annotate(claim, {}, excess={"memory": 1.0})
        assert leases.prune(claim, "out of memory", {})
    else:
        assert leases.complete(claim, 0.9, {}) if end == "complete" else leases.fail(claim, "out of luck", {})
    return claim


def test_every_arm_is_trained_with_every_fresh_seed_and_nothing_else(
    storage: SharedStorage, make_study: Callable[..., SearchStudy], worker: Worker
) -> None:
    parent = make_study(controls=("student",))
    linked = create_linked(storage, parent.config, "confirm", pins=PINS)
    # A worker that comes before the arms are there must not make a trial of its own.
    assert Leases(linked).claim(worker) is Idle.FINISHED
    assert linked.trials() == []
    arms = [an_arm(linked, "a", alpha=0.5), an_arm(linked, "b", alpha=0.0), an_arm(linked, "c", learning_rate=50.0)]
    seeds = fresh_seeds(parent.config, 2)
    assert extend(linked, arms, seeds) == 6
    assert linked.read().n_trials == 6
    claims = [work(linked, worker) for _ in range(6)]
    assert Leases(linked).claim(worker) is Idle.FINISHED
    assert {(claim.control, claim.seed) for claim in claims} == {(arm, seed) for arm in "abc" for seed in seeds}
    assert {claim.hyperparameters["learning_rate"] for claim in claims if claim.control == "c"} == {50.0}
    assert linked.counts().complete == 6

    # More seeds and one more arm: only what is missing, and each trial once.
    assert extend(linked, [*arms, an_arm(linked, "d", alpha=0.7)], fresh_seeds(parent.config, 3)) == 6
    assert linked.read().n_trials == 12
    assert extend(linked, arms, seeds) == 0, "fewer seeds than before take nothing away"
    assert [arm.name for arm in arms_of(linked)] == ["a", "b", "c", "d"]
    pairs = [(trial.user_attrs["arm"], trial.user_attrs["seed"]) for trial in linked.trials()]
    assert sorted(pairs) == sorted({(arm, seed) for arm in range(4) for seed in fresh_seeds(parent.config, 3)})


@pytest.mark.parametrize("end", ["fail", "too large"])
def test_a_trial_without_a_result_is_queued_again_and_not_replaced_by_an_invented_one(
    storage: SharedStorage, make_study: Callable[..., SearchStudy], worker: Worker, end: str
) -> None:
    linked = create_linked(storage, make_study().config, "confirm", pins=PINS)
    arms = [an_arm(linked, "a")]
    extend(linked, arms, (7, 8))
    failed = work(linked, worker, end=end)
    work(linked, worker)
    assert Leases(linked).claim(worker) is Idle.FINISHED
    assert len(linked.trials()) == 2
    with pytest.raises(IgkdError, match="the last reason: out of"):
        check_complete(linked)
    assert extend(linked, arms, (7, 8)) == 1
    again = work(linked, worker)
    assert (again.seed, linked.read().n_trials) == (failed.seed, 2)
    check_complete(linked)
    assert extend(linked, arms, (7, 8)) == 0
    assert linked.counts().finished == 2


def test_an_interrupted_trial_keeps_its_seed(
    storage: SharedStorage, make_study: Callable[..., SearchStudy], worker: Worker
) -> None:
    linked = create_linked(storage, make_study().config, "confirm", pins=PINS)
    extend(linked, [an_arm(linked, "a")], (123, 124))
    leases = Leases(linked)
    first = leases.claim(worker)
    assert isinstance(first, Claim)
    leases.drop_worker(worker)
    second = leases.claim(worker)
    assert isinstance(second, Claim)
    assert (second.trial_id, second.seed, second.attempt) == (first.trial_id, 123, 2)


def test_it_is_found_from_its_parent_and_never_taken_for_the_latest_search(
    storage: SharedStorage, make_study: Callable[..., SearchStudy]
) -> None:
    parent = make_study()
    assert open_confirmation(storage, parent.name) is None
    linked = create_linked(storage, parent.config, "confirm", pins=PINS)
    found = open_confirmation(storage, parent.name)
    assert found is not None
    assert (found.name, found.confirms, parent_of(found).name) == ("digits-confirm", "digits", "digits")
    assert parent_of(parent).name == "digits"
    assert study_names(storage) == ["digits", "digits-confirm"]
    assert latest_study(storage) == "digits"
    assert linked.config.controls == ()
    assert linked.config.pruner.name == "none"
    assert all(t.state is not TrialState.WAITING for t in linked.trials())


def test_it_stays_with_the_parents_data_and_meaning(
    storage: SharedStorage, make_study: Callable[..., SearchStudy]
) -> None:
    parent = make_study()
    create_linked(storage, parent.config, "confirm", pins=PINS)
    with pytest.raises(DataError, match="the images here"):
        create_linked(
            storage, parent.config, "confirm", pins=AssetPins(dataset_sha256="x" * 64, teacher_sha256="e" * 64)
        )
    changed = parent.config.model_copy(update={"training": parent.config.training.model_copy(update={"epochs": 9})})
    with pytest.raises(UsageError, match=r"training.epochs: 6 -> 9"):
        create_linked(storage, changed, "confirm", pins=PINS)


def test_a_study_that_only_has_the_name_is_left_alone(
    storage: SharedStorage, make_study: Callable[..., SearchStudy]
) -> None:
    parent = make_study()
    taken = parent.config.model_copy(update={"name": linked_name(parent.name, "confirm")})
    create_or_open(storage, taken, n_trials=None, pins=PINS)
    assert open_confirmation(storage, parent.name) is None
    with pytest.raises(UsageError, match="'digits'"):
        create_linked(storage, parent.config, "confirm", pins=PINS)


def test_arms_that_train_the_same_are_one(make_study: Callable[..., SearchStudy]) -> None:
    study = make_study()
    cool = an_arm(study, "a", alpha=0.0, temperature=1.0)
    hot = an_arm(study, "b", alpha=0.0, temperature=8.0)
    bare = an_arm(study, "c", overlay_probability=0.0, overlay_strength=0.9)
    blank = an_arm(study, "d", overlay_probability=0.3, overlay_strength=0.0)
    other = an_arm(study, "e", alpha=0.5, temperature=8.0)
    joined = merge_arms([cool, hot, bare, blank, other, cool])
    assert [arm.names for arm in joined] == [("a", "b"), ("c", "d"), ("e",)]


def test_fresh_seeds_are_far_from_the_search_and_fit_a_study_file(make_study: Callable[..., SearchStudy]) -> None:
    config = make_study().config
    for seed in (0, 40, LARGEST_SEED):
        training = config.training.model_copy(update={"seed": seed})
        seeds = fresh_seeds(config.model_copy(update={"training": training}), 1000)
        assert len(set(seeds)) == 1000
        assert all(0 <= fresh <= LARGEST_SEED for fresh in seeds)
        assert min(abs(fresh - seed) for fresh in seeds) > SEED_DISTANCE - 1001
        assert not {*range(seed, seed + 10_000)} & set(seeds)
