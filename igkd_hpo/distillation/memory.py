"""Memory in use, and the errors that say that it has run out."""

import resource
from pathlib import Path

import torch

from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES
from igkd_hpo.distillation.metrics import MemoryUse

# Where torch has no class for it: its allocator on the CPU, and CUDA and its libraries while they set themselves up.
_HOST_WORDS = "DefaultCPUAllocator: can't allocate memory"
_DEVICE_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",  # up to cuDNN 8
    "DEVICE_ALLOCATION_FAILED",  # of cuDNN 9
)
# Where torch hides it: cuDNN tries one algorithm after the other, and cuBLAS its workspace, until none is left.
_PERHAPS_DEVICE_WORDS = ("unable to find an engine to execute this computation", "CUBLAS_STATUS_NOT_INITIALIZED")
_LITTLE = 2**30  # bytes of a device that are free, of which those errors speak


def exhausted_memory(error: BaseException | None) -> str | None:
    """Return whose memory an error, or one that it comes from, says has run out: "device", "host", or None."""
    if error is None:
        return None
    message = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, torch.OutOfMemoryError) or any(words in message for words in _DEVICE_WORDS):
        return "device"
    if any(words in message for words in _PERHAPS_DEVICE_WORDS) and _device_is_full():
        return "device"
    if isinstance(error, MemoryError) or _HOST_WORDS in message:
        return "host"
    return exhausted_memory(error.__cause__)


def _device_is_full() -> bool:
    """Return whether little of the current GPU's memory is free; those errors have other causes too."""
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _LITTLE


def shares_memory(device: torch.device) -> bool:
    """Return whether other processes hold more than a tenth of the device's memory, which leaves room for a desktop.

    On a CPU that means nothing, and is False.
    """
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device) + CUDA_CONTEXT_BYTES
    return total - free - own > total / 10


def memory_in_use(device: torch.device) -> MemoryUse:
    """Return the memory that this process holds now, and that taken on its GPU, if it has one."""
    process = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()  # resident pages
    if device.type != "cuda":
        return MemoryUse(process)
    free, total = torch.cuda.mem_get_info(device)
    return MemoryUse(process, total - free, total)
