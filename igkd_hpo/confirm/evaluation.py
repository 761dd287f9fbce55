"""Evaluation on the test split, opened once for all networks of a confirmation; the database keeps the accuracies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.assets.progress import Progress
from igkd_hpo.errors import AssetMissing
from igkd_hpo.search.confirmation_study import arm_trials
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network

if TYPE_CHECKING:
    from igkd_hpo.distillation.models import Network

_NAMED = 5  # trials that a message names before it counts


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """Results on the test split so far.

    Args:
        accuracies: by trial number, fractions.
        images: of the test split; 0 before it was opened.
        opened: times (ISO 8601, UTC), one for each opening.
    """

    accuracies: Mapping[int, float]
    images: int
    opened: tuple[str, ...]


def read_record(linked: SearchStudy) -> SplitRecord:
    """Read the results on the test split from the database."""
    kept: dict[str, Any] = linked.read().attributes.get("test_split", {"accuracies": {}, "images": 0, "opened": []})
    return SplitRecord(
        accuracies={int(number): accuracy for number, accuracy in kept["accuracies"].items()},
        images=kept["images"],
        opened=tuple(kept["opened"]),
    )


def untested(linked: SearchStudy) -> list[FrozenTrial]:
    """Return the COMPLETE trials whose network has not seen the test split."""
    tested = read_record(linked).accuracies
    return [t for t in arm_trials(linked.trials()) if t.state is TrialState.COMPLETE and t.number not in tested]


def evaluate(linked: SearchStudy, settings: Settings, *, device: str, progress: Progress) -> None:
    """Open the test split for the networks that have not seen it, if there are any, and keep their accuracies.

    Raises:
        AssetMissing: weights are not on this host; the test split stays closed.
        IgkdError: what opening the assets raises.
    """
    trials = untested(linked)
    if not trials:
        return

    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.evaluation import accuracy, predict

    study = linked.config
    assets = open_assets(study, settings)
    networks: dict[int, Network] = {}
    missing: list[FrozenTrial] = []
    for trial in trials:
        hyperparameters, seed = trial.user_attrs["hyperparameters"], trial.user_attrs["seed"]
        kept = kept_network(
            study,
            assets,
            settings,
            folder=linked.folder,
            number=trial.number,
            hyperparameters=hyperparameters,
            seed=seed,
        )
        if kept is None or kept[1] != trial.value:
            missing.append(trial)
        else:
            networks[trial.number] = kept[0]
    if missing:
        hosts = sorted({str(trial.user_attrs.get("host", "unknown")) for trial in missing})
        numbers = ", ".join(str(trial.number) for trial in missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        folder = settings.paths.checkpoints / linked.folder
        raise AssetMissing(
            f"the weights of {len(missing)} trials of {linked.name} ({numbers}; trained on {', '.join(hosts)}) are not "
            f"in {folder}; copy that folder from there, or run confirm there; the test split was not opened"
        )
    chosen = choose_device(device)
    images, labels = open_test(study.dataset, settings, purpose=TestPurpose.CONFIRM)
    accuracies: dict[int, float] = {}
    with progress.task(f"testing {len(trials)} students of {study.name}", len(trials)) as advance:
        for number, network in networks.items():
            accuracies[number] = accuracy(predict(network, images, device=chosen), labels)
            advance(1)
    with linked.transaction():
        earlier = read_record(linked)
        joined = {**accuracies, **earlier.accuracies}  # what was read first stays
        kept_record = {
            "accuracies": {str(number): joined[number] for number in sorted(joined)},
            "images": len(images),
            "opened": [*earlier.opened, datetime.now(UTC).isoformat(timespec="seconds")],
        }
        linked.storage.set_study_user_attr(linked.study_id, "test_split", kept_record)
