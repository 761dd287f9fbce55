"""Measure what int8 costs trained networks: quantise each as a bundle's, and ask it about the validation images."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from igkd_hpo.assets.progress import Progress
from igkd_hpo.bundle.deployed_form import deployed_form
from igkd_hpo.bundle.measuring import draw_training_images, onnx_logits
from igkd_hpo.bundle.onnx_files import gather_facts, write_onnx
from igkd_hpo.bundle.quantisation import write_int8
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.compression.int8 import Int8Change
from igkd_hpo.config.space import Value

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network


def measure_int8(
    networks: "Mapping[int, Network]", trials: Sequence[FrozenTrial], assets: "Assets", progress: Progress
) -> Iterator[tuple[int, Int8Change]]:
    """Quantise networks, which are by the numbers of their trials, and yield what each loses on the validation images.

    The test split stays closed: a loss in percentage points is as good on images that no network learned from.

    Raises:
        IgkdError: a network has no int8 form.
    """
    calibration, judged = draw_training_images(assets)
    facts = gather_facts(assets)
    with progress.task(f"{len(trials)} students in int8", len(trials)) as advance:
        for trial in trials:
            values: dict[str, Value] = trial.user_attrs["hyperparameters"]
            network = deployed_form(networks[trial.number], str(values["architecture"]), calibration)
            with tempfile.TemporaryDirectory() as folder:
                float_file, int8_file = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
                write_onnx(network, float_file, facts)
                write_int8(float_file, int8_file, calibration, judged)
                yield trial.number, _compare(network, OnnxStudent(int8_file), assets)
            advance(1)


def _compare(network: "Network", int8: OnnxStudent, assets: "Assets") -> Int8Change:
    import torch

    from igkd_hpo.distillation.evaluation import judge, predict

    images, labels = assets.dataset.validation_images, assets.dataset.validation_labels
    answers = predict(network, images, device=torch.device("cpu")), torch.from_numpy(onnx_logits(int8, images))
    of_float, of_int8 = (judge(logits, labels, assets.study.metric) for logits in answers)
    return Int8Change(float32=of_float, int8=of_int8)
