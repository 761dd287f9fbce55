"""Train students of many sizes with one configuration's settings, plain and distilled; test each network once."""

from collections.abc import Iterable, Sequence

from optuna.trial import TrialState

from igkd_hpo.api.confirm import check_complete, check_numbers, create_trials, refuse_linked, train
from igkd_hpo.api.source import StudyLike, existing_study, looks_like_path, settings_here, study_to_run
from igkd_hpo.api.supervise import EngineLike, WorkerCount, open_engine
from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.bundle.runtime import NEEDED_TO_MAKE, require
from igkd_hpo.compression.int8 import keep_int8, read_int8
from igkd_hpo.compression.ladder import Ladder, read_ladder
from igkd_hpo.compression.plan import begun_with, check_same_settings, check_taught, configuration, planned_arms
from igkd_hpo.compression.rung import PAPER_RUNGS, Rung, check_factors, keep_rungs, rungs_of
from igkd_hpo.config.study import Study
from igkd_hpo.confirmation.evaluation import evaluate, kept_networks
from igkd_hpo.confirmation.plan import candidate_of_file
from igkd_hpo.engines.engine import Engine, Host, prepare_existing
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, UsageError
from igkd_hpo.search.confirmation_study import Arm, arm_trials, open_linked
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.console import Console
from igkd_hpo.terminal.progress import make_console, make_progress, tell


def ladder(
    study: StudyLike | None = None,
    *,
    rungs: Sequence[float] = PAPER_RUNGS,
    trial: int | None = None,
    seeds: int = 5,
    int8: bool = False,
    workers: WorkerCount = 1,
    storage: str | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    engine: EngineLike = "local",
    progress: bool = True,
) -> Ladder:
    """Train students of many sizes with one configuration's settings, plain and distilled; test each network once.

    Called again with the same numbers it reads the results; with other rungs or more seeds it adds to them.

    Args:
        study: an existing study, or a study file without ranges, as export writes one; None means the latest study.
        rungs: compression factors, parameters of the teacher over those of the student, each above 1.
        trial: of the study, whose settings the students get; None: the ladder's own, or else the best of the search.
        seeds: fresh seeds for each student, plain and distilled, 2 or more.
        int8: also quantise every network as `export --bundle` does, and measure what that costs on validation images.
        workers: trials side by side on this host; auto: as many as pay, measured for some seconds.
        storage, device, allow_import, engine, progress: as for `launch`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a KeyboardInterrupt. The same call goes on.
        NoCompletedTrial: the search completed no trial.
        UsageError: no student reaches any rung, or the configuration asks nothing of the teacher.
        AssetMissing: the weights of a trial are not on this host; the test split stays closed.
        IgkdError: trials are missing, or every one diverged.
    """
    if int8:
        require(NEEDED_TO_MAKE)
    factors = check_factors(rungs)
    check_numbers(("--seeds", seeds, 2), ("--workers", workers, 1))
    settings, console = settings_here(storage, allow_import), make_console(progress)
    config, searched, arm = _choose(study, settings, trial, console)
    check_taught(arm, searched, config)
    database = searched.storage if searched else open_storage_here(settings, create=True)
    begun = open_linked(database, config.name, "ladder")
    if begun is not None:
        check_same_settings(begun, arm)
    with open_engine(engine) as opened, StopSignal() as stop:
        host = Host(settings=settings, device=device, stop=stop)
        known = () if begun is None else rungs_of(begun)
        pins = None if searched is None else searched.read().pins
        if pins is None or {*factors} - {rung.asked for rung in known}:
            pins = _prepare(opened, config, searched, host, progress)
            known = _find(config, arm, factors, known, settings, console, progress)
        _check_rungs(known, factors, config, console)
        linked = create_trials(database, config, planned_arms(arm, known), seeds, pins, console, purpose="ladder")
        keep_rungs(linked, known)
        train(linked, opened, host, console, workers=workers, progress=progress)
    check_complete(linked)
    with make_progress(progress) as shown:
        evaluate(linked, settings, device=device, progress=shown)
        if int8:
            _measure_int8(linked, settings, shown)
    found = read_ladder(linked)
    if found is None:
        raise IgkdError(f"every student of {linked.name} diverged; lower the learning rate, and search again")
    return found


