"""Measurements of a bundle's ONNX files beside the network they come from."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.bundle.contents import Figures
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import Settings

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import Assets
    from igkd_hpo.distillation.images import Images
    from igkd_hpo.distillation.models import Network

_IMAGES = 512  # to calibrate: more widen the ranges of activations no further; and as many to judge
_LARGEST_DIFFERENCE = 1e-3  # of logits, for each unit of the largest one: what float32 in another order explains


def draw_training_images(assets: "Assets") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw two sets of training images (N, 3, H, W) in random order, to calibrate with and to judge that by.

    They have no image in common, and at least one each; never more than half of all.
    """
    import torch

    images = assets.dataset.train_images
    order = np.random.default_rng(0).permutation(len(images))
    count = max(1, min(_IMAGES, len(images) // 2))
    first, second = (torch.from_numpy(rows) for rows in (order[:count], order[count : count + _IMAGES]))
    return images[first].numpy(), images[second].numpy()


def logit_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest difference of two (N, K), and the largest that rounding explains."""
    allowed = _LARGEST_DIFFERENCE * max(1.0, float(np.abs(wanted).max()))
    return float(np.abs(found - wanted).max()), allowed


def onnx_logits(student: OnnxStudent, images: "Images") -> NDArray[np.float32]:
    """Return the logits (N, K) of images that need not fit into memory."""
    size = student.images_at_once
    return np.concatenate(
        [student.logits(images[start : start + size].numpy()) for start in range(0, len(images), size)]
    )


def measure_files(network: "Network", paths: list[Path], assets: "Assets", settings: Settings) -> list[Figures]:
    """Measure the ONNX files of one network, as it is shipped, the float one first.

    The test images are shown to both runtimes to compare their answers; their labels are not looked at.

    Raises:
        IgkdError: the float file answers otherwise than the network.
    """
    import torch

    from igkd_hpo.assets.test_split import TestPurpose, open_test
    from igkd_hpo.distillation.evaluation import judge, predict

    test_images, _ = open_test(assets.study.dataset, settings, purpose=TestPurpose.EXPORT_PARITY)
    wanted = predict(network, test_images, device=torch.device("cpu")).numpy()
    validation, labels = assets.dataset.validation_images, assets.dataset.validation_labels.numpy()
    right = predict(network, validation, device=torch.device("cpu")).numpy().argmax(1) == labels
    metric = assets.study.metric
    figures: list[Figures] = []
    for path in paths:
        student = OnnxStudent(path)
        logits, latency = onnx_logits(student, test_images), student.latency(validation[:1].numpy())
        answers = onnx_logits(student, validation)
        also_right = answers.argmax(axis=1) == labels
        difference, allowed = logit_difference(logits, wanted)
        if not figures and not difference <= allowed:
            raise IgkdError(
                f"onnxruntime's logits differ from PyTorch's by {difference:.2g}, more than {allowed:.2g}; "
                "nothing was written; please report this with the versions of torch and onnxruntime"
            )
        figures.append(
            Figures(
                validation_accuracy=judge(torch.from_numpy(answers), assets.dataset.validation_labels, metric),
                validation_images=len(labels),
                lost=int((right & ~also_right).sum()),
                gained=int((also_right & ~right).sum()),
                test_agreement=float((logits.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
                test_images=len(test_images),
                largest_logit_difference=difference,
                latency_ms=round(latency.median, 4),
                latency_ms_p95=round(latency.p95, 4),
                bytes=path.stat().st_size,
            )
        )
    return figures
