"""Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real."""

from collections.abc import Iterable, Sequence
from statistics import median

from igkd_hpo.api.source import StudyLike, existing_study, looks_like_path, settings_here, study_to_run
from igkd_hpo.api.supervise import EngineLike, WorkerCount, open_engine, supervise
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.confirmation import Confirmation, read_confirmation
from igkd_hpo.confirmation.evaluation import evaluate, untested
from igkd_hpo.confirmation.plan import (
    best_candidates,
    candidate_of_file,
    check_same_search,
    feasible_controls,
    frontier_candidates,
    planned_arms,
)
from igkd_hpo.engines.engine import Engine, Host, prepare_existing
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, StopOrdered, StudyStopped, UsageError
from igkd_hpo.search.confirmation_study import (
    Arm,
    create_linked,
    extend,
    fresh_seeds,
    open_confirmation,
    open_linked,
)
from igkd_hpo.search.counts import needs_another
from igkd_hpo.search.note import save_study_note
from igkd_hpo.search.records import study_trials
from igkd_hpo.search.storage import SharedStorage, open_storage_here
from igkd_hpo.search.study import CALLED, Purpose, SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import make_console, make_progress, tell
from igkd_hpo.words import counted, duration

_USUAL_SEEDS = 5
_EXPLAINED_ARMS = 4  # the best, without IG, without both, and what export takes, at most


def confirm(
    study: StudyLike | None = None,
    *,
    top: int = 5,
    seeds: int = _USUAL_SEEDS,
    workers: WorkerCount = 1,
    storage: str | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    engine: EngineLike = "local",
    progress: bool = True,
    explanations: bool = False,
    frontier: bool = False,
) -> Confirmation:
    """Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real.

    Called again with the same numbers it reads the results; with larger ones it adds to them.

    Args:
        study: an existing study, or a study file without ranges, as export writes one; None means the latest study.
        top: how many of the best configurations.
        seeds: fresh seeds for each of them, 2 or more.
        workers: trials side by side on this host; auto: as many as pay, measured for some seconds.
        storage, device, allow_import, engine, progress: as for `launch`.
        explanations: compare the students' attribution maps with the teacher's too, on validation images.
        frontier: take the search's best, and at most `top` students of the frontier over the parameters, whose steps up
            in size are larger than the interval of one seed; say what each of these steps buys.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a KeyboardInterrupt. The same call goes on.
        NoCompletedTrial: there is nothing to confirm.
        AssetMissing: the weights of a trial are not on this host; the test split stays closed.
        TeacherError: explanations are asked for, and the teacher gets no validation image right.
        IgkdError: trials are missing, or every one diverged.
    """
    check_numbers(("--top", top, 1), ("--seeds", seeds, 2), ("--workers", workers, 1))
    settings = settings_here(storage, allow_import)
    console = make_console(progress)
    config, searched, arms, steps = _choose(study, settings, top, console, frontier=frontier)
    database = searched.storage if searched else open_storage_here(settings, create=True)
    with open_engine(engine) as opened, StopSignal() as stop:
        host = Host(settings=settings, device=device, stop=stop)
        pins = searched.read().pins if searched else None
        if pins is None:
            with make_progress(progress) as shown:
                pins = opened.prepare(config, host, shown, None)
        linked = create_trials(database, config, arms, seeds, pins, console, frontier=steps, purpose="confirm")
        if searched is not None:
            _tell_time(searched, linked, console)
        if explanations:
            students = counted(min(_EXPLAINED_ARMS, len(arms)) * seeds, "student")
            tell(console, f"then the maps of up to {students} are compared; how long that takes is told when it begins")
        train(linked, opened, host, console, workers=workers, progress=progress, assets_needed=explanations)
    check_complete(linked)
    with make_progress(progress) as shown:
        evaluate(linked, settings, device=device, progress=shown)
    confirmation = _read(linked)
    if explanations:
        from igkd_hpo.confirmation.explaining import explain  # torch and captum

        with make_progress(progress) as shown:
            explain(linked, confirmation, settings, device=device, progress=shown)
        confirmation = _read(linked)
    return confirmation


def _tell_time(searched: SearchStudy, linked: SearchStudy, console: Console) -> None:
    """Say how long what is left may take, by the trials of the search, where any completed."""
    took = [trial.seconds for trial in study_trials(searched) if trial.state == "COMPLETE" and trial.seconds]
    left = linked.read().n_trials - linked.counts().finished
    if took and left:
        each = median(took)
        told = f"the search's trials took {duration(each)} each (median), so these take"
        tell(console, f"{told} about {duration(left * each)} one after the other")


def _read(linked: SearchStudy) -> Confirmation:
    confirmation = read_confirmation(linked)
    if confirmation is None:
        raise IgkdError(f"every arm of {linked.name} diverged; lower the learning rate, and search again")
    return confirmation


