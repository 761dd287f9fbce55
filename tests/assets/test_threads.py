"""How many threads assets are made with."""

import pytest
import torch

from igkd_hpo.assets import threads
from igkd_hpo.assets.threads import fastest_threads


def test_small_images_get_one_thread_whatever_the_machine_is_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_seconds", lambda count, image_size: 1.0 / count)  # more are faster
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    before = torch.get_num_threads()
    with fastest_threads((8, 8)) as chosen:
        assert (chosen, torch.get_num_threads()) == (1, 1)
    with fastest_threads((32, 32)) as chosen:
        assert (chosen, torch.get_num_threads()) == (3, 3)
    assert torch.get_num_threads() == before
