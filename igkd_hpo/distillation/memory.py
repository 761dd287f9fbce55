"""Memory: how much is in use, and how running out of it looks."""

import resource
from pathlib import Path

import torch

from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES
from igkd_hpo.distillation.metrics import MemoryUse

# Where torch has no class for it: its allocator on the CPU, and CUDA and its libraries while they set themselves up.
_HOST_WORDS = ("DefaultCPUAllocator: can't allocate memory",)
_DEVICE_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",  # up to cuDNN 8
    "DEVICE_ALLOCATION_FAILED",  # of cuDNN 9
)
# Where torch hides it: cuDNN tries one algorithm after the other, and cuBLAS its workspace, until none is left.
_PERHAPS_DEVICE_WORDS = ("unable to find an engine to execute this computation", "CUBLAS_STATUS_NOT_INITIALIZED")
_LITTLE = 2**30  # bytes of a device that are free, of which those errors speak


def exhausted_memory(error: BaseException) -> str | None:
    """Whose memory an error, or one that it comes from, says has run out: "device", "host", or None: something else."""
    seen: BaseException | None = error
    while seen is not None:
        if (whose := _exhausted(seen)) is not None:
            return whose
        seen = seen.__cause__
    return None


def _exhausted(error: BaseException) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError):
        return "host"
    said = str(error) if isinstance(error, RuntimeError) else ""
    if any(words in said for words in _DEVICE_WORDS):
        return "device"
    if any(words in said for words in _PERHAPS_DEVICE_WORDS) and _device_is_full():
        return "device"
    return "host" if any(words in said for words in _HOST_WORDS) else None


def _device_is_full() -> bool:
    """Whether little of the current GPU's memory is free; those errors have other causes too."""
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _LITTLE


def shares_memory(device: torch.device) -> bool:
    """Whether other processes hold more than a tenth of the device's memory; on a CPU that means nothing, and is False.

    The tenth leaves room for a desktop.
    """
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device) + CUDA_CONTEXT_BYTES
    return total - free - own > total / 10


def memory_in_use(device: torch.device) -> MemoryUse:
    """What this process holds now, and what is taken on its GPU, if it has one."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    process = resident_pages * resource.getpagesize()
    if device.type != "cuda":
        return MemoryUse(process)
    free, total = torch.cuda.mem_get_info(device)
    return MemoryUse(process, total - free, total)
