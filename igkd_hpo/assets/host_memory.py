"""Memory of this host: what is free, and how often the kernel killed a process for want of it."""

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_VMSTAT = Path("/proc/vmstat")


def free_memory() -> int:
    """Return the free memory in bytes, within the limits of this container's control groups."""
    free = [psutil.virtual_memory().available]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free.append(int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
        except (OSError, ValueError):  # no such limit: "max", or another version of control groups
            continue
    return max(0, min(free))


def oom_kills() -> int:
    """Return how many processes the kernel has killed since it started because memory ran out, of containers too."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
