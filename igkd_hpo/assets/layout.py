"""Layout of memory in which a teacher that others wrote is trained here and run: what was found by trying it."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher_network import teacher_request
from igkd_hpo.config.provenance import MemoryFormat
from igkd_hpo.config.resolution import training_on
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.device import processor
from igkd_hpo.errors import AssetMissing
from igkd_hpo.settings import Settings

_SCHEMA = 1
_KIND: Final = "layout"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout that was found.

    Args:
        why: what happened in the other one, in words; None where that was not tried.
    """

    memory_format: MemoryFormat
    why: str | None = None


def known_layout(study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> Layout | None:
    """Return what was found of a teacher on this kind of machine; None where it was not tried.

    Raises AssetError where that is damaged.
    """
    try:
        asset = AssetStore(settings.paths.assets).open(_KIND, _inputs(study, dataset, settings, device))
    except AssetMissing:
        return None
    return Layout(**asset.facts)


def teacher_layout(study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> MemoryFormat:
    """Return the layout of memory in which the teacher is trained: channels_last unless it cannot be."""
    known = known_layout(study, dataset, settings, device)
    return "channels_last" if known is None else known.memory_format


def keep_layout(layout: Layout, study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> None:
    """Keep what was found, for `known_layout`. Raises AssetError where it cannot be written."""
    inputs = _inputs(study, dataset, settings, device)
    with AssetStore(settings.paths.assets).build(_KIND, inputs, SilentProgress()) as draft:
        if draft.finished is None:
            draft.commit(asdict(layout))


def _inputs(study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> dict[str, Any]:
    """Return all that can change what is found."""
    request = teacher_request(study.teacher, dataset.num_classes, dataset.image_size, settings)
    version = find_architecture(request.name).version
    return {
        "schema": _SCHEMA,
        "teacher": request.name,
        "code": version and version(request),
        "classes": dataset.num_classes,
        "image_size": [list(dataset.image_size), list(request.image_size)],
        "precision": training_on(study, device.type).precision,
        "torch": torch.__version__,
        "device": device.type,
        "processor": processor(device),
    }
