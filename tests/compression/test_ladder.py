"""From the trials of a ladder to what is said about them; trained by nobody, with accuracies made up."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from igkd_hpo.api.confirm import refuse_linked
from igkd_hpo.compression.int8 import Int8Change, keep_int8
from igkd_hpo.compression.ladder import ladder_of, read_ladder
from igkd_hpo.compression.plan import (
    begun_with,
    check_same_settings,
    check_taught,
    configuration,
    is_taught,
    planned_arms,
)
from igkd_hpo.compression.rung import Rung, keep_rungs, rungs_of
from igkd_hpo.compression.sentences import ladder_json, ladder_table, sentences, step_rows
from igkd_hpo.confirmation.choice import best_or_confirmed
from igkd_hpo.confirmation.confirmation import confirmation_of
from igkd_hpo.errors import NoCompletedTrial, StudyUnusable, UsageError
from igkd_hpo.report.page import write_report
from igkd_hpo.search.best import best_trial
from igkd_hpo.search.confirmation_study import arms_of, extend, fresh_seeds, open_confirmation, open_linked
from igkd_hpo.search.note import study_note
from igkd_hpo.search.status import status
from igkd_hpo.search.study import SearchStudy, latest_study
from igkd_hpo.settings import Paths, Settings
from tests.fixtures.ladders import RUNGS, begin_ladder, climb

LEVEL = {"4.1 times distilled": 0.90, "4.1 times plain": 0.90, "12 times distilled": 0.90, "12 times plain": 0.90}


@pytest.fixture
def searched(study: SearchStudy, run) -> SearchStudy:
    for accuracy in (0.70, 0.75, 0.80, 0.78, 0.81):
        run(0.5, 0.6, accuracy)
    return study


def test_each_rung_has_two_arms_with_the_settings_of_the_best(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    best = searched.trials()[4].user_attrs["hyperparameters"]
    distilled, plain, *_ = arms = arms_of(linked)
    assert [arm.name for arm in arms] == list(LEVEL)
    assert [arm.kinds for arm in arms] == [("distilled",), ("plain",)] * 2
    assert {arm.trial for arm in arms} == {4}
    assert distilled.hyperparameters == {**best, "layers_removed": 5}
    assert plain.hyperparameters == {**best, "layers_removed": 5, "alpha": 0.0, "overlay_probability": 0.0}
    assert (linked.name, linked.confirms, linked.purpose) == ("digits-ladder", "digits", "ladder")
    assert len(linked.trials()) == linked.read().n_trials == 12
    assert rungs_of(linked) == RUNGS


def test_where_distillation_helps_is_told_by_the_p_value_as_by_confirm(searched: SearchStudy) -> None:
    found = climb(begin_ladder(searched), LEVEL | {"4.1 times distilled": 0.9103, "12 times distilled": 0.95})
    gain = found.steps[0].gain
    assert gain is not None
    assert gain.difference.low < 0 < gain.difference.value, (
        "the interval holds for both rungs, and is wider than Holm's"
    )
    assert gain.p_value < 0.05
    assert [step.verdict for step in found.steps] == ["helps", "helps"]


def test_a_rise_is_told_by_the_p_value_too(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    more = Rung(asked=29.0, reached=28.97, student={"architecture": "mobilenet_v2", "layers_removed": 11})
    keep_rungs(linked, [*RUNGS[:2], more])
    extend(linked, planned_arms(configuration(searched, None), [*RUNGS[:2], more]), fresh_seeds(searched.config, 3))
    fallen = {"4.1 times plain": 0.95, "12 times plain": 0.90, "29 times plain": 0.9103, "29 times distilled": 0.90}
    (rise,) = climb(linked, LEVEL | fallen).rises
    assert (rise.kind, rise.larger, rise.smaller) == ("plain", 12.04, 28.97)
    assert rise.contrast.difference.low < 0


def test_where_distillation_helps_it_is_told_with_how_much(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    found = climb(linked, LEVEL | {"4.1 times distilled": 0.903, "12 times distilled": 0.95})
    assert [(step.asked, step.verdict) for step in found.steps] == [(4.1, "unknown"), (12.0, "helps")]
    gain = found.steps[1].gain
    assert gain is not None
    assert gain.difference.value == pytest.approx(0.05)
    assert gain.difference.low > 0
    assert [step.reached for step in found.steps] == [4.115, 12.04]
    assert (found.trial, found.n_seeds, found.n_test_images) == (4, 3, 1000)
    assert [rung.asked for rung in found.left_out] == [1122.0]
    assert found.steps[0].cost["latency_ms"] == 2.0, "the median of all trainings of that student"
    hurt = climb(begin_ladder(searched, seeds=4), LEVEL | {"12 times distilled": 0.95})
    assert hurt.n_seeds == 4, "more seeds are added to the same ladder"


def test_a_smaller_student_that_is_better_is_told(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    found = climb(linked, LEVEL | {"12 times plain": 0.93})
    assert [(rise.kind, rise.larger, rise.smaller) for rise in found.rises] == [("plain", 4.115, 12.04)]
    assert found.rises[0].contrast.difference.value == pytest.approx(0.03)
    assert found.steps[1].verdict == "hurts"
    assert sum("smaller one is better" in line for line in sentences(found)) == 1


@pytest.mark.parametrize("smaller", [0.903, 0.87])
def test_a_rise_within_the_noise_and_a_fall_are_passed_over(searched: SearchStudy, smaller: float) -> None:
    found = climb(begin_ladder(searched), LEVEL | {"12 times plain": smaller, "12 times distilled": smaller})
    assert found.rises == ()
    assert not any("smaller one" in line for line in sentences(found))


def test_an_arm_that_diverged_is_shown_and_not_compared(searched: SearchStudy) -> None:
    found = climb(begin_ladder(searched, seeds=5), LEVEL | {"12 times plain": float("nan")})
    broken = found.steps[1]
    assert (broken.verdict, broken.gain) == ("untested", None)
    assert broken.plain is not None
    assert broken.plain.diverged == 2
    assert found.n_seeds == 5, "of those that are compared"
    assert found.rises == ()


def test_the_table_fits_a_terminal_and_json_is_whole(searched: SearchStudy) -> None:
    found = climb(begin_ladder(searched), LEVEL | {"12 times distilled": 0.95})
    shown = io.StringIO()
    Console(file=shown, width=80).print(ladder_table(found))
    assert all(len(line) <= 80 for line in shown.getvalue().splitlines())
    assert "95.0 ± 1.2" in shown.getvalue()
    assert "…" not in shown.getvalue()
    assert [row.student for row in step_rows(found)] == [
        "mobilenet_v2, layers_removed 5",
        "mobilenet_v2, layers_removed 9",
    ]
    told = json.loads(json.dumps(ladder_json(found)))
    assert told["steps"][1]["gain"]["difference"]["value"] == pytest.approx(0.05)
    assert told["steps"][1]["cost"]["peak_ram_kb"] == 19.5
    # Where it helps, where not, that the smaller distilled one is better, what is left out, how far to trust it.
    assert len(told["sentences"]) == 5


def test_architectures_of_one_library_are_named_without_it(searched: SearchStudy) -> None:
    found = climb(begin_ladder(searched), LEVEL)
    for names, wanted in ((("timm/lcnet_035", "timm/lcnet_050"), "lcnet_035"), (("timm/a", "mine:b"), "timm/a")):
        steps = [
            replace(step, student={**step.student, "architecture": name})
            for step, name in zip(found.steps, names, strict=True)
        ]
        shown = io.StringIO()
        Console(file=shown, width=120).print(ladder_table(replace(found, steps=tuple(steps))))
        assert wanted in shown.getvalue().split()


def test_what_int8_costs_is_a_column_where_it_was_measured(searched: SearchStudy, paths: Paths) -> None:
    linked = begin_ladder(searched)
    climb(linked, LEVEL)
    keep_int8(linked, {0: Int8Change(float32=0.90, int8=0.89), 1: Int8Change(float32=0.90, int8=0.88)})
    keep_int8(linked, {0: Int8Change(float32=0.5, int8=0.1), 2: Int8Change(float32=0.90, int8=0.90)})  # 0 stays
    found = read_ladder(linked)
    assert found is not None
    larger, smaller = found.steps
    assert larger.int8 is not None
    assert larger.int8.value == pytest.approx(-0.015), "of the trials 0 and 1, one of each arm"
    assert smaller.int8 is None, "one training has no interval"
    assert [row.int8 for row in step_rows(found)] == ["-1.5 ± 6.4", ""]
    shown = io.StringIO()
    Console(file=shown, width=80).print(ladder_table(found))
    assert "-1.5 ± 6.4" in shown.getvalue()
    assert all(len(line) <= 80 for line in shown.getvalue().splitlines())
    settings = Settings(
        paths=paths, storage_url=f"sqlite:///{paths.database}", data_root=paths.root, allow_import=frozenset()
    )
    assert 'data-label="int8">-1.5' in write_report(searched, settings).html


def test_the_report_has_the_picture_and_the_table(searched: SearchStudy, paths: Paths) -> None:
    settings = Settings(
        paths=paths, storage_url=f"sqlite:///{paths.database}", data_root=paths.root, allow_import=frozenset()
    )
    linked = begin_ladder(searched)
    assert 'id="compression"' not in write_report(searched, settings).html
    climb(linked, LEVEL | {"12 times distilled": 0.95})
    page = write_report(searched, settings).html
    assert page.count('id="compression"') == page.count('id="ladder"') == 1
    assert "mobilenet_v2, layers_removed 9" in page
    assert "1,122 times is left out" in page
    assert 'id="timeline-ladder"' in page


def test_a_ladder_is_neither_a_search_nor_a_confirmation(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    assert read_ladder(linked) is None
    climb(linked, LEVEL)
    storage = searched.storage
    assert latest_study(storage) == "digits"
    assert [one.name for one in status(storage, ["digits"])] == ["digits", "digits-ladder"]
    assert open_confirmation(storage, "digits") is None
    assert confirmation_of(linked) is None
    found = ladder_of(searched)
    assert found is not None
    assert found == ladder_of(linked)
    assert best_or_confirmed(linked)[1].number == best_trial(searched).number == 4
    assert "igkd-hpo ladder digits" in study_note(linked)
    with pytest.raises(UsageError, match=r"digits-ladder is a ladder .* digits,"):
        refuse_linked(linked)


def test_a_ladder_goes_on_with_the_settings_that_it_has(searched: SearchStudy, run) -> None:
    assert begun_with(searched) is None
    linked = begin_ladder(searched)
    assert begun_with(searched) == 4
    check_same_settings(linked, configuration(searched, 4))
    run(0.6, 0.7, 0.95)
    assert configuration(searched, None).trial == 5
    with pytest.raises(UsageError, match=r"digits-ladder .* trial 4, .* trial 5; --trial 4 "):
        check_same_settings(linked, configuration(searched, 5))


def test_other_rungs_are_added(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    more = Rung(asked=29.0, reached=28.97, parameters=77_194, student={"layers_removed": 11})
    keep_rungs(linked, [more, Rung(asked=4.1, student={}, left_out="never mind")])
    assert rungs_of(linked) == (RUNGS[0], RUNGS[1], more, RUNGS[2])


def test_settings_without_a_teacher_have_no_ladder(searched: SearchStudy) -> None:
    best, control = configuration(searched, None), configuration(searched, 0)
    assert is_taught(best)
    assert not is_taught(control)
    check_taught(best, searched, searched.config)
    with pytest.raises(UsageError, match=r"^trial 0 of digits .* --trial 4 "):
        check_taught(control, searched, searched.config)
    with pytest.raises(UsageError, match=r"alpha.* new name"):
        check_taught(control, None, searched.config)


def test_a_trial_that_cannot_be_taken(study: SearchStudy, run) -> None:
    with pytest.raises(NoCompletedTrial, match="launch digits"):
        configuration(study, None)
    run(0.5, 0.6, 0.7)
    run(0.1, end="prune")
    with pytest.raises(UsageError, match=r"--trial 9: .* 0 to 1;"):
        configuration(study, 9)
    with pytest.raises(UsageError, match=r"--trial 1 .*1 pruned"):
        configuration(study, 1)


def test_a_damaged_ladder_is_unusable_alone(searched: SearchStudy) -> None:
    linked = begin_ladder(searched)
    linked.storage.set_study_user_attr(linked.study_id, "rungs", [{"asked": 0.5}])
    with pytest.raises(StudyUnusable, match="rungs"):
        open_linked(searched.storage, "digits", "ladder")


def test_arms_of_left_out_rungs_are_not_planned(searched: SearchStudy) -> None:
    assert planned_arms(configuration(searched, None), RUNGS[2:]) == ()
