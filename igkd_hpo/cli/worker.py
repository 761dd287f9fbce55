"""`igkd-hpo worker`: one worker for an existing study."""

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, Device, ExistingStudy, Storage, existing_study
from igkd_hpo.errors import ExitCode, UsageError
from igkd_hpo.settings import Settings


def worker(
    study: ExistingStudy = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of each trial; all cores if left out.")
    ] = None,
    slot: Annotated[int, typer.Option("--slot", hidden=True)] = 0,
    name: Annotated[str | None, typer.Option("--name", hidden=True)] = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run one worker for an existing study, from any host that reaches the storage.

    Example: igkd-hpo worker digits --storage postgresql+psycopg://user@host/studies
    """
    from igkd_hpo.search.identity import this_process
    from igkd_hpo.search.lease import Idle, Worker
    from igkd_hpo.search.study import AssetPins, check_pins
    from igkd_hpo.service.events import Event
    from igkd_hpo.service.preparation import PreparationFailed, prepare_in_child
    from igkd_hpo.service.signals import StopSignal
    from igkd_hpo.service.worker import Slot, WorkerLoop

    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} is too few; give 1 or more")
    settings = Settings.resolve(storage_url=storage, allow_import=tuple(allow_import or ()))
    found = existing_study(study, settings)
    process = this_process()
    who = Worker(name=name or f"{process.host}-{process.pid}", process=process)

    def emit(event: Event) -> None:
        if supervised:
            sys.stdout.write(event.to_line() + "\n")
            sys.stdout.flush()
        elif event.kind != "waiting":
            typer.echo(event.for_people(), err=True)

    with StopSignal() as stop:
        if supervised:
            threading.Thread(target=_stop_with_supervisor, args=(stop,), daemon=True).start()
        else:
            try:
                made = prepare_in_child(found.config, settings, device=device, stop=stop)
            except PreparationFailed as error:
                raise typer.Exit(error.exit_code) from None
            if found.pins is not None:
                here = AssetPins(dataset_sha256=made["dataset_sha256"], teacher_sha256=made["teacher_sha256"])
                check_pins(found.name, found.pins, here)
        slot_facts = Slot(number=slot, device=device, threads=threads or len(os.sched_getaffinity(0)))
        ended = WorkerLoop(found, settings, who, slot_facts, emit=emit, stop=stop).run()
        if stop.received is not None:
            raise typer.Exit(128 + stop.received)
    if ended is Idle.STOPPED and not supervised:
        typer.echo("the study is stopped; igkd-hpo status says why", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _stop_with_supervisor(stop: object) -> None:
    """Standard input ends when the supervisor does, however it ends; the worker then hands its trial back."""
    from igkd_hpo.service.signals import StopSignal

    assert isinstance(stop, StopSignal)
    while os.read(sys.stdin.fileno(), 1):  # a buffered read would hold a lock that Python's own end needs
        pass
    stop.set(signal.SIGTERM)
