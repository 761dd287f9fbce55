"""Check of a teacher's accuracy: on the validation images it must be better than guessing, significantly."""

import numpy as np
import scipy
import torch
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.distillation.evaluation import accuracy, predict
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import TeacherError
from igkd_hpo.words import percent

_P_VALUE = 0.001  # one-sided; of a thousand teachers that guess the most common class, one would pass
_PROBED = 1000  # validation images that the search for a cause looks at
_NORMALIZATIONS = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]] (ImageNet's)": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def check_teacher(network: Network, dataset: Dataset, *, device: torch.device) -> float:
    """Return the teacher's accuracy on the validation images, a fraction.

    Raises:
        TeacherError: it is not better than always guessing the most common class (binomial test, p >= 0.001); the
            message names both numbers and the likely cause.
    """
    labels = dataset.validation_labels
    logits = predict(network, dataset.validation_images, device=device)
    measured = accuracy(logits, labels)
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    share = counts.max().item() / len(labels)
    if _is_better(round(measured * len(labels)), len(labels), share):
        return measured
    if not enough_to_tell(dataset):
        raise TeacherError(
            f"{len(labels)} validation images are too few to tell whether the teacher learned anything; "
            + dataset.more_validation
        )
    raise TeacherError(
        f"the teacher gets {percent(measured)} of {len(labels)} validation images right, and always guessing "
        f"{dataset.class_names[int(counts.argmax())]!r} gets {percent(share)}: it has nothing to teach; "
        + _likely_cause(network, dataset, logits, measured, device)
    )


def enough_to_tell(dataset: Dataset) -> bool:
    """Return whether a teacher that is right on every validation image could be told from one that always guesses."""
    labels = dataset.validation_labels
    share = torch.bincount(labels).max().item() / len(labels)
    return _is_better(len(labels), len(labels), share)


def _is_better(right: int, total: int, share: float) -> bool:
    return bool(scipy.stats.binomtest(right, total, share, alternative="greater").pvalue < _P_VALUE)


def _is_much_better(other: float, measured: float) -> bool:
    """Return whether half of the errors are gone; where several ways are tried, small gains come by chance."""
    return 1 - other < (1 - measured) / 2


def _likely_cause(network: Network, dataset: Dataset, logits: Tensor, measured: float, device: torch.device) -> str:
    order = best_order(logits, dataset.validation_labels, dataset.num_classes)
    permuted = (order[logits.argmax(dim=1)] == dataset.validation_labels).double().mean().item()
    if _is_much_better(permuted, measured):
        return (
            f"with its classes in another order it would get {percent(permuted)}: it was trained with other class "
            f"numbers; here they are {', '.join(dataset.class_names[:10])}{' …' if dataset.num_classes > 10 else ''}"
        )
    images, labels = dataset.validation_images[:_PROBED], dataset.validation_labels[:_PROBED]
    for name, candidate in other_normalizations(network, dataset).items():
        other = accuracy(predict(candidate, images, device=device), labels)
        if _is_much_better(other, measured):
            return f"with teacher.normalize {name} it would get {percent(other)}"
    return "check teacher.normalize, teacher.input_size, the order of the classes, or train it for more epochs"


def best_order(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Assign every class of the network the class that it predicts best, int64 (num_classes,); a permutation."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels.numpy(), logits.argmax(dim=1).numpy()), 1)
    rows, columns = scipy.optimize.linear_sum_assignment(confusion, maximize=True)
    order = torch.empty(num_classes, dtype=torch.int64)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order


def other_normalizations(network: Network, dataset: Dataset) -> dict[str, Network]:
    """Put a network's body behind the other usual normalisations, by their words in `teacher.normalize`."""
    candidates = {"dataset": (dataset.mean, dataset.std), **_NORMALIZATIONS}
    networks = {name: Network(network.body, mean, std).eval() for name, (mean, std) in candidates.items()}
    mean, std = network.mean.cpu(), network.std.cpu()
    return {
        name: other
        for name, other in networks.items()
        if not (torch.equal(other.mean, mean) and torch.equal(other.std, std))
    }
