"""Evaluation of a network: its logits, and how often they are right."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from igkd_hpo.distillation.images import Images
from igkd_hpo.distillation.models import Network, to_pixels


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


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share, in [0, 1], of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels.to(logits.device)).double().mean().item()
