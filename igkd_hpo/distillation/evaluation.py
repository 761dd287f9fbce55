"""Evaluation of a network: its logits, and how right they are, in a metric and class by class."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from igkd_hpo.distillation.images import Images
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.distillation.models import Network, to_pixels
from igkd_hpo.distillation.tally import Tally


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put the module into evaluation mode without gradients, and back afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def padded_batches(
    chunks: Iterable[Tensor], batch_size: int, memory_format: torch.memory_format = torch.channels_last
) -> Iterator[tuple[Tensor, int]]:
    """Make of chunks (B, 3, H, W) batches of exactly `batch_size`, each with how many of its rows are the chunk's.

    A smaller chunk is filled up with zeros, so that a row's results do not depend on N: kernels may sum in another
    order when the batch has another size. The memory format is fixed for the same reason; channels last is the fast
    one.
    """
    for chunk in chunks:
        missing = batch_size - len(chunk)
        whole = torch.cat([chunk, chunk.new_zeros(missing, *chunk.shape[1:])]) if missing else chunk
        yield whole.contiguous(memory_format=memory_format), len(chunk)


def forward_in_batches(
    network: Network, x: Images, *, batch_size: int, on_batch: Callable[[], None] = lambda: None
) -> Tensor:
    """Return the float32 logits (N, K), on the network's device, of uint8 images or float32 pixels (N, 3, H, W).

    The network is put into evaluation mode meanwhile, N is 1 or more, and `on_batch` is called after each batch. A
    row's numbers do not depend on N, see `padded_batches`.
    """
    chunks = (x[start : start + batch_size] for start in range(0, len(x), batch_size))
    return forward_chunks(network, chunks, batch_size=batch_size, on_batch=on_batch)


def forward_chunks(
    network: Network, chunks: Iterable[Tensor], *, batch_size: int, on_batch: Callable[[], None] = lambda: None
) -> Tensor:
    """Return the logits of all chunks, none larger than `batch_size`, as `forward_in_batches` does of the whole."""
    logits = []
    with evaluating(network):
        for chunk, count in padded_batches(chunks, batch_size, network.memory_format):
            moved = chunk.to(network.mean.device)
            logits.append(network(to_pixels(moved) if moved.dtype == torch.uint8 else moved)[:count].float())
            on_batch()
    return torch.cat(logits)


def predict(network: Network, images: Images, *, batch_size: int = 64, device: torch.device) -> Tensor:
    """Return the float32 logits (N, K), on the CPU, of uint8 images (N, 3, H, W); moves the network to `device`."""
    return forward_in_batches(network.to(device), images, batch_size=batch_size).cpu()


def score(
    answers: Tensor, labels: Tensor, metric: Metric, *, num_classes: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a metric's value, a fraction, as a tensor () on the device of the answers; the host reads nothing.

    Args:
        answers: the classes that images are taken for, int64 (N,), as `labels` are; N is 1 or more.
        metric: accuracy, the share of right answers; balanced_accuracy, the mean over classes of the share of their
            images that are right; macro_f1, the mean over classes of F1. Classes without an image count in neither
            mean: what is taken for one of them is wrong for its own class, and nothing else. scikit-learn's
            `balanced_accuracy_score` does the same, and its `f1_score` with `labels=numpy.unique(labels)`.
        dtype: of the result.
    """
    right = answers == labels
    if metric == "accuracy":
        return right.to(dtype).mean()
    images, hits, answered = _count(answers, labels, right, num_classes).to(dtype)
    occurs = images > 0
    of_each = hits / images if metric == "balanced_accuracy" else 2 * hits / (images + answered)
    value: Tensor = torch.where(occurs, of_each, 0).sum() / occurs.sum()
    return value


def judge(logits: Tensor, labels: Tensor, metric: Metric) -> float:
    """Return what `score` does of logits (N, K), in float64, on the host."""
    answers, num_classes = logits.argmax(dim=1), logits.shape[1]
    return score(answers, labels.to(answers.device), metric, num_classes=num_classes, dtype=torch.float64).item()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share, in [0, 1], of rows whose largest logit is the label's."""
    return judge(logits, labels, "accuracy")


def tally(answers: Tensor, labels: Tensor, *, num_classes: int) -> Tally:
    """Count answers by class, on the host; `score` says what these are. Needs no memory for pairs of classes."""
    answers, labels = answers.cpu(), labels.cpu()
    right = answers == labels
    images, hits, answered = _count(answers, labels, right, num_classes).tolist()
    pairs, counts = torch.unique(labels[~right] * num_classes + answers[~right], return_counts=True)
    mistaken_for, mistaken = [-1] * num_classes, [0] * num_classes
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):  # sorted: of equals the first class stays
        label, answer = divmod(pair, num_classes)
        if count > mistaken[label]:
            mistaken_for[label], mistaken[label] = answer, count
    return Tally(images=images, right=hits, answered=answered, mistaken_for=mistaken_for, mistaken=mistaken)


def _count(answers: Tensor, labels: Tensor, right: Tensor, num_classes: int) -> Tensor:
    """Count images, right ones and answers of each class: int64 (3, K). Whole numbers add up alike in any order."""
    counts = torch.zeros(3, num_classes, dtype=torch.int64, device=answers.device)
    one = torch.ones_like(labels)
    for row, index, values in zip(counts, (labels, labels, answers), (one, right.long(), one), strict=True):
        row.scatter_add_(0, index, values)
    return counts
