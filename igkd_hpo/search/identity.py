"""Identify processes by id and start time: the id alone is used again by a later process."""

import os
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.settings import host_name

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """An identity of a process that no other process of any host has.

    Args:
        host: host name, for people only; containers share names.
        boot_id: the kernel's boot id, the process id namespace, and the name that IGKD_HPO_HOST gave the host;
            processes with the same one see each other.
        pid: process id in that namespace.
        start_time: seconds from the host's boot to the start of the process.
    """

    host: str
    boot_id: str
    pid: int
    start_time: float


def identify(pid: int) -> ProcessIdentity | None:
    """Identify the process with this id on this host; None when there is none, only its zombie, or a hidden one."""
    try:
        start_time = _start_time(pid)
    except PermissionError:
        return None
    if start_time is None:
        return None
    return ProcessIdentity(host=host_name(), boot_id=_boot_id(), pid=pid, start_time=start_time)


def this_process() -> ProcessIdentity:
    """Identify the calling process."""
    identity = identify(os.getpid())
    assert identity is not None, "a running process is in /proc"
    return identity


def is_dead(identity: ProcessIdentity) -> bool | None:
    """Tell whether the process has ended (a zombie has); None where another host, or another user, would have to know.

    Where it cannot be known a lease stands as long as there are heartbeats.
    """
    if identity.boot_id != _boot_id():
        return None
    try:
        return _start_time(identity.pid) != identity.start_time
    except PermissionError:
        return None


def kill(identity: ProcessIdentity) -> bool | None:
    """Send SIGKILL where the process is still the same one. Return whether it was sent; None: it is another user's."""
    if is_dead(identity) is not False:
        return False
    with suppress(ProcessLookupError), ExitStack() as stack:
        handle = os.pidfd_open(identity.pid)
        stack.callback(os.close, handle)
        # The handle is for whatever has the pid now, and stays with it: check once more.
        if is_dead(identity) is False:
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except PermissionError:
                return None
            return True
    return False


def _boot_id() -> str:
    boot, namespace = (_PROC / "sys/kernel/random/boot_id").read_text().strip(), os.readlink(_PROC / "self/ns/pid")
    return "/".join(filter(None, (boot, namespace, os.environ.get("IGKD_HPO_HOST"))))


def _start_time(pid: int) -> float | None:
    """Return when the process began, None when it has ended. Raises PermissionError: it may not be looked at."""
    # Ticks since boot, as the kernel counts them. psutil's create_time adds the boot's wall-clock time, which moves
    # when the clock is set, and a living process would then look like another one.
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        with suppress(ProcessLookupError):
            os.kill(pid, 0)  # raises PermissionError for one of another user, which /proc with hidepid does not show
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything, brackets included
    return None if state in {"Z", "X"} else int(fields[18]) / _TICKS_PER_SECOND
