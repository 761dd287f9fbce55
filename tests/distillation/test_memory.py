"""Freed memory stays with the process that asked for that; what is in use is measured, and running out is known."""

import mmap
import subprocess
import sys

import numpy as np
import pytest
import torch

from igkd_hpo.distillation.memory import exhausted_memory, memory_in_use, shares_memory
from igkd_hpo.distillation.step_graph import NotCaptured

PROGRAM = """
import resource
import torch
from igkd_hpo.distillation.heap import keep_freed_memory

def page_faults():
    for _ in range(12):  # what else is allocated meanwhile may take a piece of the first blocks
        torch.ones(10 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(12):
        torch.ones(10 * 2**20)  # 40 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = page_faults()
assert keep_freed_memory()
print(page_faults(), given_back)
"""


def test_a_block_that_was_freed_is_used_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept < 0.75 * given_back


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 45, dtype=torch.uint8)
    assert exhausted_memory(refused.value) == "host"
    with pytest.raises(MemoryError) as refused_by_numpy:
        np.empty(1 << 60, dtype=np.uint8)
    assert exhausted_memory(refused_by_numpy.value) == "host"
    assert exhausted_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")) == "device"
    assert exhausted_memory(RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`")) == "device"
    named_by_cudnn_9 = "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    assert exhausted_memory(RuntimeError(named_by_cudnn_9)) == "device"
    no_engine = RuntimeError("GET was unable to find an engine to execute this computation")
    assert exhausted_memory(no_engine) is None, "no GPU is full here"
    hidden = NotCaptured("the step cannot be captured")
    hidden.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert exhausted_memory(hidden) == "device"
    assert exhausted_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert exhausted_memory(ValueError("CUDA error: out of memory")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_runs_out_of_memory_says_so_in_torchs_own_class() -> None:
    device = torch.device("cuda")
    _, total = torch.cuda.mem_get_info(device)
    with pytest.raises(torch.OutOfMemoryError) as refused:
        torch.empty(2 * total, dtype=torch.uint8, device=device)
    assert exhausted_memory(refused.value) == "device"


def test_the_memory_in_use_is_this_process_s_own() -> None:
    size = 32 * 2**20
    before = memory_in_use(torch.device("cpu"))
    with mmap.mmap(-1, size) as block:  # from the kernel: an earlier test may have let this process keep what it freed
        block.write(b"x" * size)
        after = memory_in_use(torch.device("cpu"))
    assert 0.9 * size < after.process - before.process
    assert (after.device, after.device_total) == (None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_another_process_holds_of_a_gpu_is_seen_and_our_own_is_not() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    free, total = torch.cuda.mem_get_info(device)
    if total - free > total / 20:
        pytest.skip("somebody else computes there now")
    ours = torch.empty(total // 5, dtype=torch.uint8, device=device)
    assert not shares_memory(device)
    del ours
    torch.cuda.empty_cache()
    program = (
        "import sys, torch; held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device=sys.argv[2]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(total // 5), str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert shares_memory(device)
        other.communicate()
