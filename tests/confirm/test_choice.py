"""What is taken home under a limit, with and without a confirmation."""

from igkd_hpo.confirmation.choice import best_or_confirmed, confirmed_under, describe_trial, summary_under
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.study import SearchStudy
from tests.confirm.test_confirmation import EVEN, LARGE, SMALL, confirm, searched, test, train

__all__ = ["searched"]


def with_sizes(study: SearchStudy, sizes: dict[int, int]) -> SearchStudy:
    """Give trials other numbers of parameters than the fixture's; the database alone is read afterwards."""
    for trial in study.trials():
        if trial.number in sizes:
            trial.user_attrs["parameters"] = sizes[trial.number]  # as the storage's cache holds it
    return study


def test_what_was_not_confirmed_is_taken_from_the_search(searched: SearchStudy) -> None:
    with_sizes(searched, {2: LARGE, 3: SMALL, 4: LARGE})
    source, best = best_or_confirmed(searched, under={"parameters": 150_000})
    assert (source.name, best.number, best.confirmed) == ("digits", 3, None)
    assert "at most 150,000 parameters (not confirmed" in describe_trial(source, best)
    assert "highest of 3 completed trials within the limits" in summary_under(searched, {"parameters": 150_000})
    provenance = exported_study(source, best).provenance
    assert provenance is not None
    assert provenance.model_extra is not None
    assert provenance.model_extra["under"] == {"parameters": 150_000}


def test_a_confirmation_chooses_among_what_is_within(searched: SearchStudy) -> None:
    with_sizes(searched, {2: SMALL, 4: LARGE})
    linked = confirm(searched)
    sizes = {"trial 2": SMALL + 50, "student": SMALL, "kd": SMALL}
    train(linked, EVEN | {"trial 2": 0.80, "student": 0.85, "kd": 0.70}, parameters=sizes)
    whole = test(linked)
    assert whole.arm(whole.chosen).name not in ("trial 2", "student", "kd")
    under = {"parameters": SMALL}  # timed or counted again, trial 2 costs more
    source, best = best_or_confirmed(searched, under=under)
    assert best_trial(searched, under=under).number == 2
    assert best.confirmed is not None
    assert (source.name, best.confirmed["arm"]) == (linked.name, "student")
    found = confirmed_under(searched, best_trial(searched, under=under))
    assert found is not None
    assert [arm.name for arm in found.arms] == ["trial 2", "student", "kd"]
    assert summary_under(searched, under).startswith("take student of digits, confirmed with 5 fresh seeds: 85.")


def test_no_limit_that_counts_takes_what_export_takes(searched: SearchStudy) -> None:
    train(linked := confirm(searched), EVEN, parameters={"trial 2": SMALL})
    test(linked)
    plain, limited = best_or_confirmed(searched), best_or_confirmed(searched, under={"parameters": 1e9})
    assert plain[1].confirmed == limited[1].confirmed
    assert best_or_confirmed(linked, under={"parameters": 1e9})[1].number == plain[1].number


def test_a_better_trial_that_was_not_confirmed_goes_before_a_confirmed_one(searched: SearchStudy) -> None:
    linked = confirm(searched)
    train(linked, EVEN, parameters={"student": SMALL, "kd": SMALL})
    test(linked)
    with_sizes(searched, {2: LARGE, 4: LARGE, 3: SMALL})  # of the controls, 0 and 1, neither was better in the search
    assert best_or_confirmed(searched, under={"parameters": 150_000})[1].number == 3
