"""The form of a trained network that is shipped: branches that only training needs are merged, and nothing else."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from igkd_hpo.bundle.measuring import logit_difference
from igkd_hpo.errors import IgkdError

if TYPE_CHECKING:
    from igkd_hpo.distillation.models import Network

_COMPARED = 64  # images: a branch that is merged wrongly shows in the first


def deployed_form(network: "Network", architecture: str, images: NDArray[np.uint8]) -> "Network":
    """Return the network that is shipped, in evaluation mode on the CPU; the network itself where it is that already.

    Args:
        images: (N, 3, H, W) on which both forms are compared.

    Raises:
        IgkdError: they answer otherwise.
    """
    import torch

    from igkd_hpo.distillation.evaluation import predict
    from igkd_hpo.distillation.models import Network
    from igkd_hpo.trial.student import deployed

    body = deployed(network.body, architecture)
    if body is network.body:
        return network
    shipped = Network(body, network.mean, network.std).eval()
    compared, device = torch.from_numpy(images[:_COMPARED]), torch.device("cpu")
    trained, merged = (predict(each, compared, device=device).numpy() for each in (network, shipped))
    difference, allowed = logit_difference(merged, trained)
    if not difference <= allowed:
        raise IgkdError(
            f"the deployed form of {architecture} gives logits that differ by {difference:.2g}, more than "
            f"{allowed:.2g}, from those of the network that was trained; nothing was written; mend its deploy(), or "
            "report this with the versions of torch and timm"
        )
    return shipped
