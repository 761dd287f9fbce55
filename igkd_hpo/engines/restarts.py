"""The rule by which a worker that died is started again, whatever engine started it."""

import signal
from dataclasses import dataclass

FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 60.0
MAX_RESTARTS = 5  # in a row, of one slot, without a trial that it finished in between
SILENT_LEASES = 5  # a worker that says nothing for so many lease times is stopped or stuck; a database that does not
# answer may keep it silent for one or two
FIRST_WORD_SECONDS = 300.0  # one that starts on a busy node imports for half a minute, however short the lease time is


def restart_pause(restarts: int) -> float:
    """Return the seconds before start number `restarts`, from 1, of a worker that died: each is twice the last."""
    return min(FIRST_RESTART_SECONDS * 2.0 ** (restarts - 1), LAST_RESTART_SECONDS)


def longest_silence(lease_seconds: float, *, spoke: bool) -> float:
    """Return for how many seconds a worker may say nothing before it is ended; more where it has not spoken yet."""
    silence = SILENT_LEASES * lease_seconds
    return silence if spoke else max(silence, FIRST_WORD_SECONDS)


@dataclass(kw_only=True)
class Restarts:
    """The starts of one slot's worker: how often in a row it died, and when it may start again (monotonic seconds)."""

    count: int = 0
    at: float = 0.0

    @property
    def given_up(self) -> bool:
        """Whether it died too often in a row."""
        return self.count > MAX_RESTARTS

    def died(self, slot: int, how: str, where: str, *, now: float) -> str:
        """Count a death, and say it, with what comes next; `where` says more about it."""
        self.count += 1
        if self.given_up:
            return f"worker {slot} ended {self.count} times ({how}) and stays down; see {where}"
        pause = restart_pause(self.count)
        self.at = now + pause
        return f"worker {slot} ended ({how}); it starts again in {pause:.0f} s; see {where}"

    def finished_a_trial(self) -> None:
        """Count from the beginning: it can live."""
        self.count = 0


def describe_exit(code: int) -> str:
    """Say how a process ended: by a signal, where the code is below 0, or with an exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
