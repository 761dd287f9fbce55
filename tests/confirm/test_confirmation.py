"""From the trials of a linked study to what is said about them; trained by nobody, with accuracies made up."""

import json
import math
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.confirmation.choice import best_or_confirmed, describe_trial
from igkd_hpo.confirmation.confirmation import Confirmation, confirmation_of, read_confirmation
from igkd_hpo.confirmation.evaluation import untested
from igkd_hpo.confirmation.plan import (
    best_candidates,
    candidate_of_file,
    check_same_search,
    feasible_controls,
    planned_arms,
)
from igkd_hpo.confirmation.sentences import (
    classes_in_words,
    confirmation_json,
    confirmation_table,
    headline,
    sentences,
    short_answer,
)
from igkd_hpo.confirmation.statistics import contrasts
from igkd_hpo.distillation.recipe import as_written
from igkd_hpo.errors import NoCompletedTrial, StudyFileError, UsageError
from igkd_hpo.search.confirmation_study import create_linked, extend, fresh_seeds
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Leases, Worker
from igkd_hpo.search.status import status
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.terminal.status_board import status_board
from igkd_hpo.words import percent
from tests.fixtures.studies import EXECUTION

PINS = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)
IMAGES = 1000
SMALL, LARGE = 100_000, 200_000


@pytest.fixture
def searched(study: SearchStudy, run) -> SearchStudy:
    for accuracy in (0.70, 0.75, 0.80, 0.78, 0.81):
        run(0.5, 0.6, accuracy)
    return study


def confirm(study: SearchStudy, *, top: int = 2, seeds: int = 5) -> SearchStudy:
    linked = create_linked(study.storage, study.config, "confirm", pins=PINS)
    arms = planned_arms(study.config, best_candidates(study, top), feasible_controls(study))
    extend(linked, arms, fresh_seeds(study.config, seeds))
    return linked


def train(
    linked: SearchStudy,
    accuracy: dict[str, float],
    *,
    parameters: dict[str, int] | None = None,
    spread: float = 0.005,
) -> None:
    """End what is queued. An arm's accuracy goes up and down by `spread` from seed to seed; nan diverges."""
    storage = linked.storage
    with linked.transaction():  # one transaction for all, which is 30 times faster than a worker
        for trial in [trial for trial in linked.trials() if trial.state is TrialState.WAITING]:
            name, seed = trial.user_attrs["arm_name"], trial.user_attrs["seed"]
            storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            if math.isnan(accuracy[name]):
                storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED, [0.0])
                continue
            size = (parameters or {}).get(name, LARGE)
            for key, value in {"execution": EXECUTION, "parameters": size, "compression_factor": 4.1}.items():
                storage.set_trial_user_attr(trial._trial_id, key, value)
            value = accuracy[name] + spread * (seed % 3 - 1)
            storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [value])


def test(linked: SearchStudy) -> Confirmation:
    """Pretend that each network did on the test split as on validation."""
    done = [trial for trial in linked.trials() if trial.state is TrialState.COMPLETE]
    accuracies = {str(trial.number): trial.value for trial in done}
    kept = {"accuracies": accuracies, "images": IMAGES, "opened": ["2026-11-21T00:00:00+00:00"]}
    linked.storage.set_study_user_attr(linked.study_id, "test_split", kept)
    found = read_confirmation(linked)
    assert found is not None
    return found


test.__test__ = False  # type: ignore[attr-defined]

EVEN = {
    "trial 4": 0.90, "trial 2": 0.90, "trial 4 without IG": 0.90, "trial 4 without KD": 0.90,
    "trial 4 without both": 0.90, "student": 0.90, "kd": 0.90,
}  # fmt: skip


def said(found: Confirmation) -> str:
    return "\n".join(sentences(found))


def test_the_arms_are_the_best_the_parts_and_the_controls(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN)
    found = test(linked)
    assert [arm.name for arm in found.arms] == list(EVEN)
    best = searched.trials()[4].user_attrs["hyperparameters"]
    by_name = {arm.name: arm for arm in found.arms}
    assert by_name["trial 4"].hyperparameters == best
    assert by_name["trial 4 without KD"].hyperparameters == {**best, "alpha": 0.0}
    assert by_name["trial 4 without both"].hyperparameters == {**best, "alpha": 0.0, "overlay_probability": 0.0}
    assert by_name["kd"].hyperparameters["alpha"] == 0.9
    assert {arm.seeds for arm in found.arms} == {fresh_seeds(searched.config, 5)}
    assert not {t.user_attrs["seed"] for t in searched.trials() if "seed" in t.user_attrs} & set(found.arms[0].seeds)


