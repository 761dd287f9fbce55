"""Tell which tasks of studies, submitted from this folder, still wait in the queue of Slurm, and why."""

import json
import math
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from igkd_hpo.search.status import StudyStatus
from igkd_hpo.search.storage_url import mask
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted

_PATIENCE_SECONDS = 2.0  # a controller that is down costs a reader no more
_PAUSE_SECONDS = 30.0  # between two looks: each asks the controller of the whole cluster


class Queue:
    """A view of the queue that is renewed now and then, and stays empty where nothing was submitted, or no Slurm is.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._next = -math.inf
        self._waiting: dict[str, Counter[str]] = {}

    def waiting(self, studies: Iterable[StudyStatus]) -> dict[str, Counter[str]]:
        """Return how many tasks of the unfinished studies wait for which reason, by study."""
        if self._clock() >= self._next:
            names = {study.name for study in studies if not study.finished}
            self._waiting = _ask({job: study for job, study in self._jobs().items() if study in names})
            self._next = self._clock() + _PAUSE_SECONDS
        return self._waiting

    def in_words(self, studies: Iterable[StudyStatus]) -> dict[str, str]:
        """Say for each study of which tasks wait how many, and why."""
        return {name: _in_words(reasons) for name, reasons in self.waiting(studies).items()}

    def _jobs(self) -> dict[int, str]:
        """Read the numbers of the jobs that were submitted here, with their studies."""
        storage = mask(self._settings.storage_url)
        try:
            lines = self._settings.paths.slurm_jobs.read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            return {record["job"]: record["study"] for record in records if record["storage"] == storage}
        except (OSError, ValueError, TypeError, KeyError):  # nothing was submitted here, or the notes cannot be read
            return {}


def _in_words(reasons: Mapping[str, int]) -> str:
    shown = ", ".join(f"{number} for {reason}" for reason, number in sorted(reasons.items()))
    return f"{counted(sum(reasons.values()), 'task')} waiting in Slurm's queue: {shown}"


def _ask(jobs: Mapping[int, str]) -> dict[str, Counter[str]]:
    if not jobs:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=PENDING", "--format=%F %r"]
    command.append(f"--jobs={','.join(map(str, jobs))}")
    try:
        told = subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return count_waiting(told.decode(errors="replace"), jobs)


def count_waiting(told: str, jobs: Mapping[int, str]) -> dict[str, Counter[str]]:
    """Count the tasks that squeue tells of, by their job's study and by reason; a line of no such job is passed over.

    A site's own wrapper of squeue may greet its user first.
    """
    studies = {str(job): study for job, study in jobs.items()}
    waiting: dict[str, Counter[str]] = {}
    for line in told.splitlines():
        job, _, reason = line.partition(" ")
        if job in studies:
            waiting.setdefault(studies[job], Counter())[reason] += 1
    return waiting
