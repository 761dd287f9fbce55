"""Checks of a teacher, the same for `prepare`, `launch` and `doctor`: whether it can teach, and what is meant."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.guessing import beats_guessing, beats_share
from igkd_hpo.assets.teacher_network import has_transform
from igkd_hpo.config.networks import TeacherConfig
from igkd_hpo.distillation.evaluation import judge, predict, score
from igkd_hpo.distillation.metrics import METRICS, P_VALUE, Metric
from igkd_hpo.distillation.models import Network, to_pixels
from igkd_hpo.distillation.tally import of_guessing
from igkd_hpo.errors import TeacherError, first_line
from igkd_hpo.words import percent

TOLERANCE = 0.01
"""Of the largest logit: kernels for another batch size differ in their last bits only."""
NO_PROBABILITY = 1e-3
"""How far from 1 the sum of a softmax may be, in half precision too."""
_SMALLEST_GAIN = 0.02  # of accuracy; published statistics of a data set differ from the split's own by less
_PROBED = 1000  # validation images for each other normalisation
_TRIED = 256  # validation images for each way of the input
_BATCH = 32
_ON_THE_LINE = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # where gradients are looked for; at the image itself they may vanish
_NORMALIZATIONS = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]] (ImageNet's)": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]] (Inception's)": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

CheckName = Literal["evaluation mode", "accuracy", "logits", "class order", "normalisation", "attribution"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)


@dataclass(frozen=True, kw_only=True)
class TeacherCheck:
    """The outcome of one check.

    Args:
        found: the outcome, with its numbers; empty where it failed.
        error: what is wrong, and the advice after its last semicolon; None where nothing is.
        fatal: the teacher is refused for it, by `prepare` too; otherwise it is a warning there.
        accuracy: the study's metric on the validation images, where that was checked and is better than guessing.
    """

    name: CheckName
    found: str = ""
    error: TeacherError | None = None
    fatal: bool = True
    accuracy: float | None = None


def examine_teacher(
    network: Network,
    dataset: Dataset,
    *,
    device: torch.device,
    given: bool,
    explained: bool,
    metric: Metric,
    weighable: bool = False,
    others: Sequence[str] = (),
) -> Iterator[TeacherCheck]:
    """Make every check, in the order in which faults lead to others; the network has passed `check_output`.

    Args:
        given: whether it comes from elsewhere; one that is trained here has our classes and normalisation.
        explained: whether attribution maps are made of it.
        metric: of the study.
        weighable: whether it is trained here, without class weights, which is advice for one that guesses.
        others: other weights in its checkpoint, to name where these are no good.
    """

    def attempt(name: CheckName, check: Callable[[], str], *, fatal: bool = True) -> TeacherCheck:
        try:
            return TeacherCheck(name=name, found=check(), fatal=fatal)
        except TeacherError as error:
            return TeacherCheck(name=name, error=error, fatal=fatal)

    yield attempt("evaluation mode", lambda: _check_evaluation_mode(network, dataset, device))
    logits = predict(network, dataset.validation_images, device=device)
    try:
        measured = check_accuracy(
            network, dataset, logits, device=device, metric=metric, others=others, weighable=weighable
        )
        named = "of" if metric == "accuracy" else f"{METRICS[metric]} on"
        found = f"{percent(measured)} {named} {len(logits):,} validation images"
        yield TeacherCheck(name="accuracy", found=found, accuracy=measured)
    except TeacherError as error:
        yield TeacherCheck(name="accuracy", error=error)
    if given:
        yield _check_logits(logits)
        yield attempt("class order", lambda: _check_order(logits, dataset), fatal=False)
        yield attempt("normalisation", lambda: _check_normalisation(network, logits, dataset, device), fatal=False)
    if explained:
        yield attempt("attribution", lambda: check_gradients(network, dataset, device=device))


def _check_evaluation_mode(network: Network, dataset: Dataset, device: torch.device) -> str:
    """Check that the answer to an image is finite, and depends neither on others in the batch nor on chance."""
    pixels = to_pixels(dataset.train_images[:_BATCH].to(device), network.memory_format)
    beside_black = torch.cat([pixels, torch.zeros_like(pixels)]).contiguous(memory_format=network.memory_format)
    try:
        with torch.no_grad():
            together, again = network.to(device)(pixels), network(pixels)
            beside = network(beside_black)[: len(pixels)]
    except Exception as error:  # somebody's code, which ran on a batch of another size
        raise TeacherError(
            f"the teacher fails on a batch of {len(pixels)} images ({first_line(error)}); "
            "let its forward take any number of them"
        ) from error
    if not bool(torch.isfinite(together).all()):
        raise TeacherError("the teacher's logits are not finite; check the weights for NaN, and teacher.normalize")
    tolerance = TOLERANCE * float(together.abs().max())
    if float((together - again).abs().max()) > tolerance:
        raise TeacherError("the teacher answers the same image differently each time; switch its dropout off in eval()")
    if float((together - beside).abs().max()) > tolerance:
        raise TeacherError(
            "the teacher's answer to an image depends on the other images of the batch: BatchNorm uses batch "
            "statistics; let its BatchNorm track running statistics and use them after eval()"
        )
    return "an image gets the same logits whatever else is in its batch"


def check_accuracy(
    network: Network,
    dataset: Dataset,
    logits: Tensor,
    *,
    device: torch.device,
    metric: Metric,
    others: Sequence[str] = (),
    weighable: bool = False,
) -> float:
    """Return the teacher's value of the metric on the validation images, a fraction.

    Args:
        logits: of the validation images.
        others, weighable: see `examine_teacher`.

    Raises:
        TeacherError: it is not better than guessing, see `beats_guessing`; the message names the value, that of always
            guessing the most common class, and the likely cause.
    """
    labels = dataset.validation_labels
    measured = judge(logits, labels, metric)
    if beats_guessing(logits.argmax(dim=1), labels, metric, num_classes=dataset.num_classes):
        return measured
    if not enough_to_tell(dataset, metric):
        other: Metric = "balanced_accuracy"
        or_metric = f", or set metric: {other}" if metric == "accuracy" and enough_to_tell(dataset, other) else ""
        raise TeacherError(
            f"{len(labels)} validation images are too few to tell whether the teacher learned anything; "
            + dataset.more_validation
            + or_metric
        )
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    common, guessed = dataset.class_names[int(counts.argmax())], percent(of_guessing(counts.tolist(), metric))
    gets = f"{percent(measured)} of {len(labels)} validation images right"
    if metric != "accuracy":
        gets = f"{percent(measured)} {METRICS[metric]} on {len(labels)} validation images"
    cause = _likely_cause(network, dataset, logits, measured, device, metric, others)
    # Right as often on four times as many images it would be better than guessing.
    answers = logits.argmax(dim=1).repeat(4)
    few = cause is None and beats_guessing(answers, labels.repeat(4), metric, num_classes=dataset.num_classes)
    raise TeacherError(
        f"the teacher gets {gets}, and always guessing {common!r} gets {guessed}: "
        + ("on so few, that can be luck; " if few else "it has nothing to teach; ")
        + (
            cause
            or "check teacher.normalize, teacher.input_size, the order of the classes, or train it for more epochs"
        )
        + (", or set teacher.class_weights: balanced" if weighable and metric != "accuracy" else "")
        + (f", or {dataset.more_validation}" if few else "")
    )


def enough_to_tell(dataset: Dataset, metric: Metric) -> bool:
    """Return whether a teacher that is right on every validation image could be told from one that always guesses."""
    labels = dataset.validation_labels
    return beats_guessing(labels, labels, metric, num_classes=dataset.num_classes)


def _is_much_better(other: float, measured: float) -> bool:
    """Return whether half of the errors are gone; where several ways are tried, small gains come by chance."""
    return 1 - other < (1 - measured) / 2


def _likely_cause(
    network: Network,
    dataset: Dataset,
    logits: Tensor,
    measured: float,
    device: torch.device,
    metric: Metric,
    others: Sequence[str],
) -> str | None:
    order = best_order(logits, dataset.validation_labels, dataset.num_classes)
    reordered, labels = order[logits.argmax(dim=1)], dataset.validation_labels
    permuted = score(reordered, labels, metric, num_classes=dataset.num_classes, dtype=torch.float64).item()
    if _is_much_better(permuted, measured):
        return (
            f"with its classes in another order it would get {percent(permuted)}: it was trained with other class "
            f"numbers; here they are {', '.join(dataset.class_names[:10])}{' …' if dataset.num_classes > 10 else ''}"
        )
    images, labels = dataset.validation_images[:_PROBED], dataset.validation_labels[:_PROBED]
    for name, candidate in other_normalizations(network, dataset).items():
        other = judge(predict(candidate, images, device=device), labels, metric)
        if _is_much_better(other, measured):
            return f"with teacher.normalize {name} it would get {percent(other)}"
    if others:
        return f"its checkpoint holds other weights that fit: set teacher.checkpoint_key to {' or '.join(others)}"
    return None


def _check_logits(logits: Tensor) -> TeacherCheck:
    """Check that logits are no probabilities, which temperature would flatten a second time. Log-probabilities will do.

    Every objective takes a softmax of the teacher's answer, or its order, and adding a number to all logits of an image
    changes neither.
    """
    between = bool(((logits >= 0) & (logits <= 1 + NO_PROBABILITY)).all())
    if between and bool(((logits.sum(dim=1) - 1).abs() < NO_PROBABILITY).all()):
        error = TeacherError(
            "the teacher ends in a softmax: its outputs are probabilities, of which temperature makes nothing; "
            "return what it passes to the softmax"
        )
        return TeacherCheck(name="logits", error=error)
    if between and logits.amax(dim=1).median() > 1 / 2:  # sure of most answers; or logits that happen to be so
        error = TeacherError(
            "the teacher's outputs all lie between 0 and 1, as if it ended in a sigmoid: a softmax of them hardly "
            "tells classes apart; return what it passes to the sigmoid"
        )
        return TeacherCheck(name="logits", error=error, fatal=False)
    if bool((logits.logsumexp(dim=1).abs() < NO_PROBABILITY).all()):
        return TeacherCheck(name="logits", found="log-probabilities, which teach as logits do")
    return TeacherCheck(name="logits", found="no probabilities")


def _check_order(logits: Tensor, dataset: Dataset) -> str:
    """Look for a better order on one half of the images and measure it on the other: chance does not pass twice."""
    labels, classes = dataset.validation_labels, dataset.num_classes
    answers = logits.argmax(dim=1)
    reordered = torch.empty_like(answers)
    for half in (0, 1):
        order = best_order(logits[1 - half :: 2], labels[1 - half :: 2], classes)
        reordered[half::2] = order[answers[half::2]]
    gain = find_gain(answers == labels, reordered == labels)
    if gain is None:
        return "no other order of the classes fits better"
    order = best_order(logits, labels, classes)
    moved = [int(number) for number in torch.nonzero(order != torch.arange(classes))]
    swaps = ", ".join(f"its {number} is {dataset.class_names[int(order[number])]!r}" for number in moved[:4])
    more = " …" if moved[4:] else ""
    raise TeacherError(
        f"with its classes in another order the teacher would be right on {gain} more of the images ({swaps}{more}); "
        "bring its last layer into the order of the class names"
    )


def _check_normalisation(network: Network, logits: Tensor, dataset: Dataset, device: torch.device) -> str:
    images, labels = dataset.validation_images[:_PROBED], dataset.validation_labels[:_PROBED]
    right_as_given = logits[:_PROBED].argmax(dim=1) == labels
    gains: dict[str, tuple[int, str]] = {}
    for name, other in other_normalizations(network, dataset).items():
        right = predict(other, images, device=device).argmax(dim=1) == labels
        if (gain := find_gain(right_as_given, right)) is not None:
            gains[name] = int(right.sum()), gain
    network.to(device)
    if not gains:
        return "none of the usual others fits better"
    best = max(gains, key=lambda name: gains[name][0])
    raise TeacherError(
        f"with teacher.normalize {best} the teacher would be right on {gains[best][1]} more of the images; "
        f"set teacher.normalize: {best.partition(' (')[0]}"
    )


def choose_transform(
    network: Network, body: nn.Module, teacher: TeacherConfig, dataset: Dataset, *, device: torch.device
) -> str | None:
    """Find by trying whether a torchvision network changes its input, where its checkpoint cannot say it.

    `inception_v3` and `googlenet` that began with torchvision's weights do (`transform_input`), others do not.

    Args:
        body: of the network; what is found is set there.

    Returns:
        What was found, in words; None where there is nothing to find, or it makes no difference that is not chance.
    """
    images, labels = dataset.validation_images[:_TRIED], dataset.validation_labels[:_TRIED]
    if not teacher.checkpoints or not has_transform(body, teacher):
        return None
    as_built = predict(network, images, device=device).argmax(dim=1) == labels
    body.transform_input = True  # type: ignore[assignment]
    turned = predict(network, images, device=device).argmax(dim=1) == labels
    guessed = torch.bincount(labels).max().item() / len(labels)
    saved = beats_share(turned, guessed) and not beats_share(as_built, guessed)
    if not saved and find_gain(as_built, turned) is None:
        body.transform_input = False  # type: ignore[assignment]
        return None
    without, with_it = (percent(some.double().mean().item()) for some in (as_built, turned))
    return f"with transform_input it is right on {with_it} of {len(labels)} validation images, without on {without}"


def find_gain(before: Tensor, after: Tensor) -> str | None:
    """Return how much more often `after` is right than `before`, unless by chance (sign test) or by too little.

    Both are bool (N,).
    """
    better, worse = int((after & ~before).sum()), int((before & ~after).sum())
    gain = (better - worse) / len(before)
    if gain < _SMALLEST_GAIN:
        return None
    by_chance = scipy.stats.binomtest(better, better + worse, 0.5, alternative="greater").pvalue
    return percent(gain) if by_chance < P_VALUE else None


def check_gradients(network: Network, dataset: Dataset, *, device: torch.device) -> str:
    """Check that the teacher's logits have gradients with respect to the image, which attribution maps are made of.

    Raises:
        TeacherError: none reaches the image, or they vanish everywhere.
    """
    colour = torch.tensor(dataset.mean, device=device)[:, None, None]
    images = to_pixels(dataset.train_images[: len(_ON_THE_LINE)].to(device))
    shares = torch.tensor(_ON_THE_LINE[: len(images)], device=device)[:, None, None, None]
    pixels = (colour + shares * (images - colour)).contiguous(memory_format=network.memory_format).requires_grad_()
    advice = "remove no_grad, detach, argmax and rounding from its forward, or use no overlays"
    try:
        logits = network.to(device)(pixels)
        (gradient,) = torch.autograd.grad(logits.logsumexp(dim=1).sum() + logits[:, 0].sum(), pixels)
    except Exception as error:  # what torch raises where there is none, and somebody's code where it needs none
        raise TeacherError(f"no gradient of the teacher reaches the image ({first_line(error)}); {advice}") from error
    if not bool((gradient != 0).any()):
        raise TeacherError(f"the gradient of the teacher is 0 everywhere, so its maps would be empty; {advice}")
    if not bool(torch.isfinite(gradient).all()):
        raise TeacherError("the gradient of the teacher is not finite; check its forward for roots and divisions by 0")
    return "gradients reach the image"


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
    for other in networks.values():
        other.memory_format = network.memory_format
    mean, std = network.mean.cpu(), network.std.cpu()
    return {
        name: other
        for name, other in networks.items()
        if not (torch.equal(other.mean, mean) and torch.equal(other.std, std))
    }
