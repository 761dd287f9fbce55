from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation.batches import EpochPlan, TrainingData, draw_plan
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.optimization import make_optimizer
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.step_graph import NotCaptured, StepGraph, undone
from igkd_hpo.distillation.teaching import CachedLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import ShiftedCrops

CPU = torch.device("cpu")
VIEWS = ShiftedCrops(padding=1, mirrored=True)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_that_are_undone_leave_no_trace(name: str, tiny_network: Callable[[], Network]) -> None:
    def trained(*, with_detour: bool, at: int) -> list[Tensor]:
        network = tiny_network().train()
        network.body[5] = nn.Identity()
        optimizer = make_optimizer(network.parameters(), name, 0.1, 5e-4, CPU)
        generator = torch.Generator().manual_seed(1)

        def step(pixels: Tensor) -> None:
            optimizer.zero_grad()
            network(pixels).square().sum().backward()
            optimizer.step()

        for number in range(4):
            if with_detour and number == at:
                with undone([network], optimizer):
                    for _ in range(3):
                        step(torch.rand(8, 3, 8, 8))
            step(torch.rand(8, 3, 8, 8, generator=generator))
        return [value.clone() for value in network.state_dict().values()]

    for at in (0, 2):  # before the optimizer has any state, and when it has
        for straight, detour in zip(trained(with_detour=False, at=at), trained(with_detour=True, at=at), strict=True):
            assert torch.equal(straight, detour)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "one_cycle"},
        {"optimizer": "adamw", "schedule": "cosine"},
        {"optimizer": "adam", "ema_decay": 0.8, "cutout": 3},
        {"precision": "bfloat16"},
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"objective": "foster", "osakd_weight": 0.5, "labels_alone": 0.5},
    ],
)
def test_a_graph_trains_as_single_kernels_do_and_goes_on_after_a_resume(
    changes: dict[str, Any],
    data: TrainingData,
    recipe: Callable[..., Recipe],
    tiny_network: Callable[[], Network],
) -> None:
    cuda = torch.device("cuda")
    table = torch.randn(70, VIEWS.count, 3, generator=torch.Generator().manual_seed(2)).half().to(cuda)

    def training(compiled: str) -> Training:
        network = tiny_network()
        network.body[5] = nn.Identity()
        used = recipe(**changes, learning_rate=0.02, compile=compiled)
        return Training(network, data, used, device=cuda, teaching=CachedLogits(table, VIEWS.count))

    plain, graph = training("none"), training("cuda_graph")
    assert (plain.compile, graph.compile) == ("none", "cuda_graph")
    expected, found = list(plain.epochs()), list(graph.epochs())
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=2e-2)
        assert mine.learning_rate == pytest.approx(theirs.learning_rate)
    assert len({metrics.train_loss for metrics in found}) == len(found), "each step sees other samples"

    first = training("cuda_graph")
    running = first.epochs()
    next(running), next(running)
    second = training("cuda_graph")
    second.load_state_dict(first.state_dict())
    rest = list(second.epochs())
    assert [m.train_loss for m in rest] == pytest.approx([m.train_loss for m in found[2:]], rel=2e-2)


@pytest.mark.gpu
@gpu
def test_a_step_that_waits_or_forgets_its_samples_is_not_taken(
    recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    cuda = torch.device("cuda")
    network = tiny_network().to(cuda).train()
    network.body[5] = nn.Identity()
    optimizer = make_optimizer(network.parameters(), "sgd", 0.1, 0.0, cuda)
    plan = draw_plan(recipe(), VIEWS, 70, 1).to(cuda)
    before = [value.clone() for value in network.state_dict().values()]
    images = torch.rand(70, 3, 8, 8, device=cuda)

    def step(rows: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = network(images[rows]).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def waiting(plan: EpochPlan, number: int) -> Tensor:
        return step(plan.rows[number]) * float(images.sum())

    remembered = plan.rows[0].clone()

    def forgetful(given: EpochPlan, number: int) -> Tensor:
        recording = torch.cuda.is_current_stream_capturing()
        return step(remembered if recording else given.rows[number])

    for update, message in ((waiting, "cannot be captured"), (forgetful, "differs from the step itself")):
        with pytest.raises(NotCaptured, match=message):
            StepGraph(update, plan, [network], optimizer)
        for value, was in zip(network.state_dict().values(), before, strict=True):
            assert torch.equal(value, was)
        assert optimizer.param_groups[0]["lr"] == 0.1