def _measure_int8(linked: SearchStudy, settings: Settings, progress: Progress) -> None:
    """Measure the networks that have not been, each kept as soon as it is known."""
    known = read_int8(linked)
    trials = [
        one for one in arm_trials(linked.trials()) if one.state is TrialState.COMPLETE and one.number not in known
    ]
    if not trials:
        return

    from igkd_hpo.assets.study_assets import open_assets  # torch
    from igkd_hpo.bundle.int8_change import measure_int8

    assets = open_assets(linked.config, settings)
    networks = kept_networks(linked, trials, assets, settings, consequence="int8 was not measured")
    for number, change in measure_int8(networks, trials, assets, progress):
        keep_int8(linked, {number: change})


def _choose(
    given: StudyLike | None, settings: Settings, trial: int | None, console: Console
) -> tuple[Study, SearchStudy | None, Arm]:
    """Return the study file, the study that searched (None for a file without ranges), and the configuration."""
    if given is not None and not (isinstance(given, str) and not looks_like_path(given)):
        config = study_to_run(given, settings)
        if not config.is_search:
            if trial is not None:
                raise UsageError(f"--trial {trial}: {config.name} is a file without ranges; leave --trial out")
            return config.without_controls(), None, candidate_of_file(config)
    study = existing_study(given, settings)
    refuse_linked(study)
    arm, begun = configuration(study, trial), begun_with(study)
    if trial is None and begun is not None and begun != arm.trial:
        tell(console, f"the ladder of {study.name} has the settings of trial {begun}; the best is {arm.name} now")
        arm = configuration(study, begun)
    return study.config, study, arm


def _prepare(engine: Engine, config: Study, searched: SearchStudy | None, host: Host, progress: bool) -> AssetPins:
    """Make what is missing of the assets here, and return what they are."""
    with make_progress(progress) as shown:
        pins = None if searched is None else searched.read().pins
        if searched is None or pins is None:
            return engine.prepare(config, host, shown, None)
        prepare_existing(engine, searched, host, shown)
        return pins


def _find(
    config: Study,
    arm: Arm,
    factors: Sequence[float],
    known: Sequence[Rung],
    settings: Settings,
    console: Console,
    progress: bool,
) -> tuple[Rung, ...]:
    """Return the rungs that are known, and those that are not, each with its student or why it is left out."""
    from igkd_hpo.assets.study_assets import open_assets  # torch
    from igkd_hpo.compression.students import find_students

    new = [factor for factor in factors if factor not in {rung.asked for rung in known}]
    with make_progress(progress) as shown:
        found = find_students(open_assets(config, settings), arm.hyperparameters, new, known, shown)
    for rung in found:
        if rung.left_out is not None:
            tell(console, f"{rung.title} is left out: {rung.left_out}")
    return (*known, *found)


def _check_rungs(rungs: Sequence[Rung], factors: Sequence[float], config: Study, console: Console) -> None:
    """Tell which rungs there are beside those that are asked for. Raises UsageError where none of these can be had."""
    asked = [rung for rung in rungs if rung.asked in factors]
    if all(rung.left_out is not None for rung in asked):
        reasons = "; ".join(f"{rung.title}: {rung.left_out}" for rung in asked)
        raise UsageError(f"no rung of {config.name} can be had: {reasons}; give others with --rungs")
    others = [f"{rung.asked:,g}" for rung in rungs if rung.asked not in factors and rung.left_out is None]
    if others:
        tell(console, f"the ladder has {', '.join(others)} times from before, which get the same seeds")
