"""Create or resume a study and run it."""

from collections.abc import Iterable
from contextlib import suppress

from igkd_hpo.api.init import init, names_images, study_file_of, write_new
from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.api.study import Study
from igkd_hpo.api.supervise import EngineLike, WorkerCount, open_engine, supervise
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.study import Study as StudyFile
from igkd_hpo.distillation.device import check_device_name
from igkd_hpo.doctor.dry_run import describe_launch
from igkd_hpo.engines.engine import Engine, Host
from igkd_hpo.engines.ray.engine import Ray
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, NoCompletedTrial, StopOrdered, StudyStopped, UsageError
from igkd_hpo.search.enqueued import enqueued_trials, remark_on
from igkd_hpo.search.note import save_study_note
from igkd_hpo.search.status import study_status
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.study import SearchStudy, check_unchanged, create_or_open, next_version
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import make_console, make_progress, tell
from igkd_hpo.words import counted


def launch(
    study: StudyLike = DEFAULT,
    *,
    workers: WorkerCount = 1,
    trials: int | None = None,
    storage: str | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    new_version: bool = False,
    engine: EngineLike = "local",
    progress: bool = True,
) -> Study:
    """Create or resume a study, run it to its end, and return it, with its results.

    Workers and trials are processes of their own: a script needs no `if __name__ == "__main__"`. Ctrl-C stops them in
    order, and the same call goes on. In another thread than the main one signals do not arrive here; there,
    `Study.stop(now=True)` ends the call.

    Args:
        study: a path, a name of a built-in or existing study, a mapping as in a study file, or a `StudyFile`; or a
            folder of images, or a list of them in CSV, whose study file is chosen as by `init` and written here, if it
            is not there yet.
        workers: trials side by side, on this host or on the engine's; auto: as many as pay on this one, measured for
            some seconds; 0 only creates the study, for workers elsewhere.
        trials: total of COMPLETE plus PRUNED, instead of the study file's n_trials.
        storage: SQLAlchemy URL of the database; else IGKD_HPO_STORAGE, OPTUNA_STORAGE, or storage/igkd_hpo.db here.
        device: auto, cpu, cuda or cuda:N.
        allow_import: modules whose code the study file may name.
        new_version: run a changed study as NAME-v2, NAME-v3 … beside the old one.
        engine: local: processes of this host; in_process: one trial at a time in the caller's own, where breakpoints
            stop and no process is started; ray: a Ray cluster, of which `igkd_hpo.Ray(...)` says more; or an Engine.
        progress: show on standard error how far it is.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a KeyboardInterrupt.
        UsageError, StudyFileError, DataError, TeacherError: what was given cannot be run.
        StorageError: the database is out of reach.
        StudyStopped: too many trials failed; NoCompletedTrial where none had completed.
        StopOrdered: somebody stopped the study; a StudyStopped.
        IgkdError: a worker could not be kept alive.
    """
    _check(workers, trials, device)
    settings = settings_here(storage, allow_import)
    console = make_console(progress)
    config = (
        study_to_run(study, settings) if not names_images(study) else _first_study(study, device, settings, console)
    )
    with open_engine(engine) as opened_engine:
        opened = open_storage_here(settings, create=True)
        if new_version:
            config = config.model_copy(update={"name": next_version(opened, config.name)})
        existing = check_unchanged(opened, config)
        existed = existing is not None
        if not existed and trials is not None and trials < len(config.controls):
            no_room = f"--trials {trials} leaves no room for {len(config.controls)} controls"
            raise UsageError(f"{no_room}; give more, or drop controls")
        if console.is_terminal:  # the seconds until the first bar look like a hang
            tell(console, f"study {config.name}: looking for images, teacher, logits and maps")
        with StopSignal() as stop:
            host = Host(settings=settings, device=device, stop=stop)
            with make_progress(progress) as shown:
                pins = opened_engine.prepare(config, host, shown, existing.read().pins if existing else None)
            search = create_or_open(opened, config, n_trials=trials, pins=pins)
            if not existed:
                save_study_note(search)
            record, finished = search.read(), search.counts().finished
            n_trials = record.n_trials
            tell(console, f"study {search.name}, {counted(n_trials, 'trial')}, in {opened.place}")
            if existed and (others := _other_workers(search)):
                tell(console, f"{counted(len(others), 'worker')} of another launch on it already: {', '.join(others)}")
            enqueued = enqueued_trials(search.trials())
            if enqueued:
                tell(console, f"enqueued: {counted(len(enqueued), 'trial')}, which run also beyond that total")
            for trial in enqueued:
                if (remark := remark_on(trial, config.hyperparameters)) is not None:
                    tell(console, f"trial {trial.number}: {remark}")
            if existed and finished >= n_trials and not enqueued:
                tell(console, f"finished already: {counted(finished, 'trial')}; `--trials N` above that adds more")
            if workers == 0:
                left = max(len(enqueued), n_trials - finished)
                then = f"igkd-hpo worker {search.name} runs them" if left else "--trials gives it more"
                tell(console, f"submitted; {left} of {n_trials} trials are left; {then}")
                return Study(search, settings)
            if finished >= n_trials and not enqueued and record.stopped is None:
                return Study(search, settings)
            if workers == "auto" and finished >= n_trials and not enqueued:
                workers = 1  # which says why it stopped
            _run(opened_engine, search, host, workers=workers, console=console)
    return Study(search, settings)


