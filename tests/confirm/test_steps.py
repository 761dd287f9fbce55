"""What each step up in size buys, from the frontier of a search to the sentence."""

import pytest

from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.confirmation import Confirmation
from igkd_hpo.confirmation.plan import best_candidates, feasible_controls, frontier_candidates, planned_arms
from igkd_hpo.confirmation.sentences import confirmation_json, sentences
from igkd_hpo.errors import UsageError
from igkd_hpo.search.confirmation_study import create_linked, extend, fresh_seeds
from igkd_hpo.search.frontier import frontier
from igkd_hpo.search.study import SearchStudy
from tests.confirm.test_confirmation import EVEN, PINS, confirm, searched, test, train

__all__ = ["searched"]
SIZES = {0: 900_000, 1: 900_000, 2: 20_000, 3: 10_000, 4: 80_000}


@pytest.fixture
def sized(searched: SearchStudy) -> SearchStudy:
    """Trials 3, 2 and 4 are the frontier, and the last step is smaller than the interval of 4,000 images."""
    for trial in searched.trials():
        if trial.number in SIZES:
            right = round(4000 * (trial.value or 0))
            worst = [{"name": "a", "images": 4000, "right": right, "answered": 4000, "mistaken_for": None}]
            trial.user_attrs["parameters"] = SIZES[trial.number]  # as the storage's cache holds it
            trial.user_attrs["classes"] = {"count": 1, "worst": worst, "runs": 1}
    return searched


def confirm_frontier(study: SearchStudy, *, top: int = 5) -> SearchStudy:
    linked, steps = create_linked(study.storage, study.config, "confirm", pins=PINS), frontier_candidates(study, top)
    arms = planned_arms(study.config, [*best_candidates(study, 1), *steps], feasible_controls(study))
    extend(linked, arms, fresh_seeds(study.config, 3), steps)
    return linked


def bought(found: Confirmation) -> list[tuple[str, str]]:
    return [(found.arm(step.smaller).name, found.arm(step.larger).name) for step in found.steps]


def test_steps_larger_than_the_interval_are_confirmed(sized: SearchStudy) -> None:
    linked = confirm_frontier(sized)
    sizes = {f"trial {number}": size for number, size in SIZES.items()}
    train(linked, EVEN | {"trial 3": 0.80}, parameters=sizes)
    found = test(linked)
    assert [arm.name for arm in found.arms][:3] == ["trial 4", "trial 3", "trial 2"]
    assert bought(found) == [("trial 3", "trial 2")]
    assert found.steps[0].contrast.difference.value == pytest.approx(0.1)
    said = [line for line in sentences(found) if line.startswith("The step")]
    assert len(said) == 1
    assert "from trial 3 (10,000 parameters) to trial 2 (2.0 times as many) buys +10.0 points on test (+" in said[0]
    assert confirmation_json(found)["steps"][0]["smaller"] == found.steps[0].smaller


def test_a_step_that_fresh_seeds_do_not_show_is_said(sized: SearchStudy) -> None:
    train(linked := confirm_frontier(sized), EVEN | {"trial 3": 0.899})
    found = test(linked)
    assert not found.steps[0].contrast.significant
    assert any(line.startswith("What the step") and "cannot be told" in line for line in sentences(found))


def test_an_arm_that_diverged_is_passed_over(sized: SearchStudy) -> None:
    train(linked := confirm_frontier(sized), EVEN | {"trial 3": float("nan")})
    assert test(linked).steps == ()


def test_the_same_command_goes_on_with_the_same_students(sized: SearchStudy) -> None:
    for trial in sized.trials():
        if trial.number in SIZES:
            trial.user_attrs["classes"]["worst"][0]["images"] = 40_000
    planned = [arm.trial for arm in frontier_candidates(sized, 5)]
    train(confirm_frontier(sized), EVEN | {"trial 3": 0.80})
    told_apart = frontier(sized, "parameters").told_apart
    assert [step.trial for step in told_apart] == [3, 2], "of what fresh seeds say, the last step is a tie"
    assert [arm.trial for arm in frontier_candidates(sized, 5)] == planned == [3, 2, 4]


def test_of_many_steps_the_smallest_student_and_the_largest_steps_are_taken(searched: SearchStudy) -> None:
    for trial, size in zip(searched.trials(), (10, 20, 30, 90, 40), strict=False):  # 0.70, 0.75, 0.80, -, 0.81
        trial.user_attrs["parameters"] = size
    assert [arm.trial for arm in frontier_candidates(searched, 5)] == [0, 1, 2, 4]
    assert [arm.trial for arm in frontier_candidates(searched, 3)] == [0, 1, 2]
    with pytest.raises(UsageError, match="--top 1"):
        frontier_candidates(searched, 1)


def test_a_confirmation_of_the_best_few_has_no_steps_and_keeps_those_of_before(sized: SearchStudy) -> None:
    train(linked := confirm_frontier(sized), EVEN | {"trial 3": 0.80})
    assert len(test(linked).steps) == 1
    train(confirm(sized, seeds=3), EVEN | {"trial 3": 0.80})
    assert bought(test(linked)) == [("trial 3", "trial 2")]


def test_where_no_step_is_larger_than_the_interval_it_is_said(searched: SearchStudy) -> None:
    with pytest.raises(UsageError, match="--frontier"):
        frontier_candidates(searched, 5)  # all of one size
    train(linked := confirm(searched, seeds=2), EVEN)
    assert test(linked).steps == ()


def test_of_a_study_with_strata_the_best_of_each_is_confirmed(sized: SearchStudy) -> None:
    # Controls of 900,000 are left out, and trial 4 is a step of less than the interval.
    of = {"of": "parameters", "at": (15_000.0, 100_000.0, 1_000_000.0)}
    sized.config = Study.model_validate(sized.config.model_dump() | {"strata": of})
    assert [arm.trial for arm in frontier_candidates(sized, 5)] == [3, 4]
    linked = confirm_frontier(sized)
    assert linked.config.strata is None
    train(linked, EVEN | {"trial 3": 0.80})
    assert bought(test(linked)) == [("trial 3", "trial 4")]
    sized.config = Study.model_validate(sized.config.model_dump() | {"strata": of | {"at": (1.0, 1_000_000.0)}})
    with pytest.raises(UsageError, match="fewer than two strata"):
        frontier_candidates(sized, 5)
