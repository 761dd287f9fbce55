"""Evaluation on the test split, opened once for all networks of a linked study; the database keeps the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from igkd_hpo.assets.progress import Progress
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.distillation.tally import Tally, resolution
from igkd_hpo.errors import AssetMissing
from igkd_hpo.search.confirmation_study import arm_trials
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network

_NAMED = 5  # trials that a message names before it counts


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """Results on the test split so far.

    Args:
        accuracies: the study's metric by trial number, fractions.
        images: of the test split; 0 before it was opened.
        class_names: in the order of every tally; empty in a record from before there were tallies.
        tallies: by trial number, of each answer class by class.
        opened: times (ISO 8601, UTC), one for each opening.
    """

    accuracies: Mapping[int, float]
    images: int
    opened: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    tallies: Mapping[int, Tally] = field(default_factory=dict)

    def resolution(self, metric: Metric) -> float:
        """Return the step by which a metric's value can change on the split, of 1 image or more: `tally.resolution`."""
        tally = next(iter(self.tallies.values()), None)
        return 1 / self.images if metric == "accuracy" or tally is None else resolution(tally.images, metric)


def read_record(linked: SearchStudy) -> SplitRecord:
    """Read the results on the test split from the database."""
    kept: dict[str, Any] = linked.read().attributes.get("test_split", {"accuracies": {}, "images": 0, "opened": []})
    classes = kept.get("classes", {"names": [], "images": [], "trials": {}})
    return SplitRecord(
        accuracies={int(number): accuracy for number, accuracy in kept["accuracies"].items()},
        images=kept["images"],
        opened=tuple(kept["opened"]),
        class_names=tuple(classes["names"]),
        tallies={int(number): Tally(images=classes["images"], **of) for number, of in classes["trials"].items()},
    )


def untested(linked: SearchStudy) -> list[FrozenTrial]:
    """Return the COMPLETE trials whose network has not seen the test split."""
    tested = read_record(linked).accuracies
    return [t for t in arm_trials(linked.trials()) if t.state is TrialState.COMPLETE and t.number not in tested]


def evaluate(linked: SearchStudy, settings: Settings, *, device: str, progress: Progress) -> None:
    """Open the test split for the networks that have not seen it, if there are any, and keep their results.

    Raises:
        AssetMissing: weights are not on this host; the test split stays closed.
        IgkdError: what opening the assets raises.
    """
    trials = untested(linked)
    if not trials:
        return

    import torch

    from igkd_hpo.assets.study_assets import open_assets
    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.distillation.evaluation import judge, predict, tally

    study = linked.config
    assets = open_assets(study, settings)
    networks = kept_networks(linked, trials, assets, settings, consequence="the test split was not opened")
    chosen = choose_device(device)
    images, labels = open_test(study.dataset, settings, purpose=TestPurpose(linked.purpose))
    accuracies: dict[int, float] = {}
    tallies: dict[int, Tally] = {}
    names = assets.dataset.class_names
    with progress.task(f"testing {len(trials)} students of {study.name}", len(trials)) as advance:
        for number, network in networks.items():
            logits = predict(network, images, device=chosen)
            accuracies[number] = judge(logits, labels, study.metric)
            tallies[number] = tally(logits.argmax(dim=1), labels, num_classes=len(names))
            advance(1)
    with linked.transaction():
        earlier = read_record(linked)
        joined = {**accuracies, **earlier.accuracies}  # what was read first stays
        kept_record = {
            "accuracies": {str(number): joined[number] for number in sorted(joined)},
            "images": len(images),
            "opened": [*earlier.opened, datetime.now(UTC).isoformat(timespec="seconds")],
            "classes": {
                "names": list(names),
                "images": torch.bincount(labels, minlength=len(names)).tolist(),
                "trials": {
                    str(number): {key: value for key, value in vars(one).items() if key != "images"}
                    for number, one in sorted({**tallies, **earlier.tallies}.items())
                },
            },
        }
        linked.storage.set_study_user_attr(linked.study_id, "test_split", kept_record)


def kept_networks(
    linked: SearchStudy, trials: Sequence[FrozenTrial], assets: "Assets", settings: Settings, *, consequence: str
) -> "dict[int, Network]":
    """Return the networks of COMPLETE trials by number, in evaluation mode on the CPU.

    Raises AssetMissing, which tells the consequence, where the weights of some are not on this host.
    """
    networks: dict[int, Network] = {}
    missing: list[FrozenTrial] = []
    for trial in trials:
        hyperparameters, seed = trial.user_attrs["hyperparameters"], trial.user_attrs["seed"]
        kept = kept_network(
            linked.config,
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
            f"in {folder}; copy that folder from there, or run {linked.purpose} there; {consequence}"
        )
    return networks
