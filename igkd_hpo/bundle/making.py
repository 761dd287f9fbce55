"""Making of a bundle: the network, its ONNX files, their measurements and the card; all of it or nothing."""

import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import igkd_hpo
from igkd_hpo.assets.pins import check_pins
from igkd_hpo.assets.progress import Progress
from igkd_hpo.bundle import contents
from igkd_hpo.bundle.card import model_card
from igkd_hpo.bundle.contents import Record
from igkd_hpo.bundle.deployed_form import deployed_form
from igkd_hpo.bundle.expectation import expected_of
from igkd_hpo.bundle.measuring import draw_training_images, measure_files
from igkd_hpo.bundle.onnx_files import OPSET, check_opset, gather_facts, write_onnx
from igkd_hpo.bundle.quantisation import WAYS, write_int8
from igkd_hpo.bundle.runtime import NEEDED_TO_MAKE, require
from igkd_hpo.bundle.usage import weights_metadata
from igkd_hpo.config.commit import code_commit
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.confirmation.choice import describe_trial
from igkd_hpo.confirmation.confirmation import confirmation_of
from igkd_hpo.confirmation.explanation_sentences import reasons_of_chosen
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.errors import UsageError
from igkd_hpo.files import sha256_of, write_bytes, write_text
from igkd_hpo.search.best import BestTrial
from igkd_hpo.search.export import exported_study
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from igkd_hpo.trial.kept_network import kept_network

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network
    from igkd_hpo.distillation.tally import Tally

_PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "numpy", "optuna")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Bundle that was made.

    Args:
        validation_accuracy: of the network in PyTorch, a fraction, in the metric that `record.expected` names.
        weights: where they come from, in words.
        about: which trial it is, in words, and whether it was confirmed.
    """

    folder: Path
    record: Record
    validation_accuracy: float
    weights: str
    about: str


def make_bundle(
    study: SearchStudy,
    best: BestTrial,
    folder: Path,
    settings: Settings,
    progress: Progress,
    *,
    opset: int | None = None,
) -> Bundle:
    """Write the bundle of a trial into a folder that is empty or not there yet.

    Args:
        opset: version of ONNX's operators; None takes OPSET.

    Raises:
        UsageError: the folder holds something or cannot be written, a package is missing, or there is no such opset.
        IgkdError: what making the assets, training or comparing raises.
    """
    require(NEEDED_TO_MAKE)
    check_opset(opset := OPSET if opset is None else opset)
    with _all_or_nothing(folder) as draft:
        from safetensors.torch import save

        from igkd_hpo.assets.store import AssetStore
        from igkd_hpo.assets.study_assets import open_assets, prepare_assets
        from igkd_hpo.assets.teacher import teacher_asset

        refuse_untrainable(study.config, settings, device="cpu", progress=progress)
        made = prepare_assets(study.config, settings, device="cpu", progress=progress, pinned=study.read().pins)
        if (pins := study.read().pins) is not None:
            check_pins(study.name, pins, made.pins)
        assets, exported = open_assets(study.config, settings), exported_study(study, best)
        trained, accuracy, weights = trained_network(study, best, exported, assets, settings, progress)
        calibration, judged = draw_training_images(assets)
        architecture = str(best.hyperparameters["architecture"])
        network = deployed_form(trained, architecture, calibration)
        began_with = assets.weights[architecture] if best.hyperparameters["init"] == "pretrained" else None
        write_text(draft / contents.STUDY, to_yaml(exported))
        state = {name: tensor.contiguous() for name, tensor in network.body.state_dict().items()}
        # Written by us: what safetensors writes itself is a file for the owner alone.
        dataset, float_file, int8_file = assets.dataset, draft / contents.ONNX, draft / contents.INT8
        facts = gather_facts(assets)
        metadata = weights_metadata(network, facts, hyperparameters=best.hyperparameters, began_with=began_with)
        write_bytes(draft / contents.WEIGHTS, save(state, metadata=metadata))
        with progress.task("ONNX files", 1 + len(WAYS)) as advance:
            write_onnx(network, float_file, facts, opset=opset)
            advance(1)
            quantisations = write_int8(float_file, int8_file, calibration, judged, on_way=lambda: advance(1))
            onnx, int8 = measure_files(network, [float_file, int8_file], assets, settings)
        record = Record(
            study=study.name,
            trial=best.number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files={},
            expected=expected_of(best, accuracy, images=made.n_validation, tally=_tally(trained, assets)),
            opset=opset,
            onnx=onnx,
            int8=int8,
            quantisations=quantisations,
            versions={
                "igkd-hpo": igkd_hpo.__version__,
                "commit": code_commit(),
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
        )
        card = model_card(
            record,
            exported,
            best,
            made,
            class_names=dataset.class_names,
            weights=weights,
            began_with=began_with,
            teacher_facts=teacher_asset(study.config, dataset, AssetStore(settings.paths.assets)).facts,
            validation_accuracy=accuracy,
            reasons=reasons_of_chosen(None if best.confirmed is None else confirmation_of(study)),
        )
        write_text(draft / contents.CARD, card)
        record = record.model_copy(update={"files": {path.name: sha256_of(path) for path in sorted(draft.iterdir())}})
        write_text(draft / contents.RECORD, record.model_dump_json(indent=2))
    about = describe_trial(study, best)
    return Bundle(folder=folder, record=record, validation_accuracy=accuracy, weights=weights, about=about)


def _tally(network: "Network", assets: "Assets") -> "Tally | None":
    """Count a network's answers on validation by class, where the metric is one of classes."""
    if assets.study.metric == "accuracy":
        return None

    import torch

    from igkd_hpo.distillation.evaluation import predict, tally

    dataset = assets.dataset
    answers = predict(network, dataset.validation_images, device=torch.device("cpu")).argmax(dim=1)
    return tally(answers, dataset.validation_labels, num_classes=dataset.num_classes)


def trained_network(
    study: SearchStudy, best: BestTrial, exported: Study, assets: "Assets", settings: Settings, progress: Progress
) -> "tuple[Network, float, str]":
    """Return the network in evaluation mode on the CPU, its validation accuracy (a fraction), and its origin."""
    values = dict(best.hyperparameters)
    kept = kept_network(
        study.config,
        assets,
        settings,
        folder=study.folder,
        number=best.number,
        hyperparameters=values,
        seed=best.seed,
    )
    if kept is not None:
        return *kept, f"the checkpoint of trial {best.number}"

    import torch

    from igkd_hpo.distillation.reparameterization import AS_THEY_ARE
    from igkd_hpo.trial.build import make_student
    from igkd_hpo.trial.train import train_student

    progress.note(f"the checkpoint of trial {best.number} is not in {settings.paths.checkpoints}: it is trained again")
    with tempfile.TemporaryDirectory() as folder:
        again = train_student(
            exported, settings, seed=None, device="auto", evaluate=None, output=Path(folder), progress=progress
        )
        network = make_student(study.config, {**values, **AS_THEY_ARE}, assets, seed=best.seed).network
        network.body.load_state_dict(torch.load(Path(folder, "student.pt"), map_location="cpu", weights_only=True))
    origin = f"the training of trial {best.number}, done again with the same seed"
    return network.eval(), again.validation_accuracy, origin


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside the one that is wanted, which takes its place at the end, and else leaves no trace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there and not empty; give --bundle a new folder, or delete that one")
    draft = folder.with_name(f".{folder.name}.{secrets.randbits(63)}")  # no process id, as in `files.replacing`
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        for path in draft.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        draft.replace(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; give --bundle another place") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
