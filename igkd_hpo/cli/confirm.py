"""`igkd-hpo confirm`: the best configurations again, with fresh seeds, and on the test split."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igkd_hpo.cli.arguments import (
    AllowImport,
    AsJson,
    Device,
    Storage,
    existing_study,
    looks_like_path,
    print_json,
)
from igkd_hpo.cli.progress import make_progress
from igkd_hpo.cli.supervise import supervise
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.errors import ExitCode, IgkdError, StudyStopped, UsageError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.results.confirm.confirmation import Confirmation
    from igkd_hpo.search.linked_study import Arm
    from igkd_hpo.search.storage import SharedStorage
    from igkd_hpo.search.study import SearchStudy
    from igkd_hpo.service.signals import StopSignal


@dataclass(frozen=True, kw_only=True)
class _Confirmed:
    """What is to be confirmed: a study, or a file without ranges, for which there is none."""

    config: Study
    study: "SearchStudy | None"
    storage: "SharedStorage"
    candidates: "list[Arm]"


def confirm(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]", help="Name of a study, or a file without ranges (best.yaml); without it, the latest."
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many of the best configurations.")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", help="Fresh seeds for each of them, 2 or more.")] = 5,
    workers: Annotated[int, typer.Option("--workers", help="Trials side by side on this host.")] = 1,
    storage: Storage = None,
    device: Device = "auto",
    allow_import: AllowImport = None,
    as_json: AsJson = False,
) -> None:
    """Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real.

    Example: igkd-hpo confirm digits --top 5 --seeds 5 --workers 4
    """
    from igkd_hpo.results.confirm.confirmation import read_confirmation
    from igkd_hpo.results.confirm.evaluation import evaluate
    from igkd_hpo.service.preparation import PreparationFailed
    from igkd_hpo.service.signals import StopSignal

    for flag, value, least in (("--top", top, 1), ("--seeds", seeds, 2), ("--workers", workers, 1)):
        if value < least:
            raise UsageError(f"{flag} {value} is too few; give {least} or more")
    settings = Settings.resolve(storage_url=storage, allow_import=tuple(allow_import or ()))
    what = _what(study, settings, top)
    with StopSignal() as stop:
        try:
            linked = _linked(what, settings, seeds=seeds, device=device, stop=stop)
            _run(linked, settings, workers=workers, device=device, stop=stop)
        except PreparationFailed as failed:
            raise typer.Exit(failed.exit_code) from None
        if stop.received is not None:
            again = f"igkd-hpo confirm {study or ''}".strip()
            typer.echo(f"stopped; `{again}` with the same flags goes on", err=True)
            raise typer.Exit(128 + stop.received)
    _check_complete(linked)
    with make_progress() as progress:
        evaluate(linked, settings, device=device, progress=progress)
    found = read_confirmation(linked)
    if found is None:
        raise IgkdError(f"every arm of {linked.name} diverged; lower the learning rate, and search again")
    if as_json:
        from igkd_hpo.results.confirm.sentences import confirmation_json

        print_json(confirmation_json(found))
    else:
        _show(found)


def _what(text: str | None, settings: Settings, top: int) -> _Confirmed:
    from igkd_hpo.results.confirm.plan import best_candidates, candidate_of_file
    from igkd_hpo.search.storage import open_storage

    if text is not None and looks_like_path(text):
        config = read_study(Path(text))
        if not config.is_search:
            opened = open_storage(settings.storage_url, create=True)
            return _Confirmed(config=config, study=None, storage=opened, candidates=[candidate_of_file(config)])
    found = existing_study(text, settings)
    if found.confirms is not None:
        raise UsageError(f"{found.name} is a confirmation itself; give {found.confirms}, the study that it confirms")
    candidates = best_candidates(found, top)
    counts = found.counts()
    if counts.finished < found.n_trials:
        typer.echo(
            f"study {found.name} has {counts.finished} of {found.n_trials} trials: the best so far are confirmed",
            err=True,
        )
    if len(candidates) < top:
        typer.echo(f"{found.name} has {len(candidates)} different completed configurations, not {top}", err=True)
    return _Confirmed(config=found.config, study=found, storage=found.storage, candidates=candidates)


def _linked(what: _Confirmed, settings: Settings, *, seeds: int, device: str, stop: "StopSignal") -> "SearchStudy":
    """The study of the confirmation, with a trial for every arm and seed."""
    from igkd_hpo.results.confirm.plan import check_same_search, feasible_controls, planned_arms
    from igkd_hpo.search.linked_study import create_linked, extend, fresh_seeds, open_linked
    from igkd_hpo.search.note import save_study_note
    from igkd_hpo.search.storage import mask
    from igkd_hpo.service.preparation import prepare_in_child

    existing = open_linked(what.storage, what.config.name)
    if existing is not None and what.study is not None:
        check_same_search(what.study, existing)
    pins = what.study.pins if what.study else None
    linked = create_linked(
        what.storage, what.config, pins=pins or prepare_in_child(what.config, settings, device=device, stop=stop)
    )
    if existing is None:
        save_study_note(linked)
    controls = feasible_controls(what.study) if what.study else what.config.controls
    added = extend(linked, planned_arms(what.config, what.candidates, controls), fresh_seeds(what.config, seeds))
    counted = f"{added} of {linked.n_trials} trials are new" if added else f"{linked.n_trials} trials"
    typer.echo(f"study {linked.name}, {counted}, in {mask(settings.storage_url)}", err=True)
    return linked


def _run(linked: "SearchStudy", settings: Settings, *, workers: int, device: str, stop: "StopSignal") -> None:
    from igkd_hpo.results.confirm.evaluation import untested
    from igkd_hpo.service.preparation import prepare_existing

    counts = linked.counts()
    if counts.finished < linked.n_trials or untested(linked):
        prepare_existing(linked, settings, device=device, stop=stop)
    if counts.finished >= linked.n_trials:
        return
    kept_alive = supervise(linked, settings, workers=workers, device=device, stop=stop)
    if linked.stopped is not None:
        raise StudyStopped(f"study {linked.name} stopped: {linked.stopped}")
    if not kept_alive and stop.received is None:
        raise typer.Exit(ExitCode.FAILED)


def _check_complete(linked: "SearchStudy") -> None:
    """Raise IgkdError while trials are missing: the test split stays closed until all are there."""
    counts = linked.counts()
    missing = linked.n_trials - counts.finished
    if missing > 0:
        reasons = [t.user_attrs["reason"] for t in linked.trials() if t.user_attrs.get("reason")]
        why = f"; the last reason: {reasons[-1]}" if reasons else ""
        raise IgkdError(
            f"{missing} of {linked.n_trials} trials of {linked.name} did not end{why}; confirm again tries them again"
        )


def _show(found: "Confirmation") -> None:
    from rich.console import Console

    from igkd_hpo.results.confirm.sentences import confirmation_table, sentences

    Console().print(confirmation_table(found))
    typer.echo("\n" + "\n".join(sentences(found)))
