"""Sources of the teacher's logits: a table of every view, or the teacher itself, which may be several networks."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from igkd_hpo.distillation.evaluation import forward_in_batches
from igkd_hpo.distillation.models import Network

TEACHER_BATCH = 64  # the one batch size of every teacher logit, cached or online: both shall give the same numbers


class Teaching(Protocol):
    """A source of the teacher's logits."""

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return the float32 logits (B, K) for views `numbers` (B,) of the images `rows` (B,), all int64.

        `pixels`, float32 (B, 3, H, W), are these views without overlays.

        Of several teachers that all answer, (B, M, K): the training averages them, see `average_members`.
        """
        ...


class CachedLogits:
    """Teacher logits made once for every view of every image: float16 (N, V, K) or (N, V, M, K)."""

    def __init__(self, table: Tensor, count: int) -> None:
        """Take a table, on the device, by image and view; ValueError where it has not `count` views of each image."""
        if table.shape[1] != count:
            raise ValueError(f"the table of logits holds {table.shape[1]} views, and there are {count}")
        self.table = table

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return the logits from the table; the pixels are not needed."""
        return self.table[rows, numbers].float()


class OnlineLogits:
    """Teacher logits made when they are needed, and rounded to float16 as the cached ones are."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return the teacher's logits of the pixels."""
        return forward_in_batches(self.network, pixels, batch_size=TEACHER_BATCH).half().float()


class MemberLogits:
    """The logits of several teachers that are all asked about every image."""

    def __init__(self, networks: Sequence[Network]) -> None:
        """Take M networks, all on one device."""
        self.members = [OnlineLogits(network) for network in networks]

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return all teachers' logits of the pixels, (B, M, K)."""
        return torch.stack([member.logits(rows, numbers, pixels) for member in self.members], dim=1)


class OutOfFoldLogits:
    """The logits of several teachers, of which each image is shown to the one that did not learn from it."""

    def __init__(self, networks: Sequence[Network], folds: Tensor) -> None:
        """Take the networks and, int64 (N,), the number of each training image's own; all on one device."""
        self.members = [OnlineLogits(network) for network in networks]
        self.folds = folds

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        """Return the logits of each image by its own teacher. On a GPU the host waits to see which those are."""
        asked = self.folds[rows]
        places, answers = [], []
        for number, member in enumerate(self.members):
            mine = torch.nonzero(asked == number)[:, 0]
            if len(mine):
                places.append(mine)
                answers.append(member.logits(rows[mine], numbers[mine], pixels[mine]))
        return torch.cat(answers)[torch.cat(places).argsort()]
