"""What a worker hands to the process of one attempt."""

from dataclasses import dataclass

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.cost import StudentCost
from igkd_hpo.config.space import Value
from igkd_hpo.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """All that an attempt needs to know.

    Args:
        study: the study as JSON.
        number: of the trial.
        attempt: of the trial; names the checkpoint and the log.
        hyperparameters: all of them.
        seed: of the trial.
        device: as the user named it: auto, cpu, cuda or cuda:N.
        slot: of the worker, which spreads workers over GPUs.
        threads: for torch.
        alone: train when no other trial of this host is on the device, and let none begin there.
        cost: of the student, where one like it was measured here before; else it is measured.
        pins: what the study's images and teacher must be; None while unknown.
    """

    study: str
    number: int
    attempt: int
    hyperparameters: dict[str, Value]
    seed: int
    device: str
    slot: int
    threads: int
    alone: bool
    settings: Settings
    cost: StudentCost | None
    pins: AssetPins | None
