import pytest
import torch
from torch import nn

from igkd_hpo.distillation.optimization import decay_groups, make_optimizer, make_schedule

CPU = torch.device("cpu")


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0]))


def learning_rates(name: str, steps: int) -> list[float]:
    weight = parameter()
    optimizer = make_optimizer([weight], "sgd", 0.5, 0.0, CPU)
    schedule = make_schedule(optimizer, name, steps)
    rates = []
    for _ in range(steps):
        weight.grad = torch.zeros(1)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_sgd_is_nesterov_momentum_by_hand() -> None:
    # lr 0.1, momentum 0.9, decay 0.5, gradient 1.
    # Step 1: g = 1 + 0.5 * 1 = 1.5, v = 1.5, w = 1 - 0.1 * (1.5 + 0.9 * 1.5) = 0.715.
    # Step 2: g = 1 + 0.5 * 0.715 = 1.3575, v = 0.9 * 1.5 + 1.3575 = 2.7075,
    #   w = 0.715 - 0.1 * (1.3575 + 0.9 * 2.7075) = 0.335575.
    weight = parameter()
    optimizer = make_optimizer([weight], "sgd", 0.1, 0.5, CPU)
    for _ in range(2):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    assert weight.item() == pytest.approx(0.335575, abs=1e-6)


def test_weight_decay_of_adamw_stays_out_of_the_gradient() -> None:
    # No gradient: AdamW shrinks by lr * decay = 0.05; Adam turns the decay into a step of about lr = 0.1.
    for name, expected in (("adamw", 0.95), ("adam", 0.9)):
        weight = parameter()
        optimizer = make_optimizer([weight], name, 0.1, 0.5, CPU)
        weight.grad = torch.zeros(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-6)


def test_constant_schedule() -> None:
    assert learning_rates("constant", 5) == [0.5] * 5


def test_cosine_schedule() -> None:
    assert learning_rates("cosine", 4) == pytest.approx([0.5, 0.4267767, 0.25, 0.0732233])


def test_one_cycle_schedule_rises_to_the_learning_rate_and_falls_to_nearly_0() -> None:
    rates = learning_rates("one_cycle", 20)
    peak = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == pytest.approx(0.5)
    assert peak == 5  # 30 % of 20 steps, counted from 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle"])
def test_the_shortest_trainings_have_a_learning_rate(name: str, steps: int) -> None:
    assert all(0 <= rate <= 0.5 for rate in learning_rates(name, steps))


def test_one_cycle_leaves_the_momentum_alone() -> None:
    optimizer = make_optimizer([parameter()], "sgd", 0.1, 0.0, CPU)
    make_schedule(optimizer, "one_cycle", 10)
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer .*'lion'.* sgd, adam or adamw"):
        make_optimizer([parameter()], "lion", 0.1, 0.0, CPU)
    with pytest.raises(ValueError, match=r"schedule .*'step'.* constant, cosine or one_cycle"):
        make_schedule(make_optimizer([parameter()], "sgd", 0.1, 0.0, CPU), "step", 10)


def test_decay_can_leave_out_batch_normalisation_and_biases() -> None:
    # Gradient 0, rate 0.1, decay 0.5: what is decayed shrinks by 0.1 * 1.9 * 0.5 in Nesterov's first step.
    def after_a_step(decay: str) -> list[set[float]]:
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        for part in network.parameters():
            nn.init.ones_(part)
            part.grad = torch.zeros_like(part)
        make_optimizer(decay_groups(network, decay), "sgd", 0.1, 0.5, CPU).step()
        return [{round(number, 5) for number in part.flatten().tolist()} for part in network.parameters()]

    assert after_a_step("weights") == [{0.905}, {1.0}, {1.0}, {1.0}]
    assert after_a_step("all") == [{0.905}] * 4
    with pytest.raises(ValueError, match=r"decay .*'none'.* all or weights"):
        decay_groups(nn.Linear(1, 1), "none")


def test_a_schedule_moves_all_groups() -> None:
    optimizer = make_optimizer(decay_groups(nn.Linear(2, 2), "weights"), "sgd", 0.5, 0.1, CPU)
    make_schedule(optimizer, "one_cycle", 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5 / 25] * 2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
