"""Training steps against those of benchmarks/plain.py, which share no code with them but for what chance decides."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.plain import ROUNDING_OF_BOXES, AskedTeacher, PlainTraining, in_double, same_steps, step_by_step
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import TrainingData
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.training import Training

CPU = torch.device("cpu")


def network(seed: int, depth: int) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(mobilenet_v2(num_classes=3, width=0.25, layers_removed=depth), [0.4, 0.5, 0.6], [0.2, 0.3, 0.3])


@pytest.mark.parametrize("batch_size", [32, 7])
def test_every_step_is_the_plain_step(batch_size: int, data: TrainingData, recipe: Callable[..., Recipe]) -> None:
    used = recipe(epochs=2, batch_size=batch_size, crop_padding=2, overlay_strength=0.7, alpha=0.3)
    teacher = in_double(network(1, 5).eval())
    plain = PlainTraining(in_double(network(2, 9)), data, used, teacher=teacher, device=CPU)
    fast = Training(in_double(network(2, 9)), data, used, device=CPU, teaching=AskedTeacher(teacher))
    steps = step_by_step(fast, plain)
    assert len(steps) == 2 * -(-70 // batch_size)
    assert same_steps(steps)


@pytest.mark.parametrize(("plain_seed", "alike"), [(0, True), (1, False)])
def test_a_step_on_boxes_is_the_plain_step_on_the_same_boxes(
    plain_seed: int, alike: bool, data: TrainingData, recipe: Callable[..., Recipe]
) -> None:
    boxes = [replace(data, digests=torch.arange(len(data.images)) + seed) for seed in (0, plain_seed)]
    used = recipe(epochs=2, views=4, scale=(0.35, 1.0), crop_padding=0, overlay_strength=0.7, alpha=0.3)
    teacher = in_double(network(1, 5).eval())
    plain = PlainTraining(in_double(network(2, 9)), boxes[1], used, teacher=teacher, device=CPU)
    fast = Training(in_double(network(2, 9)), boxes[0], used, device=CPU, teaching=AskedTeacher(teacher))
    assert same_steps(step_by_step(fast, plain), ROUNDING_OF_BOXES) is alike


@pytest.mark.parametrize("changes", [{"alpha": 0.31}, {"weight_decay": 6e-4}, {"temperature": 5.0}, {"epochs": 2}])
def test_a_small_fault_stands_out(changes: dict[str, float], data: TrainingData, recipe: Callable[..., Recipe]) -> None:
    used = recipe(epochs=1, alpha=0.3)
    teacher = in_double(network(1, 5).eval())
    plain = PlainTraining(in_double(network(2, 9)), data, replace(used, **changes), teacher=teacher, device=CPU)
    fast = Training(in_double(network(2, 9)), data, used, device=CPU, teaching=AskedTeacher(teacher))
    assert not same_steps(step_by_step(fast, plain))
