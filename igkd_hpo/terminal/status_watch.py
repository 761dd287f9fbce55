"""Watch what every study is doing, also while the database is away for a time."""

import math
import time
from collections.abc import Callable, Collection

from rich.console import Group, RenderableType
from rich.text import Text

from igkd_hpo.engines.slurm.queue import Queue
from igkd_hpo.errors import StorageError
from igkd_hpo.search.status import StudyStatus, status
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.terminal.board import LOG_SECONDS, cut, summary_line
from igkd_hpo.terminal.status_board import status_board, study_board
from igkd_hpo.words import duration

STALE_SECONDS = 20.0  # a worker writes a heartbeat every four


class StatusWatch:
    """Memory of the last reading, so that an outage hides nothing, and of when each heartbeat last changed.

    Args:
        names: see `status`.
        queue: of the cluster that studies were submitted to.
        clock: seconds, monotonic; no other clock is compared with it.
    """

    def __init__(
        self,
        storage: SharedStorage,
        *,
        names: Collection[str] = (),
        queue: Queue | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._names = names
        self._queue = queue
        self._clock = clock
        self._studies: list[StudyStatus] = []
        self._read_at = clock()
        self._queued: dict[str, str] = {}
        self._outage: StorageError | None = None
        self._since: dict[tuple[str, int, int, int], float] = {}  # (study, trial, attempt, beat): when first seen
        self._said: dict[str, tuple[float, object]] = {}

    def look(self) -> None:
        """Read the database; while it is out of reach, keep the last reading."""
        try:
            self._studies = status(self._storage, self._names)
        except StorageError as error:
            self._outage = error
            self._since.clear()  # nobody can write a heartbeat while it is away
            return
        self._outage, self._read_at = None, self._clock()
        if self._queue is not None:
            self._queued = self._queue.in_words(self._studies)
        keys = [(study.name, t.trial, t.attempt, t.beat) for study in self._studies for t in study.running]
        self._since = {key: self._since.get(key, self._read_at) for key in keys}

    def draw(self, width: int, height: int) -> RenderableType:
        """Draw all studies on a terminal of that size."""
        stale = {
            (study, trial): seconds
            for (study, trial, _, _), since in self._since.items()
            if (seconds := self._read_at - since) >= STALE_SECONDS
        }
        trouble = self._trouble()
        lines = [] if trouble is None else [cut(Text(trouble, style="red"), width)]
        board = status_board(
            self._studies,
            width,
            height - len(lines),
            stale=stale,
            queued=self._queued,
            assets=self._storage.assets,
        )
        return Group(*lines, board)

    def lines(self) -> list[str]:
        """Return lines for a log: one for each study that runs when something ended or began, and every half minute."""
        news = {study.name: self._news(study) for study in self._studies}
        if (trouble := self._trouble()) is not None:
            news = {"": (trouble, "")}
        else:
            self._said.pop("", None)
        now, lines = self._clock(), []
        for study, (line, gist) in news.items():
            said_at, said = self._said.get(study, (-math.inf, None))
            if gist != said or (now - said_at >= LOG_SECONDS and gist is not _IDLE):
                self._said[study] = (now, gist)
                lines.append(f"{study}: {line}" if study else line)
        return lines

    def _news(self, study: StudyStatus) -> tuple[str, object]:
        line, gist = summary_line(study_board(study)), _gist(study)
        if (waits := self._queued.get(study.name)) is None:
            return line, gist
        return f"{line}; {waits}", (gist, waits)

    def _trouble(self) -> str | None:
        if self._outage is None:
            return None
        ago = duration(self._clock() - self._read_at)
        return f"the database is away, trying again; as it was {ago} ago: {self._outage}"


_IDLE = "idle"


def _gist(study: StudyStatus) -> object:
    if not study.running:
        return _IDLE
    return study.counts, study.best_trial, [(trial.trial, trial.attempt) for trial in study.running]
