"""Choice of torch's number of threads on a CPU: measured, because more are not always faster."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch

from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.pointwise import multiply_pointwise
from igkd_hpo.distillation.threads import torch_threads

# Of a timed batch: 32 images of 32x32. With 32 of any size, a step on 96x96 took 6 s and 3.3 GB.
_PIXELS = 32 * 32 * 32
_STEPS = 3  # timed, after one that warms up
_TOO_SMALL = 16 * 16  # pixels; below, one thread is the faster choice on any machine, and the same everywhere


@contextmanager
def fastest_threads(image_size: tuple[int, int], device: torch.device, *, recorded: int | None = None) -> Iterator[int]:
    """Give torch one thread or one per core, whichever runs a training step faster here; for a GPU change nothing.

    Two cores that other processes kept busy took 89 ms for a step on 128 images of 8x8 pixels with one thread, 118 to
    147 ms with two that sleep while they wait, and 707 to 3360 ms with two that spin, OpenMP's default. How many it
    was decides the last bits of a teacher that is trained here, so small images, such as `digits`, are not measured.

    Args:
        image_size: height and width, in pixels.
        recorded: threads of the training that is to be repeated; None measures.
    """
    chosen = torch.get_num_threads() if device.type != "cpu" else recorded or _fastest(image_size)
    with torch_threads(chosen):
        yield chosen


def one_thread(device: torch.device) -> AbstractContextManager[object]:
    """Give torch one thread on a CPU, whatever the machine; for a GPU change nothing.

    What is made so comes out alike on any number of cores; long work is shared by processes instead, see `fill`.
    """
    return torch_threads(1) if device.type == "cpu" else nullcontext()


@lru_cache(maxsize=1)  # the teachers of a study are trained alike, and it is measured once for them
def _fastest(image_size: tuple[int, int]) -> int:
    if image_size[0] * image_size[1] < _TOO_SMALL:
        return 1
    return min({1, len(os.sched_getaffinity(0))}, key=lambda threads: _seconds(threads, image_size))


def _seconds(threads: int, image_size: tuple[int, int]) -> float:
    network = mobilenet_v2(num_classes=10, width=0.5).to(memory_format=torch.channels_last)
    multiply_pointwise(network, torch.channels_last)
    batch = max(1, _PIXELS // (image_size[0] * image_size[1]))
    pixels = torch.rand(batch, 3, *image_size).to(memory_format=torch.channels_last)
    seconds = []
    with torch_threads(threads):
        for _ in range(1 + _STEPS):
            begun = time.perf_counter()
            network(pixels).square().mean().backward()
            seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])