def _choose(
    given: StudyLike | None, settings: Settings, top: int, console: Console, *, frontier: bool
) -> tuple[Study, SearchStudy | None, tuple[Arm, ...], Sequence[Arm]]:
    """Return the study file, the study that searched (None for a file without ranges), the arms, and the frontier's."""
    if given is not None and not (isinstance(given, str) and not looks_like_path(given)):
        config = study_to_run(given, settings)
        if not config.is_search:
            if frontier:
                raise UsageError(f"--frontier: {config.name} is one student, without a search; give the study's name")
            return config, None, planned_arms(config, [candidate_of_file(config)], config.controls), ()
    study = existing_study(given, settings)
    refuse_linked(study)
    steps = frontier_candidates(study, top) if frontier else []
    candidates = [*best_candidates(study, 1), *steps] if frontier else best_candidates(study, top)
    finished, n_trials = study.counts().finished, study.read().n_trials
    if finished < n_trials:
        tell(console, f"study {study.name} has {finished} of {n_trials} trials: the best so far are confirmed")
    if not frontier and len(candidates) < top:
        tell(console, f"{study.name} has {len(candidates)} different completed configurations, not {top}")
    if (existing := open_confirmation(study.storage, study.name)) is not None:
        check_same_search(study, existing)
    return study.config, study, planned_arms(study.config, candidates, feasible_controls(study)), steps


def check_numbers(*given: tuple[str, WorkerCount, int]) -> None:
    """Raise UsageError where the number of a flag is below the least that it takes; `auto` is none."""
    for flag, value, least in given:
        if value != "auto" and value < least:
            raise UsageError(f"{flag} {value} is too few; give {least} or more")


def refuse_linked(study: SearchStudy) -> None:
    """Raise UsageError for a confirmation and a ladder, which have no trials of a search."""
    if study.purpose != "search":
        called, whole = CALLED[study.purpose], study.confirms
        raise UsageError(f"{study.name} is a {called} itself; give {whole}, the study that it belongs to")


def create_trials(
    storage: SharedStorage,
    config: Study,
    arms: Sequence[Arm],
    seeds: int,
    pins: AssetPins,
    console: Console,
    *,
    purpose: Purpose,
    frontier: Sequence[Arm] = (),
) -> SearchStudy:
    """Create or open the study that is linked to `config` for a purpose, and give it a trial for every arm and seed."""
    is_new = open_linked(storage, config.name, purpose) is None
    linked = create_linked(storage, config, purpose, pins=pins)
    if is_new:
        save_study_note(linked)
    added, n_trials = extend(linked, arms, fresh_seeds(config, seeds), frontier), linked.read().n_trials
    told = f"{added} of {n_trials} trials are new" if added else f"{n_trials} trials"
    tell(console, f"study {linked.name}, {told}, in {storage.place}")
    if added:
        names = ", ".join(arm.name for arm in arms)
        epochs = config.training.epochs
        tell(console, f"{len(arms)} arms with {seeds} seeds each, {added} trainings of {epochs} epochs ahead: {names}")
        if seeds < _USUAL_SEEDS:
            tell(
                console, f"with {seeds} seeds only very large differences can be told; --seeds {_USUAL_SEEDS} is usual"
            )
    return linked


def train(
    linked: SearchStudy,
    engine: Engine,
    host: Host,
    console: Console,
    *,
    workers: WorkerCount,
    progress: bool,
    assets_needed: bool = False,
) -> None:
    """Run the trials of a linked study that have not ended, after its assets were made, if anything needs them.

    Raises:
        Interrupted: a signal came.
        StopOrdered, StudyStopped: the study was stopped.
        IgkdError: the assets cannot be made, or a worker could not be kept alive.
    """
    ended = linked.counts().finished >= linked.read().n_trials
    if not ended or assets_needed or untested(linked):
        with make_progress(progress) as shown:
            prepare_existing(engine, linked, host, shown)
    if not ended:
        _run(linked, engine, host, console, workers=workers)
    if host.stop.received is not None:
        raise Interrupted(f"stopped; the same `igkd-hpo {linked.purpose}` goes on", host.stop.received)


def _run(linked: SearchStudy, engine: Engine, host: Host, console: Console, *, workers: WorkerCount) -> None:
    again = f"{linked.purpose} again goes on"
    kept_alive = supervise(engine, linked, host, workers=workers, console=console)
    record = linked.read()
    if record.stop_ordered:
        so_far = f"{linked.counts().finished} of {record.n_trials} trials"
        raise StopOrdered(f"study {linked.name} was stopped with {so_far} finished; {again}", completed=True)
    if record.stopped is not None:
        raise StudyStopped(f"study {linked.name} stopped: {record.stopped}")
    if not kept_alive and host.stop.received is None:
        lost = f"not every worker could be kept alive, see {host.settings.paths.logs / linked.folder}"
        raise IgkdError(f"study {linked.name}: {lost}; {again}")


def check_complete(linked: SearchStudy) -> None:
    """Raise IgkdError while results are missing: the test split stays closed until every arm and seed has one."""
    n_trials = linked.read().n_trials
    missing = n_trials - linked.counts().finished
    if missing > 0:
        without = [trial for trial in linked.trials() if needs_another(trial) or not trial.state.is_finished()]
        reasons = [trial.user_attrs["reason"] for trial in without if trial.user_attrs.get("reason")]
        why = f"; the last reason: {reasons[-1]}" if reasons else ""
        missed = f"{missing} of {n_trials} trials of {linked.name} have no result{why}"
        raise IgkdError(f"{missed}; {linked.purpose} again tries them again")
