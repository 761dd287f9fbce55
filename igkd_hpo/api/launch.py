"""Create or resume a study and run it."""

from collections.abc import Iterable
from contextlib import suppress

from optuna.trial import FrozenTrial

from igkd_hpo.api.init import init, names_images, study_file_of, write_new
from igkd_hpo.api.slurm import Slurm
from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.api.study import Study
from igkd_hpo.api.supervise import EngineLike, WorkerCount, open_engine, supervise
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.config.study import Study as StudyFile
from igkd_hpo.config.time_span import seconds_of
from igkd_hpo.distillation.device import check_device_name
from igkd_hpo.doctor.dry_run import describe_launch
from igkd_hpo.engines.engine import Engine, Host
from igkd_hpo.engines.ray.engine import Ray
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, NoCompletedTrial, StopOrdered, StudyStopped, UsageError
from igkd_hpo.search.carry_over import CarriedOver, carry_over, enqueue_carried, other_images
from igkd_hpo.search.deadline import in_words
from igkd_hpo.search.enqueued import enqueued_trials, remark_on
from igkd_hpo.search.note import save_study_note
from igkd_hpo.search.status import study_status
from igkd_hpo.search.stopping import stop_where_due
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.study import (
    SearchStudy,
    StudyRecord,
    check_unchanged,
    create_or_open,
    find_study,
    next_version,
    open_study,
)
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import make_console, make_progress, tell
from igkd_hpo.words import counted


