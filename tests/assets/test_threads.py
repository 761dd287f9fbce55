"""How many threads assets are made with."""

import pytest
import torch

from igkd_hpo.assets import threads
from igkd_hpo.assets.threads import fastest_threads

CPU = torch.device("cpu")


def test_small_images_get_one_thread_whatever_the_machine_is_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_seconds", lambda count, image_size: 1.0 / count)  # more are faster
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    before = torch.get_num_threads()
    with fastest_threads((8, 8), CPU) as chosen:
        assert (chosen, torch.get_num_threads()) == (1, 1)
    with fastest_threads((32, 32), CPU) as chosen:
        assert (chosen, torch.get_num_threads()) == (3, 3)
    assert torch.get_num_threads() == before
    with fastest_threads((32, 32), torch.device("cuda")) as chosen:
        assert chosen == torch.get_num_threads() == before
    threads._fastest.cache_clear()


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(threads, "_seconds", lambda count, image_size: measured.append(count) or 1.0)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    for _ in range(3):
        with fastest_threads((33, 33), CPU):
            pass
    assert sorted(measured) == [1, 2]
    threads._fastest.cache_clear()


@pytest.mark.parametrize(("side", "batch"), [(32, 32), (64, 8), (256, 1)])
def test_large_images_are_measured_with_few(monkeypatch: pytest.MonkeyPatch, side: int, batch: int) -> None:
    seen = []

    class Network(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return pixels.requires_grad_().mean()

    monkeypatch.setattr(threads, "mobilenet_v2", lambda **_: Network())
    before = torch.get_num_threads()
    threads._seconds(1, (side, side))
    torch.set_num_threads(before)
    assert set(seen) == {batch}
