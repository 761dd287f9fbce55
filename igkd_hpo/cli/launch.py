"""`igkd-hpo launch`: create or resume a study and run it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import AllowImport, Device, Storage, StudyFile, count_of_workers, study_to_run
from igkd_hpo.cli.supervise import supervise
from igkd_hpo.errors import ExitCode, StudyStopped, UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.config.study import Study
    from igkd_hpo.search.study import SearchStudy
    from igkd_hpo.service.signals import StopSignal


def launch(
    study: StudyFile = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers",
            metavar="N|auto",
            help="Trials side by side on this host; auto: as many as pay, measured for some seconds; 0 only submits.",
        ),
    ] = "1",
    trials: Annotated[
        int | None, typer.Option("--trials", help="Total of COMPLETE plus PRUNED, instead of the file's n_trials.")
    ] = None,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Run a changed file as NAME-v2, NAME-v3 … beside the old study.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, where, and about how long.")
    ] = False,
) -> None:
    """Create or resume a study and run it; without STUDY, the built-in digits.

    Example: igkd-hpo launch --workers 4
    """
    from igkd_hpo.search.note import save_study_note
    from igkd_hpo.search.storage import mask, open_storage
    from igkd_hpo.search.study import check_unchanged, create_or_open, next_version
    from igkd_hpo.service.preparation import PreparationFailed, prepare_in_child
    from igkd_hpo.service.signals import StopSignal

    count = count_of_workers(workers)
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials} is below 1; give the total number of trials")
    settings = Settings.resolve(storage_url=storage, allow_import=tuple(allow_import or ()))
    config = study_to_run(study, settings)
    if dry_run:
        _dry_run(config, settings, workers=count, trials=trials, device=device)
        return

    opened = open_storage(settings.storage_url, create=True)
    if new_version:
        config = config.model_copy(update={"name": next_version(opened, config.name)})
    existed = check_unchanged(opened, config) is not None
    if not existed and trials is not None and trials < len(config.controls):
        raise UsageError(
            f"--trials {trials} leaves no room for {len(config.controls)} controls; give more, or drop controls"
        )
    if sys.stderr.isatty():  # the seconds until the first bar look like a hang
        typer.echo(f"study {config.name}: looking for images, teacher, logits and maps", err=True)
    with StopSignal() as stop:
        try:
            pins = prepare_in_child(config, settings, device=device, stop=stop)
        except PreparationFailed as failed:
            raise typer.Exit(failed.exit_code) from None
        found = create_or_open(opened, config, n_trials=trials, pins=pins)
        if not existed:
            save_study_note(found)
        typer.echo(f"study {found.name}, {found.n_trials} trials, in {mask(settings.storage_url)}", err=True)
        if existed and (finished := found.counts().finished) >= found.n_trials:
            typer.echo(f"{finished} trials are finished already; `--trials N` above that adds more", err=True)
        if count == 0:
            left = max(0, found.n_trials - found.counts().finished)
            then = f"igkd-hpo worker {found.name} runs them" if left else "--trials gives it more"
            typer.echo(f"submitted; {left} of {found.n_trials} trials are left; {then}", err=True)
            return
        if count is None:
            count = _as_many_as_pay(found, settings, device=device, stop=stop)
        kept_alive = count is None or supervise(found, settings, workers=count, device=device, stop=stop)
        counts = found.counts()
        if stop.received is not None:
            again = f"igkd-hpo launch {study or ''}".strip()
            typer.echo(
                f"stopped with {counts.finished} of {found.n_trials} trials finished; `{again}` goes on", err=True
            )
            raise typer.Exit(128 + stop.received)
    _conclude(found, kept_alive=kept_alive)


def _as_many_as_pay(found: "SearchStudy", settings: Settings, *, device: str, stop: "StopSignal") -> int | None:
    """What `--workers auto` stands for; None when a signal came before it was known."""
    from igkd_hpo.service.probe import measure_workers

    if found.counts().finished >= found.n_trials:
        return 1  # which says that nothing is left
    measured = measure_workers(found.config, settings, device=device, stop=stop)
    if measured is None:
        return None
    typer.echo(str(measured), err=True)
    return measured.workers


def _dry_run(config: "Study", settings: Settings, *, workers: int | None, trials: int | None, device: str) -> None:
    from igkd_hpo.service.dry_run import describe_launch
    from igkd_hpo.service.probe import measure_workers
    from igkd_hpo.service.signals import StopSignal

    measured = None
    if workers is None:
        with StopSignal() as stop:
            measured = measure_workers(config, settings, device=device, stop=stop)
        if measured is None:
            raise typer.Exit(128 + (stop.received or 0))
        workers = measured.workers
    typer.echo(describe_launch(config, settings, workers=workers, trials=trials, device=device, measured=measured))


def _conclude(found: "SearchStudy", *, kept_alive: bool) -> None:
    """The summary on standard output, or why there is none, and the exit code."""
    from igkd_hpo.results.best import summary

    if found.stopped is not None:
        if found.counts().complete == 0:
            typer.echo(f"error: study {found.name} stopped: {found.stopped}", err=True)
            raise typer.Exit(ExitCode.NO_COMPLETED_TRIAL)
        raise StudyStopped(f"study {found.name} stopped: {found.stopped}")
    typer.echo(summary(found))
    if not kept_alive:
        raise typer.Exit(ExitCode.FAILED)