def test_equals_are_called_equal(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN)
    found = test(linked)
    text = said(found)
    assert not found.named
    assert not found.inconclusive
    assert len(found.tie_set) == 7
    assert "These 7 of 7 cannot be told apart with 5 seeds" in text
    assert "Whether IG helps trial 4 on this data cannot be told" in text
    assert "Whether IG and KD together help trial 4 on this data cannot be told" in text
    # 0.81 in the search, and 0.8990 with seeds 40 + 1,000,000 to 4 more
    assert "The search saw 81.00 % on validation for trial 4; fresh seeds have" in text
    assert "significantly" not in text


def test_the_short_answer_begins_with_what_export_takes(searched: SearchStudy) -> None:
    linked = confirm(searched, seeds=2)
    train(linked, dict.fromkeys(EVEN, 0.99) | {"trial 4": 0.991}, parameters={"kd": LARGE - 1})
    found = test(linked)
    chosen = found.arm(found.chosen)
    assert chosen.name != found.arm(found.best).name
    assert found.arm(found.best).test.mean.high == found.arm(found.best).validation.mean.high == 1
    first, why, *parts, last = short_answer(found)
    assert first.startswith(f"digits: take {chosen.name}, {percent(chosen.test.mean.value)} ")
    assert "smallest" in why
    assert len(parts) == 3
    assert "igkd-hpo export" in last


def test_a_real_winner_is_named_and_its_parts_are_judged(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN | {"trial 4": 0.95, "trial 4 without IG": 0.92, "trial 4 without KD": 0.95})
    found = test(linked)
    assert (found.arm(found.best).name, found.named) == ("trial 4", False)
    assert [found.arm(n).name for n in found.tie_set] == ["trial 4", "trial 4 without KD"]
    verdicts = {answer.question: answer.verdict for answer in found.answers}
    assert verdicts == {"ig": "helps", "kd": "unknown", "both": "helps"}
    text = said(found)
    assert "IG helps trial 4 on this data: it gains +3.0 points on test" in text
    assert found.gain == pytest.approx(0.05)
    assert found.shrunken_gain is not None
    assert 0.04 < found.shrunken_gain < 0.05

    linked = confirm(searched, seeds=6)  # one more seed for all, that the test split has not seen
    train(linked, EVEN | {"trial 4": 0.95, "trial 4 without IG": 0.92, "trial 4 without KD": 0.99})
    assert len(untested(linked)) == 7
    assert test(linked).n_seeds == 6


def test_what_hurts_is_said_too_and_one_alone_is_named(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN | {"trial 4": 0.85, "trial 2": 0.97})
    found = test(linked)
    assert (found.arm(found.best).name, found.named) == ("trial 2", True)
    text = said(found)
    assert text.startswith("trial 2 is the best of 7: 97.00 % on test (")
    assert "IG hurts trial 4 on this data: it changes by -5.0 points" in text
    assert "IG and KD together hurt trial 4 on this data" in text


def test_the_searchs_best_is_compared_with_each_control_as_a_family_of_its_own(searched: SearchStudy) -> None:
    """Whatever arm has the highest mean: the question was fixed before the fresh seeds ran."""
    linked = confirm(searched)
    train(linked, EVEN | {"trial 2": 0.99, "trial 4": 0.93, "student": 0.90, "kd": 0.929})
    found = test(linked)
    assert found.arm(found.best).name == "trial 2"
    assert [(answer.control, answer.verdict) for answer in found.controls] == [("student", "better"), ("kd", "unknown")]
    samples = {arm.name: arm.test.accuracies for arm in found.arms}
    names = list(samples)
    pairs = [(names.index("trial 4"), names.index(control)) for control in ("student", "kd")]
    alone = contrasts(list(samples.values()), pairs, resolution=1 / IMAGES)
    assert [answer.contrast for answer in found.controls] == alone, "corrected for the two controls, not for all pairs"
    (sentence,) = [sentence for sentence in sentences(found) if "the search's best" in sentence]
    assert all(name in sentence for name in ("trial 4", "plain training (student", "kd"))

    worse = confirm(searched, seeds=7)
    train(worse, EVEN | {"trial 4": 0.80, "kd": float("nan")})
    verdicts = {answer.control: answer.verdict for answer in test(worse).controls}
    assert verdicts == {"student": "unknown", "kd": "untested"}


