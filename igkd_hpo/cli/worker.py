"""`igkd-hpo worker`: one worker, for one study or for all that are open."""

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, Device, EveryStudy, Storage
from igkd_hpo.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from igkd_hpo.engines.attempt_runner import Slot
    from igkd_hpo.engines.events import Event
    from igkd_hpo.engines.signals import StopSignal
    from igkd_hpo.search.lease import Worker
    from igkd_hpo.settings import Settings


def worker(
    study: EveryStudy = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of each trial; all cores if left out.")
    ] = None,
    slot: Annotated[int, typer.Option("--slot", hidden=True)] = 0,
    name: Annotated[str | None, typer.Option("--name", hidden=True)] = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
    fork_server: Annotated[int | None, typer.Option("--fork-server", hidden=True)] = None,
) -> None:
    """Run one worker for a study, or for every open one in turn, from any host that reaches the storage.

    Examples:
        igkd-hpo worker digits
        igkd-hpo worker --storage postgresql+psycopg://user@host/studies
    """
    from igkd_hpo.api.source import existing_study, settings_here
    from igkd_hpo.engines.attempt_runner import Slot
    from igkd_hpo.engines.local.fork_server import inherit_fork_server
    from igkd_hpo.engines.local.preparation import prepare_existing
    from igkd_hpo.engines.signals import StopSignal
    from igkd_hpo.engines.worker import WorkerLoop
    from igkd_hpo.search.identity import this_process
    from igkd_hpo.search.lease import Idle, Worker

    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} is too few; give 1 or more")
    if fork_server is not None:
        inherit_fork_server(fork_server)
    settings = settings_here(storage, allow_import or ())
    process = this_process()
    who = Worker(name=name or f"{process.host}-{process.pid}", process=process)
    slot_facts = Slot(number=slot, device=device, threads=threads or len(os.sched_getaffinity(0)))
    if study is None:
        _serve_all(settings, who, slot_facts)
        return
    found = existing_study(study, settings)

    def emit(event: "Event") -> None:
        if supervised:
            sys.stdout.write(event.to_line() + "\n")
            sys.stdout.flush()
        else:
            _tell(event)

    with StopSignal() as stop:
        if supervised:
            threading.Thread(target=_stop_with_supervisor, args=(stop,), daemon=True).start()
        else:
            prepare_existing(found, settings, device=device, stop=stop)
        ended = WorkerLoop(found, settings, who, slot_facts, emit=emit, stop=stop).run()
        if stop.received is not None:
            raise typer.Exit(128 + stop.received)
    if supervised:
        return
    if ended is Idle.STOPPED:
        typer.echo("the study is stopped; igkd-hpo status says why", err=True)
        raise typer.Exit(ExitCode.FAILED)
    typer.echo(
        f"study {found.name} is finished, {found.counts().finished} of {found.read().n_trials} trials; "
        f"`igkd-hpo best {found.name}` shows what it found",
        err=True,
    )


def _serve_all(settings: "Settings", who: "Worker", slot: "Slot") -> None:
    from igkd_hpo.engines.open_studies import OpenStudies
    from igkd_hpo.engines.signals import StopSignal
    from igkd_hpo.search.storage import is_server, open_storage

    opened = open_storage(settings.storage_url, create=is_server(settings.storage_url))
    with StopSignal() as stop:
        OpenStudies(
            opened,
            settings,
            who,
            slot,
            stop=stop,
            on_event=lambda study, event: _tell(event, f"{study}: "),
            on_message=lambda text: typer.echo(text, err=True),
        ).run()
        assert stop.received is not None
        raise typer.Exit(128 + stop.received)


def _tell(event: "Event", prefix: str = "") -> None:
    if event.kind not in {"alive", "waiting"}:
        typer.echo(prefix + event.for_people(), err=True)


def _stop_with_supervisor(stop: "StopSignal") -> None:
    """Standard input ends when the supervisor does, however it ends; the worker then hands its trial back."""
    while os.read(sys.stdin.fileno(), 1):  # a buffered read would hold a lock that Python's own end needs
        pass
    stop.set(signal.SIGTERM)
