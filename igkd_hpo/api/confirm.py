"""Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from igkd_hpo.api.source import StudyLike, existing_study, looks_like_path, settings_here, study_to_run
from igkd_hpo.api.supervise import EngineLike, open_engine, supervise
from igkd_hpo.config.study import Study
from igkd_hpo.confirm.confirmation import Confirmation, read_confirmation
from igkd_hpo.confirm.evaluation import evaluate, untested
from igkd_hpo.confirm.plan import best_candidates, candidate_of_file, check_same_search, feasible_controls, planned_arms
from igkd_hpo.engines.engine import Engine, Host, prepare_existing
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import IgkdError, Interrupted, StudyStopped, UsageError
from igkd_hpo.search.linked_study import Arm, create_linked, extend, fresh_seeds, open_linked
from igkd_hpo.search.note import save_study_note
from igkd_hpo.search.storage import SharedStorage, mask, open_storage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.terminal.progress import make_console, make_progress, tell


@dataclass(frozen=True, kw_only=True)
class _Confirmed:
    """What is to be confirmed: a study, or a file without ranges, for which there is none."""

    config: Study
    study: SearchStudy | None
    storage: SharedStorage
    candidates: list[Arm]


@dataclass(frozen=True, kw_only=True)
class _How:
    """What the steps of a confirmation share."""

    engine: Engine
    host: Host
    console: Console
    progress: bool


def confirm(
    study: StudyLike | None = None,
    *,
    top: int = 5,
    seeds: int = 5,
    workers: int | Literal["auto"] = 1,
    storage: str | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    engine: EngineLike = "local",
    progress: bool = True,
) -> Confirmation:
    """Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real.

    Asked again with the same numbers it reads what is known; with larger ones it adds to it.

    Args:
        study: an existing study, or a study file without ranges, as export writes one; None means the latest study.
        top: how many of the best configurations.
        seeds: fresh seeds for each of them, 2 or more.
        workers: trials side by side on this host; auto: as many as pay, measured for some seconds.
        storage, device, allow_import, engine, progress: as for `launch`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; a KeyboardInterrupt. The same call goes on.
        NoCompletedTrial: there is nothing to confirm.
        AssetMissing: the weights of a trial are not on this host; the test split stays closed.
        IgkdError: trials are missing, or every one diverged.
    """
    for flag, value, least in (("--top", top, 1), ("--seeds", seeds, 2), ("--workers", workers, 1)):
        if value != "auto" and value < least:
            raise UsageError(f"{flag} {value} is too few; give {least} or more")
    settings = settings_here(storage, allow_import)
    console = make_console(progress)
    what = _what(study, settings, top, console)
    with open_engine(engine) as opened, StopSignal() as stop:
        host = Host(settings=settings, device=device, stop=stop)
        how = _How(engine=opened, host=host, console=console, progress=progress)
        linked = _linked(what, how, seeds=seeds)
        _run(linked, how, workers=workers)
        if stop.received is not None:
            raise Interrupted(
                f"stopped; `igkd-hpo confirm {what.config.name}` with the same flags goes on", stop.received
            )
    _check_complete(linked)
    with make_progress(progress) as shown:
        evaluate(linked, settings, device=device, progress=shown)
    found = read_confirmation(linked)
    if found is None:
        raise IgkdError(f"every arm of {linked.name} diverged; lower the learning rate, and search again")
    return found


def _what(given: StudyLike | None, settings: Settings, top: int, console: Console) -> _Confirmed:
    is_name = given is None or (isinstance(given, str) and not looks_like_path(given))
    if given is not None and not is_name:
        config = study_to_run(given, settings)
        if not config.is_search:
            opened = open_storage(settings.storage_url, create=True)
            return _Confirmed(config=config, study=None, storage=opened, candidates=[candidate_of_file(config)])
    found = existing_study(given, settings)
    if found.confirms is not None:
        raise UsageError(f"{found.name} is a confirmation itself; give {found.confirms}, the study that it confirms")
    candidates = best_candidates(found, top)
    counts, n_trials = found.counts(), found.read().n_trials
    if counts.finished < n_trials:
        tell(console, f"study {found.name} has {counts.finished} of {n_trials} trials: the best so far are confirmed")
    if len(candidates) < top:
        tell(console, f"{found.name} has {len(candidates)} different completed configurations, not {top}")
    return _Confirmed(config=found.config, study=found, storage=found.storage, candidates=candidates)


def _linked(what: _Confirmed, how: _How, *, seeds: int) -> SearchStudy:
    """The study of the confirmation, with a trial for every arm and seed."""
    existing = open_linked(what.storage, what.config.name)
    if existing is not None and what.study is not None:
        check_same_search(what.study, existing)
    pins = what.study.read().pins if what.study else None
    if pins is None:
        with make_progress(how.progress) as shown:
            pins = how.engine.prepare(what.config, how.host, shown)
    linked = create_linked(what.storage, what.config, pins=pins)
    if existing is None:
        save_study_note(linked)
    controls = feasible_controls(what.study) if what.study else what.config.controls
    added = extend(linked, planned_arms(what.config, what.candidates, controls), fresh_seeds(what.config, seeds))
    n_trials = linked.read().n_trials
    counted = f"{added} of {n_trials} trials are new" if added else f"{n_trials} trials"
    tell(how.console, f"study {linked.name}, {counted}, in {mask(how.host.settings.storage_url)}")
    return linked


def _run(linked: SearchStudy, how: _How, *, workers: int | Literal["auto"]) -> None:
    ended = linked.counts().finished >= linked.read().n_trials
    if not ended or untested(linked):
        with make_progress(how.progress) as shown:
            prepare_existing(how.engine, linked, how.host, shown)
    if ended:
        return
    kept_alive = supervise(how.engine, linked, how.host, workers=workers, console=how.console)
    if (reason := linked.read().stopped) is not None:
        raise StudyStopped(f"study {linked.name} stopped: {reason}")
    if not kept_alive and how.host.stop.received is None:
        raise IgkdError(
            f"study {linked.name}: not every worker could be kept alive, see "
            f"{how.host.settings.paths.logs / linked.name}; confirm again goes on"
        )


def _check_complete(linked: SearchStudy) -> None:
    """Raise IgkdError while trials are missing: the test split stays closed until all are there."""
    n_trials = linked.read().n_trials
    missing = n_trials - linked.counts().finished
    if missing > 0:
        reasons = [t.user_attrs["reason"] for t in linked.trials() if t.user_attrs.get("reason")]
        why = f"; the last reason: {reasons[-1]}" if reasons else ""
        raise IgkdError(
            f"{missing} of {n_trials} trials of {linked.name} did not end{why}; confirm again tries them again"
        )