def test_a_search_that_found_its_own_control_has_nothing_to_compare(searched: SearchStudy, run) -> None:
    """The arm of both is one arm: no contrast of an arm with itself."""
    student = searched.trials()[0].user_attrs["hyperparameters"]
    params = {key: student[key] for key in ("alpha", "temperature", "overlay_strength", "learning_rate", "batch_size")}
    searched.optuna_study.enqueue_trial({**params, "alpha": 0.0, "overlay_strength": 0.5})
    run(0.5, 0.6, 0.99)
    linked = confirm(searched, top=1)
    names = {trial.user_attrs["arm_name"] for trial in linked.trials()}
    train(linked, dict.fromkeys(names, 0.9))
    found = test(linked)
    assert found.controls
    assert found.subject not in {answer.arm for answer in found.controls}


def test_of_equals_the_smallest_is_chosen(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN | {"trial 4": 0.902, "kd": 0.80}, parameters={"trial 2": SMALL, "kd": 10})
    found = test(linked)
    assert found.arm(found.best).name == "trial 4"
    assert found.arm(found.chosen).name == "trial 2", "kd is smaller, and worse"
    assert "trial 2 is the smallest, with 100,000 parameters and 90.00 %" in said(found)


@pytest.mark.parametrize(
    ("spread", "inconclusive"), [(0.005, False), (0.05, True)], ids=["a small difference", "a large one"]
)
def test_a_tie_that_hides_large_differences_says_nothing(
    searched: SearchStudy, spread: float, inconclusive: bool
) -> None:
    linked = confirm(searched, seeds=2)
    train(linked, EVEN | {"trial 4": 0.902}, parameters={"kd": SMALL}, spread=spread)
    found = test(linked)
    assert [found.arm(number).name for number in (found.best, found.chosen)] == ["trial 4", "kd"]
    against = found.arm(found.chosen).against
    assert against is not None
    assert found.detectable == against.detectable
    assert (found.inconclusive, found.detectable > 0.05) == (inconclusive, inconclusive)
    assert confirmation_json(found)["inconclusive"] is inconclusive
    for line in (headline(found), *list(sentences(found))[:1], *list(short_answer(found))[:1]):
        assert ("othing can be told yet" in line) == inconclusive
    source, best = best_or_confirmed(searched)
    assert ("othing can be told yet" in describe_trial(source, best)) == inconclusive
    assert best.confirmed is not None
    assert best.confirmed["inconclusive"] is inconclusive


@pytest.mark.parametrize(("common", "at_chance"), [(500, False), (910, True)])
def test_a_choice_that_may_only_guess_says_nothing(searched: SearchStudy, common: int, at_chance: bool) -> None:
    linked = confirm(searched)
    train(linked, EVEN)
    counts = {"right": [450, 450], "answered": [500, 500], "mistaken_for": [1, 0], "mistaken": [50, 50]}
    tallies = {str(trial.number): counts for trial in linked.trials()}
    test(linked)
    kept = dict(linked.read().attributes["test_split"])
    kept["classes"] = {"names": ["a", "b"], "images": [common, IMAGES - common], "trials": tallies}
    linked.storage.set_study_user_attr(linked.study_id, "test_split", kept)
    found = read_confirmation(linked)
    assert found is not None
    assert found.guessing == common / IMAGES
    assert (found.at_chance, found.inconclusive) == (at_chance, at_chance)


def test_plain_training_gains_nothing_over_plain_training(searched: SearchStudy) -> None:
    """Neither the control `student` nor the search's best with both parts taken out uses the teacher."""
    linked = confirm(searched)
    train(linked, EVEN | {"student": 0.99})
    found = test(linked)
    assert found.arm(found.best).name == "student"
    assert (found.gain, found.shrunken_gain) == (None, None)


