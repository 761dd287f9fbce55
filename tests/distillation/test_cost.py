"""What a network costs: counted by hand for a tiny one, and against the paper for its student."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.cost import count_macs, time_forward
from igkd_hpo.distillation.latency import measure_latency, summarize
from igkd_hpo.distillation.models import count_parameters


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 6 * 5 places of 4 * 27
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),  # 3 * 3 places of 4 * 9
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 7),  # 28
    )


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_multiply_adds_are_those_counted_by_hand(device: str) -> None:
    module = tiny().to(device).train()
    assert count_macs(module, (6, 5)) == 30 * 4 * 27 + 9 * 4 * 9 + 28
    assert module.training


def test_the_student_of_the_paper_costs_what_the_paper_says() -> None:
    with torch.device("meta"):
        student = mobilenet_v2(num_classes=10, layers_removed=5)
    assert count_parameters(student) == 543_498
    assert round(count_macs(student, (32, 32)) / 1e6, 2) == 58.70


def test_a_forward_pass_is_timed_on_one_thread_and_the_threads_come_back() -> None:
    used = []
    module = tiny()
    module.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        latency = time_forward(module, (6, 5))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}
    assert len(used) == latency.calls + latency.warm_up
    assert 0 < latency.median <= latency.p95
    assert module.training


def test_the_first_calls_are_not_counted() -> None:
    calls = []
    latency = measure_latency(lambda: calls.append(sum(range(20_000 if len(calls) < 5 else 10))))
    assert latency.warm_up == 5
    assert latency.calls == len(calls) - 5 >= 5


def test_median_and_percentile_by_nearest_rank() -> None:
    times = [float(value) for value in range(100, 0, -1)]
    summary = summarize(times, warm_up=3)
    assert (summary.median, summary.p95, summary.calls, summary.warm_up) == (50, 95, 100, 3)


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50))
def test_a_summary_is_among_the_times(times: list[float]) -> None:
    summary = summarize(times, warm_up=0)
    assert {summary.median, summary.p95} <= set(times)
    assert summary.median <= summary.p95