def launch(
    study: StudyLike = DEFAULT,
    *,
    workers: WorkerCount = 1,
    trials: int | None = None,
    timeout: str | None = None,
    start_from: str | None = None,
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
        start_from: name of another study in the database, whose best configurations that fit run first.
        timeout: time from now to the end of the search, such as 8h, instead of the study file's.
        storage: SQLAlchemy URL of the database; else IGKD_HPO_STORAGE, OPTUNA_STORAGE, or storage/igkd_hpo.db here.
        device: auto, cpu, cuda or cuda:N.
        allow_import: modules whose code the study file may name.
        new_version: run a changed study as NAME-v2, NAME-v3 … beside the old one.
        engine: local: processes of this host; in_process: one trial at a time in the caller's own, where breakpoints
            stop and no process is started; ray: a Ray cluster, of which `igkd_hpo.Ray(...)` says more; an Engine; or a
            `Slurm`, to which workers are submitted, and left.
        progress: show on standard error how far it is.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a KeyboardInterrupt.
        UsageError, StudyFileError, DataError, TeacherError: what was given cannot be run.
        StorageError: the database is out of reach.
        StudyStopped: too many trials failed; NoCompletedTrial where none had completed.
        StopOrdered: somebody stopped the study; a StudyStopped.
        IgkdError: a worker could not be kept alive, or Slurm took no job.
    """
    _check(workers, trials, device)
    seconds = _seconds(timeout)
    settings = settings_here(storage, allow_import)
    if isinstance(engine, Slurm):
        engine.check(workers, settings)
    console = make_console(progress)
    config = (
        study_to_run(study, settings) if not names_images(study) else _first_study(study, device, settings, console)
    )
    with open_engine("local" if isinstance(engine, Slurm) else engine) as opened_engine:
        opened = open_storage_here(settings, create=True)
        if new_version:
            config = config.model_copy(update={"name": next_version(opened, config.name)})
        existing = check_unchanged(opened, config)
        existed = existing is not None
        if not existed and trials is not None and (no_room := config.without_room(trials)) is not None:
            raise UsageError(f"--trials {trials} leaves no room for {no_room}")
        origin = None if start_from is None else open_study(opened, start_from)
        carried = None if origin is None else carry_over(origin, config)
        if console.is_terminal:  # the seconds until the first bar look like a hang
            tell(console, f"study {config.name}: looking for images, teacher, logits and maps")
        with StopSignal() as stop:
            host = Host(settings=settings, device=device, stop=stop)
            with make_progress(progress) as shown:
                pins = opened_engine.prepare(config, host, shown, existing.read().pins if existing else None)
            meanwhile = not existed and find_study(opened, config.name) is not None
            search = create_or_open(opened, config, n_trials=trials, pins=pins, timeout=seconds)
            if not existed:
                save_study_note(search)
            if origin is not None and carried is not None:
                _tell_carried(search, origin, carried, console)
            finished = search.counts().finished
            if finished < search.read().n_trials:
                _stop_where_due(search)
            record = search.read()
            n_trials = record.n_trials
            tell(console, f"study {search.name}, {counted(n_trials, 'trial')}{_until(record)}, in {opened.place}")
            if record.stopped is not None:
                tell(console, f"{finished} of {n_trials} trials are finished: {record.stopped}")
                return Study(search, settings)
            _tell_others(search, console, made_meanwhile=meanwhile)
            enqueued = _tell_enqueued(search, console)
            if existed and finished >= n_trials and not enqueued:
                tell(console, f"finished already: {counted(finished, 'trial')}; `--trials N` above that adds more")
            if workers == 0:
                left = max(len(enqueued), n_trials - finished)
                then = f"igkd-hpo worker {search.name} runs them" if left else "--trials gives it more"
                tell(console, f"submitted; {left} of {n_trials} trials are left; {then}")
                return Study(search, settings)
            if finished >= n_trials and not enqueued:
                return Study(search, settings)
            if isinstance(engine, Slurm):
                for line in engine.submit(search, host, workers=workers):
                    tell(console, line)
                return Study(search, settings)
            _run(opened_engine, search, host, workers=workers, console=console)
    return Study(search, settings)


def dry_run(
    study: StudyLike,
    settings: Settings,
    *,
    workers: WorkerCount,
    trials: int | None,
    timeout: str | None = None,
    device: str,
    new_version: bool,
    engine: EngineLike = "local",
) -> str:
    """Say what `launch` would run with these arguments and where; with measured workers, about how long.

    For Slurm that is the batch script, with what `sbatch --test-only` says of it.
    """
    _check(workers, trials, device)
    _seconds(timeout)
    if isinstance(engine, Slurm):
        engine.check(workers, settings)
    if names_images(study):
        study = study_file_of(study, settings)[1] or init(study, device=device).study_file
    config = study_to_run(study, settings)
    if new_version:
        with suppress(UsageError):  # no database yet holds no earlier version
            opened = open_storage_here(settings, create=False)
            config = config.model_copy(update={"name": next_version(opened, config.name)})
    if isinstance(engine, Slurm):
        return engine.try_out(config.name, settings, workers=workers, device=device)
    measured, places = None, None
    if workers == "auto" or isinstance(engine, Ray):
        with open_engine(engine) as opened_engine, StopSignal() as stop:
            host = Host(settings=settings, device=device, stop=stop)
            if workers == "auto":
                measured = opened_engine.measure(config, host)
                workers = measured.workers
            if isinstance(opened_engine, Ray):
                places = opened_engine.describe(config, host, slots=max(1, workers))
    if timeout is not None:
        config = config.model_copy(update={"timeout": timeout})
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


def _until(record: StudyRecord) -> str:
    """Say when a study ends at the latest, after a comma; nothing where it has no time."""
    return "" if record.deadline is None else f", until {in_words(record.deadline)} at the latest"


def _stop_where_due(study: SearchStudy) -> None:
    """Stop a study whose time is over before any worker is started for it."""
    with study.transaction() as connection:
        stop_where_due(study, connection, study.trials())


def _tell_enqueued(study: SearchStudy, console: Console) -> list[FrozenTrial]:
    """Return the trials that somebody enqueued with Optuna, and say what is odd about them."""
    enqueued = enqueued_trials(study.trials())
    if enqueued:
        tell(console, f"enqueued: {counted(len(enqueued), 'trial')}, which run also beyond that total")
    for trial in enqueued:
        if (remark := remark_on(trial, study.config.hyperparameters)) is not None:
            tell(console, f"trial {trial.number}: {remark}")
    return enqueued


def _tell_carried(study: SearchStudy, origin: SearchStudy, carried: CarriedOver, console: Console) -> None:
    """Enqueue what is carried over from another study, and say what it is."""
    if not enqueue_carried(study, carried):
        tell(console, f"nothing new of {origin.name}, or no room for it; `--trials N` makes some")
        return
    for line in carried.told:
        tell(console, line)
    if other_images(origin, study):
        tell(console, f"{origin.name} is of other images: its accuracies say nothing here, and are not taken over")


def _seconds(timeout: str | None) -> int | None:
    """Return the seconds of `--timeout`. Raises UsageError."""
    try:
        return None if timeout is None else seconds_of(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None


def _tell_others(study: SearchStudy, console: Console, *, made_meanwhile: bool) -> None:
    """Tell of workers that hold trials of the study, dead ones left out, or of a launch whose workers only begin."""
    others = sorted({f"{trial.worker} on {trial.host}" for trial in study_status(study).running if not trial.lost})
    if others:
        tell(console, f"{counted(len(others), 'worker')} of another launch on it already: {', '.join(others)}")
    elif made_meanwhile:
        tell(console, "another launch made it meanwhile, and may run workers of its own beside these")


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
    if record.stop_planned and counts.complete:
        tell(console, f"{so_far} are finished: {record.stopped}")
    elif record.stopped is not None:
        kind = NoCompletedTrial if counts.complete == 0 else StudyStopped
        raise kind(f"study {study.name} stopped: {record.stopped}")
    elif not kept_alive:
        lost = f"not every worker could be kept alive, see {host.settings.paths.logs / study.folder}"
        raise IgkdError(f"study {study.name}: {lost}; {so_far} are finished; {goes_on}")