def test_a_part_that_is_not_there_cannot_help(searched: SearchStudy, run) -> None:
    searched.optuna_study.enqueue_trial(
        {"alpha": 0.0, "temperature": 2.0, "overlay_strength": 0.5, "learning_rate": 0.1, "batch_size": 64}
    )
    run(0.5, 0.6, 0.99)
    linked = confirm(searched, top=1)
    train(linked, dict.fromkeys(["trial 5", "trial 5 without IG", "student", "kd"], 0.9))
    found = test(linked)
    assert found.arms[0].names == ("trial 5", "trial 5 without KD")
    assert found.arms[1].names == ("trial 5 without IG", "trial 5 without both")
    assert {answer.question: answer.verdict for answer in found.answers}["kd"] == "absent"
    assert "KD: nothing can be said, because trial 5 does without distillation." in said(found)


def test_an_arm_that_diverged_is_shown_and_not_compared(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN | {"kd": float("nan")})
    found = test(linked)
    assert "kd" not in [arm.name for arm in found.arms]
    linked = confirm(searched, seeds=8)
    train(linked, EVEN | {"kd": 0.99})
    found = test(linked)
    (kd,) = [arm for arm in found.arms if arm.name == "kd"]
    assert (kd.diverged, kd.against, kd.number in found.tie_set) == (5, None, False)
    assert "The loss of kd was not finite with 5 seeds" in said(found)


def test_a_seed_that_was_too_large_for_the_memory_did_not_diverge(searched: SearchStudy) -> None:
    linked = confirm(searched)
    with linked.transaction():
        (trial, *_) = [trial for trial in linked.trials() if trial.user_attrs["arm_name"] == "kd"]
        linked.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        linked.storage.set_trial_system_attr(trial._trial_id, "constraints:memory", 1.0)
        linked.storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
    train(linked, EVEN)
    (kd,) = [arm for arm in test(linked).arms if arm.name == "kd"]
    assert (kd.diverged, len(kd.seeds)) == (0, 4)
    assert kd.against is not None


def test_it_is_plain_json_and_a_table(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN)
    found = test(linked)
    plain = json.loads(json.dumps(confirmation_json(found)))
    assert plain["study"] == "digits"
    assert plain["arms"][0]["test"]["accuracies"] == list(found.arms[0].test.accuracies)
    assert plain["sentences"] == list(sentences(found))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(confirmation_table(found))
    text = console.export_text()
    assert all(name.split()[0] in text for name in EVEN)
    assert "…" not in text
    assert text.count("tied") + text.count("smallest") + text.count("best\n") >= len(found.tie_set)
    console.file.close()


def test_export_takes_the_confirmed_choice(searched: SearchStudy) -> None:
    linked = confirm(searched)
    assert best_or_confirmed(searched)[1].confirmed is None, "nothing was tested yet"
    train(linked, EVEN | {"trial 2": 0.97})
    found = test(linked)
    for given in (searched, linked):
        source, best = best_or_confirmed(given)
        assert "trial 2 of digits, confirmed with 5 fresh seeds: 97" in describe_trial(source, best)
        exported = exported_study(source, best)
        assert exported.name == "digits-best"
        again = parse_study(to_yaml(exported), source="best.yaml")
        assert again == exported
        assert again.hyperparameters.model_dump() == as_written(found.arm(found.chosen).hyperparameters)
        assert again.training.seed == fresh_seeds(searched.config, 1)[0]
        assert again.provenance is not None
        assert again.provenance.model_extra is not None
        confirmed = again.provenance.model_extra["confirmed"]
        assert (confirmed["trial"], confirmed["n_seeds"], confirmed["named"]) == (2, 5, True)
        assert confirmed["test_accuracy"] == found.arm(found.chosen).test.mean.value
    # The exported file can be confirmed itself.
    assert candidate_of_file(exported).hyperparameters == exported.hyperparameters.fixed()
    with pytest.raises(UsageError, match="still searches"):
        candidate_of_file(searched.config)


def test_status_groups_it_with_its_parent(searched: SearchStudy, storage: SharedStorage) -> None:
    linked = confirm(searched)
    train(linked, EVEN)
    found = status(storage)
    assert [(study.name, study.confirms) for study in found] == [("digits", None), ("digits-confirm", "digits")]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(status_board(found, 80))
    (line,) = [line for line in console.export_text().splitlines() if "digits-confirm" in line]
    assert line.startswith("  digits-confirm")
    assert "%" not in line, "the luckiest seed of all arms is not a result"
    console.file.close()