def dry_run(
    study: StudyLike,
    settings: Settings,
    *,
    workers: WorkerCount,
    trials: int | None,
    device: str,
    new_version: bool,
    engine: EngineLike = "local",
) -> str:
    """Say what `launch` would run with these arguments and where; with measured workers, about how long."""
    _check(workers, trials, device)
    if names_images(study):
        study = study_file_of(study, settings)[1] or init(study, device=device).study_file
    config = study_to_run(study, settings)
    if new_version:
        with suppress(UsageError):  # no database yet holds no earlier version
            opened = open_storage_here(settings, create=False)
            config = config.model_copy(update={"name": next_version(opened, config.name)})
    measured, places = None, None
    if workers == "auto" or isinstance(engine, Ray):
        with open_engine(engine) as opened_engine, StopSignal() as stop:
            host = Host(settings=settings, device=device, stop=stop)
            if workers == "auto":
                measured = opened_engine.measure(config, host)
                workers = measured.workers
            if isinstance(opened_engine, Ray):
                places = opened_engine.describe(config, host, slots=max(1, workers))
    return describe_launch(
        config, settings, workers=workers, trials=trials, device=device, measured=measured, places=places
    )


def _first_study(folder: str, device: str, settings: Settings, console: Console) -> StudyFile:
    """Return the study in the file of a folder of images; it is chosen and written where there is none yet."""
    file, study = study_file_of(folder, settings)
    if study is not None:
        tell(
            console,
            f"{file} is there already, and is taken as it is" if file.exists() else f"study {study.name} goes on",
        )
        return study
    first = init(folder, device=device, progress=not console.quiet)
    write_new(file, first.text)
    for line in first.about:
        tell(console, line)
    tell(console, f"written to {file}; to change it, stop this, edit it and launch it with --new-version")
    return first.study_file


def _check(workers: WorkerCount, trials: int | None, device: str) -> None:
    check_device_name(device)
    if workers != "auto" and workers < 0:
        raise UsageError(f"--workers {workers} is below 0; give the number of trials to run side by side")
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials} is below 1; give the total number of trials")


def _other_workers(study: SearchStudy) -> list[str]:
    """Name the workers that hold trials of the study, dead ones left out."""
    return sorted({f"{trial.worker} on {trial.host}" for trial in study_status(study).running if not trial.lost})


def _run(engine: Engine, study: SearchStudy, host: Host, *, workers: WorkerCount, console: Console) -> None:
    kept_alive = supervise(engine, study, host, workers=workers, console=console)
    record, counts = study.read(), study.counts()
    so_far, goes_on = f"{counts.finished} of {record.n_trials} trials", f"`igkd-hpo launch {study.name}` goes on"
    if host.stop.received is not None:
        raise Interrupted(f"stopped with {so_far} finished; {goes_on}", host.stop.received)
    if record.stop_ordered:
        raise StopOrdered(
            f"study {study.name} was stopped with {so_far} finished; {goes_on}", completed=counts.complete > 0
        )
    if record.stopped is not None:
        kind = NoCompletedTrial if counts.complete == 0 else StudyStopped
        raise kind(f"study {study.name} stopped: {record.stopped}")
    if not kept_alive:
        lost = f"not every worker could be kept alive, see {host.settings.paths.logs / study.folder}"
        raise IgkdError(f"study {study.name}: {lost}; {so_far} are finished; {goes_on}")
