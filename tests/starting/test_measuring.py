"""Networks that are measured in processes of their own."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.errors import IgkdError
from igkd_hpo.starting.measuring import Measuring, SurveyTask, TimingTask, count_costs
from igkd_hpo.starting.networks import BUILT_IN, Network, StepTime, Survey

SMALL = Network(BUILT_IN, (("layers_removed", 17), ("width", 0.25)), 16)
WRONG = Network("timm/no_such_network", (("stages_removed", 0),), 16)
STUDY = Study.model_validate(
    {
        "name": "probe",
        "dataset": {"name": "digits"},
        "augmentation": {"crop_padding": 1},
        "hyperparameters": {
            "temperature": 4.0,
            "alpha": 0.5,
            "overlay_probability": 0.25,
            "overlay_strength": 0.5,
            "learning_rate": 0.1,
            "batch_size": 4,
        },
        "controls": (),
    }
)


@pytest.fixture(scope="module")
def measuring() -> Iterator[Measuring]:
    with closing(Measuring()) as measuring:
        yield measuring


def end(code: int) -> Any:
    os._exit(code)


def fail(message: str) -> Any:
    raise KeyError(message)


def test_a_network_is_counted_and_timed_and_an_unknown_one_is_left_out(measuring: Measuring) -> None:
    assert measuring.machine("cpu").cores == len(os.sched_getaffinity(0))
    task = SurveyTask(study=STUDY, num_classes=3, networks=(SMALL, WRONG), wanted_weights=("mynet:tiny",))
    survey = measuring.survey(task)
    assert survey.costs.keys() == {SMALL}
    assert (survey.costs[SMALL].latency_ms, survey.weights) == (None, {})
    tasks = [TimingTask(study=STUDY, num_classes=3, network=one, macs=1000, device="cpu") for one in (SMALL, WRONG)]
    times = measuring.time(tasks, SilentProgress())
    assert times.keys() == {SMALL}
    assert min(times[SMALL]) > 0


def test_a_limit_of_time_is_measured(measuring: Measuring) -> None:
    study = STUDY.model_copy(update={"limits": Limits(latency_ms=1000)})
    survey = measuring.survey(SurveyTask(study=study, num_classes=3, networks=(SMALL,), wanted_weights=()))
    assert survey.costs[SMALL].latency_ms


@pytest.mark.parametrize(
    ("function", "argument", "told"), [(end, 3, "exit code 3"), (fail, "gone", "KeyError: 'gone'")]
)
def test_a_process_that_ends_is_told_of(measuring: Measuring, function: Any, argument: Any, told: str) -> None:
    with pytest.raises(IgkdError, match=told):
        measuring._ask(function, argument)


def test_the_time_of_a_network_follows_from_one_like_it() -> None:
    wide = SMALL._replace(knobs=(("layers_removed", 17), ("width", 0.5)))
    task = SurveyTask(study=STUDY, num_classes=3, networks=(SMALL, wide), wanted_weights=())
    counted = count_costs(task)
    survey = Survey(costs=counted.costs, times={SMALL: StepTime(1.0, 0.5)})
    ratio = counted.costs[wide].macs / counted.costs[SMALL].macs
    assert ratio > 1
    assert survey.time(wide) == pytest.approx((ratio, 0.5 * ratio))
    assert survey.time(WRONG) is None
