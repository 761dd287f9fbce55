"""A study in the database, as notebooks and scripts hold it."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from igkd_hpo.api.confirm import confirm
from igkd_hpo.api.source import StudyLike, existing_study, settings_here
from igkd_hpo.api.supervise import EngineLike, WorkerCount
from igkd_hpo.bundle.making import Bundle, make_bundle
from igkd_hpo.compression.ladder import Ladder, ladder_of
from igkd_hpo.config import study as config
from igkd_hpo.config.cost_limit import check_cost, check_under
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.confirmation.choice import best_or_confirmed, confirmed_under, describe_trial, summary_under
from igkd_hpo.confirmation.confirmation import Confirmation, confirmation_of
from igkd_hpo.confirmation.sentences import classes_in_words, short_answer
from igkd_hpo.distillation.metrics import measured
from igkd_hpo.errors import IgkdError, StudyFileError, UsageError
from igkd_hpo.files import check_output, user_path, write_output
from igkd_hpo.report.page import write_report
from igkd_hpo.search.best import BestTrial, best_trial, summary
from igkd_hpo.search.confirmation_study import parent_of
from igkd_hpo.search.counts import Counts
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.frontier import Frontier, frontier
from igkd_hpo.search.lease import Leases
from igkd_hpo.search.records import TrialRecord, study_trials
from igkd_hpo.search.status import StudyStatus, study_status
from igkd_hpo.search.status import status as every_status
from igkd_hpo.search.storage import open_storage_here
from igkd_hpo.search.storage_url import mask
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings, host_name
from igkd_hpo.terminal.progress import make_progress

_PATIENCE_SECONDS = 15.0  # workers hear of a stop within 4 s, and end a trial process within one
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Export:
    """A study file without ranges that was written.

    Args:
        study_file: its content.
        about: which trial it is, in words, and whether it was confirmed.
        replaced: a file was there before.
        remarks: what limits do not say, in lines for people.
    """

    path: Path
    study_file: config.Study
    about: str
    replaced: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """A report that was written.

    Args:
        study: of a confirmation, the study that it confirms.
        completed: whether any trial had completed; without one the page says so.
        replaced: a file was there before.
    """

    study: str
    path: Path
    completed: bool
    replaced: bool


class Study:
    """A study in the database. Every property is read anew each time, and is true at that moment.

    `launch` and `open_study` return one. Every member raises StorageError when the database is away.
    """

    def __init__(self, study: SearchStudy, settings: Settings) -> None:
        self._study = study
        self._settings = settings

    def __repr__(self) -> str:
        return f"<igkd_hpo.Study {self.name!r} in {mask(self._settings.storage_url)}>"

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self._study.name

    @property
    def study_file(self) -> config.Study:
        """The study file as it was launched."""
        return self._study.config

    @property
    def n_trials(self) -> int:
        """The total of COMPLETE plus PRUNED trials that ends the study."""
        return self._study.read().n_trials

    @property
    def counts(self) -> Counts:
        """Trials by state."""
        return self._study.counts()

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return study_trials(self._study)

    @property
    def status(self) -> StudyStatus:
        """Its state, the trials that run, and its progress."""
        return study_status(self._study)

    @property
    def best(self) -> BestTrial:
        """The COMPLETE trial that is best in the study's metric, beside the controls. Raises NoCompletedTrial.

        The best of many is partly luck: `confirm` says what is left without it.
        """
        return best_trial(parent_of(self._study))

    @property
    def confirmation(self) -> Confirmation | None:
        """The results of fresh seeds and the test split; None before `confirm`."""
        return confirmation_of(parent_of(self._study))

    @property
    def ladder(self) -> Ladder | None:
        """The results of students of many sizes, see `igkd_hpo.ladder`; None before the test split was read."""
        return ladder_of(parent_of(self._study))

    def best_under(self, under: Mapping[str, float | str]) -> BestTrial:
        """Return the COMPLETE trial that is best within limits to its costs.

        Args:
            under: numbers or texts by the names of costs, such as {"parameters": "200k", "latency_ms": 5}.

        Raises:
            UsageError: there is no such cost or unit; those that there are stand in the message.
            NoCompletedTrial: nothing is within the limits; the nearest is told.
        """
        return best_trial(parent_of(self._study), under=check_under(under))

    def confirmation_under(self, under: Mapping[str, float | str]) -> Confirmation | None:
        """Read the results of the configurations within limits, as a comparison of these alone.

        Arguments and errors are those of `best_under`; None where its result was not confirmed.
        """
        study, limits = parent_of(self._study), check_under(under)
        return confirmed_under(study, best_trial(study, under=limits)) if limits else confirmation_of(study)

    def frontier(self, cost: str = "parameters") -> Frontier:
        """Return the COMPLETE trials that no other beats at the same or lower cost, the cheapest first.

        Args:
            cost: parameters, nonzero_parameters, macs, size_kb, peak_ram_kb, latency_ms or latency_ms_p95.

        Raises:
            UsageError: there is no such cost.
        """
        return frontier(parent_of(self._study), check_cost(cost))

    def summary(self, *, under: Mapping[str, float | str] = {}) -> str:
        """Sum up the best trial beside the controls, or the confirmation if there is one.

        Arguments and errors are those of `best_under`.
        """
        study = parent_of(self._study)
        if limits := check_under(under):
            return summary_under(study, limits)
        confirmation = confirmation_of(study)
        if confirmation is None:
            return summary(study)
        best, record, counts = best_trial(study), study.read(), study.counts()
        searched = f"{counts.finished} of {record.n_trials} trials finished"
        found = (
            f"its best was {best.title}, {measured(best.validation_accuracy, best.metric)} on validation with one seed"
        )
        if best.teacher_accuracy is not None:
            found += f"; the teacher has {measured(best.teacher_accuracy, best.metric)} there"
        answer, *others = short_answer(confirmation)
        lines = [answer, *others[:-1], f"  the search: {searched}; {found}", others[-1]]
        return "\n".join([*lines, *classes_in_words(confirmation)])

    def confirm(
        self,
        *,
        top: int = 5,
        seeds: int = 5,
        workers: WorkerCount = 1,
        device: str = "auto",
        allow_import: str | Iterable[str] = (),
        engine: EngineLike = "local",
        progress: bool = True,
        explanations: bool = False,
        frontier: bool = False,
    ) -> Confirmation:
        """Train the best few with fresh seeds, and with parts taken out; test each network once; say what is real.

        Arguments and errors are those of `igkd_hpo.confirm`; the storage is the study's own.
        """
        return confirm(
            self.name,
            top=top,
            seeds=seeds,
            workers=workers,
            storage=self._settings.storage_url,
            device=device,
            allow_import=allow_import,
            engine=engine,
            progress=progress,
            explanations=explanations,
            frontier=frontier,
        )

    def export(self, output: str | PathLike[str] = "best.yaml", *, under: Mapping[str, float | str] = {}) -> Export:
        """Write the best configuration, the confirmed one if there is one, to a file that `train` takes as it is.

        Args:
            under: limits as for `best_under`. A confirmed configuration is taken where the best within them is one.

        Raises:
            NoCompletedTrial: there is nothing to export, or nothing within the limits.
            UsageError: the file cannot be written, takes the place of one that is no earlier export, or there is no
                such cost or unit.
        """
        path = user_path(output)
        _check_replaced(path)
        study, best = best_or_confirmed(self._study, under=check_under(under))
        exported = exported_study(study, best)
        replaced = write_output(path, to_yaml(exported).encode())
        about = describe_trial(study, best)
        return Export(path=path, study_file=exported, about=about, replaced=replaced, remarks=best.remarks)

    def export_bundle(
        self,
        folder: str | PathLike[str],
        *,
        under: Mapping[str, float | str] = {},
        opset: int | None = None,
        allow_import: str | Iterable[str] = (),
        progress: bool = True,
    ) -> Bundle:
        """Write the best configuration to a new folder, with weights, ONNX in float32 and int8, and a model card.

        Args:
            under: limits as for `export`.
            opset: version of ONNX's operators, 18 to 23; None takes 20.

        Raises:
            NoCompletedTrial: there is nothing to export, or nothing within the limits.
            UsageError: the folder cannot be made, packages are missing, or there is no such opset, cost or unit.
            IgkdError: the networks cannot be made.
        """
        study, best = best_or_confirmed(self._study, under=check_under(under))
        settings = replace(self._settings, allow_import=settings_here(allow_import=allow_import).allow_import)
        with make_progress(progress) as shown:
            return make_bundle(study, best, user_path(folder), settings, shown, opset=opset)

    def report(self, output: str | PathLike[str] = "report.html", *, progress: bool = True) -> ReportFile:
        """Write one HTML page with the answer, its pictures and their sources. Raises UsageError."""
        path = user_path(output)
        check_output(path, example="report.html")
        study = parent_of(self._study)
        with make_progress(progress) as shown:
            page = write_report(study, self._settings, shown)
        replaced = write_output(path, page.html.encode())
        return ReportFile(study=study.name, path=path, completed=page.completed, replaced=replaced)

    def stop(self, *, now: bool = False) -> int:
        """Let no new trial begin, on any host, until the study is launched again. A finished study stays as it is.

        Args:
            now: also end the trials that run, and wait until they have ended; they can be resumed.

        Returns:
            The number of trials that were running.

        Raises:
            IgkdError: with `now`, workers have not answered, and still hold trials.
        """
        if self.counts.finished >= self.n_trials:
            return 0
        self._study.stop(f"igkd-hpo stop on {host_name()}; igkd-hpo launch goes on", now=now)
        leases = Leases(self._study, lease_seconds=self._settings.lease_seconds)
        held = leases.held()
        running, deadline = len(held), time.monotonic() + _PATIENCE_SECONDS
        while now and held and time.monotonic() <= deadline:
            leases.reap()
            time.sleep(_LOOK_SECONDS)
            held = leases.held()
        if now and held:
            left = ", ".join(f"{lease.worker} on {lease.process.host}" for lease in held)
            raise IgkdError(
                f"study {self.name}: stopped, but these workers have not answered and still hold trials: {left}; the "
                f"next launch frees them {self._settings.lease_seconds:g} s after their last sign of life"
            )
        return running


def _check_replaced(path: Path) -> None:
    """Raise UsageError where an export would take the place of what somebody wrote: of all but an earlier export."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return
        study = read_study(path)
    except OSError:  # writing says why
        return
    except StudyFileError:
        study = None
    if study is None or study.provenance is None or study.is_search:
        raise UsageError(f"{path} is there already, and no earlier export; remove it, or give another place with -o")


def open_study(study: StudyLike | None = None, *, storage: str | None = None) -> Study:
    """Open an existing study.

    Args:
        study: its name or its study file; None means the latest.
        storage: as for `launch`.

    Raises:
        UsageError: there is no such study; near names are in the message.
    """
    settings = settings_here(storage)
    return Study(existing_study(study, settings), settings)


def status(*, storage: str | None = None) -> list[StudyStatus]:
    """Return the status of every study, the last launched last, each followed by its confirmation.

    Args:
        storage: as for `launch`.

    Raises:
        UsageError: there is no database yet.
        StorageError: the database is out of reach.
    """
    return every_status(open_storage_here(settings_here(storage), create=False))
