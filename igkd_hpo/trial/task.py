"""Tasks that are handed to the process that trains."""

from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.provenance import Execution
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Stratum
from igkd_hpo.config.study import Study
from igkd_hpo.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """One training of a student.

    Args:
        hyperparameters: all of them, by name.
        seed: of initial weights, order, views and overlays.
        execution: of an earlier run that is to be repeated; None takes this machine's own.
    """

    study: Study
    hyperparameters: dict[str, Value]
    seed: int
    execution: Execution | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptTask:
    """One attempt at a trial of a search, on a device of this host.

    Args:
        device: as the user named it: auto, cpu, cuda or cuda:N.
        slot: of the worker, which spreads workers over GPUs.
        threads: for torch.
        alone: train when no other trial of this host is on the device, and let none begin there.
        stratum: that the trial was drawn for, beyond whose end it is not trained; None of others.
        cost: of the student, where one of its architecture was measured here before; None has it measured.
        pins: content that the study's images and teacher must have; None while that is not known.
        checkpoint: file of this attempt; those of earlier attempts are beside it.
        log: file for the output of the attempt's process.
    """

    trial: TrialTask
    device: str
    slot: int
    threads: int
    alone: bool
    settings: Settings
    stratum: Stratum | None = None
    cost: StudentCost | None
    pins: AssetPins | None
    checkpoint: Path
    log: Path
