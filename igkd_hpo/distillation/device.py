"""Which device a network trains on. Names can be checked without torch, whose import takes seconds."""

import re
from typing import TYPE_CHECKING

from igkd_hpo.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

CUDA_CONTEXT_BYTES = 600 << 20
"""Of GPU memory: what CUDA and cuDNN take for a process before it has a tensor; torch does not count it."""


def check_device_name(name: str) -> str:
    """The name, if it is one; whether this machine has such a device is another question. Raises UsageError."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        return name
    near = " (did you mean cuda?)" if name.startswith("gpu") else did_you_mean(name, ("auto", "cpu", "cuda"))
    raise UsageError(f"device {name!r} is unknown{near}; use auto, cpu, cuda or cuda:N")


def lasting_name(device: "torch.device") -> str:
    """A name that is the device's own on its host, whatever CUDA_VISIBLE_DEVICES says; fit for a file name."""
    import torch

    if device.type != "cuda":
        return device.type
    return f"gpu-{torch.cuda.get_device_properties(device).uuid}"


def choose_device(name: str, slot: int = 0) -> "torch.device":
    """The device for one worker: `auto` and `cuda` spread workers over the visible GPUs by their slot.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    import torch

    check_device_name(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", slot % gpus) if gpus else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda":
        # "cuda" alone has no index, which torch's own annotations do not say.
        index: int | None = device.index
        if index is None and gpus:
            return torch.device("cuda", slot % gpus)
        if index is None or index >= gpus:
            raise UsageError(f"device {name!r} is not on this machine, which has {gpus} usable GPUs; use auto or cpu")
    return device
