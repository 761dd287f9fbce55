"""Freed memory stays with the process that asked for that."""

import subprocess
import sys

PROGRAM = """
import resource, sys
import torch
from igkd_hpo.distillation.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(2):
    torch.ones(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(16 * 2**20)  # 64 MB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_block_that_was_freed_is_used_again_without_page_faults() -> None:
    assert page_faults("keep") < 0.75 * page_faults("give back")
