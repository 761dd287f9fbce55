"""`igkd-hpo status`: every study, its running trials and its progress."""

import signal
import time
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from typer import Option

from igkd_hpo.cli.arguments import AsJson, ExistingStudies, Storage, print_json
from igkd_hpo.errors import ExitCode

if TYPE_CHECKING:
    from igkd_hpo.search.status import StudyStatus
    from igkd_hpo.search.storage import SharedStorage

_WATCH_SECONDS = 2.0


def status(
    studies: ExistingStudies = None,
    storage: Storage = None,
    watch: Annotated[bool, Option("--watch", help="Show it again every two seconds until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the studies, or those that are named, with their confirmations: what is running and how far.

    Examples:
        igkd-hpo status --watch
        igkd-hpo status digits
        igkd-hpo status --json
    """
    from igkd_hpo.api.source import existing_study, settings_here
    from igkd_hpo.engines.slurm.queue import Queue
    from igkd_hpo.search.status import status as read_status
    from igkd_hpo.search.storage import open_storage_here

    settings = settings_here(storage)
    opened = open_storage_here(settings, create=False)
    names = [existing_study(given, settings).name for given in studies or ()]
    queue = Queue(settings)
    if as_json:
        found = read_status(opened, names)
        waiting = queue.waiting(found)
        print_json([_with_frontier(study, opened) | {"queued": waiting.get(study.name, {})} for study in found])
        return
    from igkd_hpo.terminal.console import Console
    from igkd_hpo.terminal.screen import Screen
    from igkd_hpo.terminal.status_board import status_board
    from igkd_hpo.terminal.status_watch import StatusWatch

    console = Console()
    if not watch:
        found = read_status(opened, names)
        console.print(status_board(found, console.width, queued=queue.in_words(found), assets=opened.assets))
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    watched = StatusWatch(opened, names=names, queue=queue)
    with Screen(console, transient=False) as screen:
        while True:
            watched.look()
            if screen.redraws:
                screen.show(watched.draw)
            else:
                for line in watched.lines():
                    screen.say(line)
            time.sleep(_WATCH_SECONDS)


def _with_frontier(status: "StudyStatus", storage: "SharedStorage") -> dict[str, Any]:
    """Return a study as plain JSON values, with its frontier over the parameters; None of a confirmation."""
    from igkd_hpo.search.frontier import frontier
    from igkd_hpo.search.study import open_study

    found = None
    if status.unusable is None and status.confirms is None:
        found = frontier(open_study(storage, status.name), "parameters").as_json()
    return asdict(status) | {"frontier": found}


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once, also out of a wait for a database that is away, with the cursor back where it was."""
    raise SystemExit(ExitCode.after(number))
