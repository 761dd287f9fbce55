"""Measurements of a bundle's ONNX files beside the network they come from."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from igkd_hpo.bundle.contents import Figures
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.models import Network

_CALIBRATION_IMAGES = 512  # more widen the ranges of activations no further
_LARGEST_DIFFERENCE = 1e-3  # of logits, for each unit of the largest one: what float32 in another order explains


def calibration_images(assets: "Assets") -> np.ndarray:
    """Draw training images (N, 3, H, W), uint8, over all classes."""
    images = assets.dataset.train_images.numpy()
    chosen = np.random.default_rng(0).permutation(len(images))[:_CALIBRATION_IMAGES]
    return np.ascontiguousarray(images[np.sort(chosen)])


def measure_files(network: "Network", paths: list[Path], assets: "Assets", settings: Settings) -> list[Figures]:
    """Measure the ONNX files of one network, the float one first.

    The test images are shown to both runtimes to compare their answers; their labels are not looked at.

    Raises:
        IgkdError: the float file answers otherwise than the network.
    """
    import torch

    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.evaluation import predict

    test_images, _ = open_test(assets.study.dataset, settings, purpose=TestPurpose.EXPORT_PARITY)
    wanted = predict(network, test_images, device=torch.device("cpu")).numpy()
    validation, labels = assets.dataset.validation_images.numpy(), assets.dataset.validation_labels.numpy()
    figures = []
    for path in paths:
        student = OnnxStudent(path)
        logits, latency = student.logits(test_images.numpy()), student.latency(validation[:1])
        figures.append(
            Figures(
                validation_accuracy=float((student.logits(validation).argmax(axis=1) == labels).mean()),
                test_agreement=float((logits.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
                test_images=len(test_images),
                largest_logit_difference=float(np.abs(logits - wanted).max()),
                latency_ms=round(latency.median, 4),
                latency_ms_p95=round(latency.p95, 4),
                bytes=path.stat().st_size,
            )
        )
    difference = figures[0].largest_logit_difference
    allowed = _LARGEST_DIFFERENCE * max(1.0, float(np.abs(wanted).max()))
    if difference > allowed:
        raise IgkdError(
            f"onnxruntime's logits differ from PyTorch's by {difference:.2g}, more than {allowed:.2g}; "
            "nothing was written; please report this with the versions of torch and onnxruntime"
        )
    return figures