def test_only_the_search_has_candidates(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    run(0.5, 0.6, 0.75)
    with pytest.raises(NoCompletedTrial, match=r"digits .*2 complete.*`igkd-hpo launch digits`"):
        best_candidates(study, 3)
    run(0.5, 0.6, 0.60)
    assert [arm.name for arm in best_candidates(study, 3)] == ["trial 2"]


def test_while_the_search_runs_its_first_trial_is_waited_for(study: SearchStudy, run) -> None:
    run(0.5, 0.6, 0.70)
    Leases(study).claim(Worker(name="worker-0", process=this_process()))
    with pytest.raises(NoCompletedTrial, match=r"1 complete, 1 running.*wait"):
        best_candidates(study, 3)


def test_a_search_that_was_made_anew_is_noticed(searched: SearchStudy) -> None:
    linked = confirm(searched)
    check_same_search(searched, linked)
    arms = linked.read().attributes["arms"]
    arms[0]["hyperparameters"]["temperature"] = 1.5
    linked.storage.set_study_user_attr(linked.study_id, "arms", arms)
    with pytest.raises(StudyFileError, match=r"digits-confirm .* digits: .*`igkd-hpo delete digits-confirm`"):
        check_same_search(searched, linked)


def test_nothing_is_known_before_the_test_split_was_read(searched: SearchStudy) -> None:
    assert confirmation_of(searched) is None
    linked = confirm(searched)
    train(linked, EVEN)
    assert confirmation_of(searched) is None
    assert len(untested(linked)) == 35


def test_another_metric_is_named_and_its_intervals_are_its_own(searched: SearchStudy) -> None:
    config = searched.config.model_copy(update={"metric": "balanced_accuracy"})
    linked = create_linked(searched.storage, config, "confirm", pins=PINS)
    extend(linked, planned_arms(config, best_candidates(searched, 1), ()), fresh_seeds(config, 2))
    done = [trial.number for trial in linked.trials()]
    train(linked, dict.fromkeys(EVEN, 0.9))
    tally = {"right": [969, 20], "answered": [979, 21], "mistaken_for": [1, 0], "mistaken": [1, 10]}
    kept = {
        "accuracies": dict.fromkeys(map(str, done), (969 / 970 + 20 / 30) / 2),
        "images": IMAGES,
        "opened": ["2026-11-21T00:00:00+00:00"],
        "classes": {"names": ["fine", "crack"], "images": [970, 30], "trials": dict.fromkeys(map(str, done), tally)},
    }
    linked.storage.set_study_user_attr(linked.study_id, "test_split", kept)
    found = read_confirmation(linked)
    assert found is not None
    # An image in 30 is 1.7 points: half of the standard error of 20 right in 30, and next to nothing of the others.
    share, other = 21 / 32, 970 / 972
    error = ((share * (1 - share) / 30 + other * (1 - other) / 970) / 4) ** 0.5
    assert found.sampling_error == pytest.approx(error)
    assert f"all values of balanced accuracy together by {200 * error:.1f} points" in said(found)
    assert "% balanced accuracy on test" in said(found)
    # All seeds did the same: what is left is the rounding to whole images of the rare class.
    plain = confirmation_of_accuracy(kept, linked)
    assert found.arms[0].against is not None
    assert found.answers[0].contrast is not None
    assert plain.answers[0].contrast is not None
    ratio = found.answers[0].contrast.detectable / plain.answers[0].contrast.detectable
    assert ratio == pytest.approx((30**-2 + 970**-2) ** 0.5 / 2 * IMAGES)
    assert found.classes is not None
    assert [(one.name, one.right, one.images, one.mistaken_for) for one in found.classes.worst] == [
        ("crack", 40, 60, "fine"),
        ("fine", 1938, 1940, "crack"),
    ]
    (line,) = [line for line in classes_in_words(found) if "crack " in line and "fine" in line and "66.67 %" in line]
    assert line.split()[:2] == ["crack", "30"]
    assert confirmation_json(found)["classes"]["worst"][0]["recall"] == pytest.approx(2 / 3)
    chosen = best_or_confirmed(linked)[1]
    assert "% balanced accuracy on 1,000 test images" in describe_trial(linked, chosen)


def confirmation_of_accuracy(kept: dict[str, Any], linked: SearchStudy) -> Confirmation:
    """Read the same results as if they were accuracies."""
    accuracy = SearchStudy(linked.storage, linked.name)
    accuracy.config = linked.config.model_copy(update={"metric": "accuracy"})
    found = read_confirmation(accuracy)
    assert found is not None
    return found
