"""The device that a network trains on. Names can be checked without torch, whose import takes seconds."""

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from igkd_hpo.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

CUDA_CONTEXT_BYTES = 600 << 20
"""Of GPU memory: what CUDA and cuDNN take for a process before it has a tensor; torch does not count it."""


def check_device_name(name: str) -> str:
    """Return the name; whether this machine has such a device is another question. Raises UsageError for no name."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        return name
    near = " (did you mean cuda?)" if name.startswith("gpu") else did_you_mean(name, ("auto", "cpu", "cuda"))
    raise UsageError(f"device {name!r} is unknown{near}; use auto, cpu, cuda or cuda:N")


def lasting_name(device: "torch.device") -> str:
    """Return the device's own name on its host, whatever CUDA_VISIBLE_DEVICES says; fit for a file name."""
    import torch

    return f"gpu-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else device.type


def choose_device(name: str, slot: int = 0) -> "torch.device":
    """Return one worker's device; `auto` and `cuda` go round the GPUs by slot. UsageError where there is none such."""
    import torch

    check_device_name(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and name in ("auto", "cuda"):
        return torch.device("cuda", slot % gpus)
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    if name == "cuda" or torch.device(name).index >= gpus:
        raise UsageError(f"device {name!r} is not on this machine, which has {gpus} usable GPUs; use auto or cpu")
    return torch.device(name)


def processor(device: "torch.device") -> str:
    """Return the model of a GPU, or of the CPU with the instruction set that torch uses: they decide last bits."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"
