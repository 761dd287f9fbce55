"""Sizes of students, training steps and tables, by arithmetic and by passes that compute nothing."""

import torch
from torch import nn

from igkd_hpo.assets import logits
from igkd_hpo.assets.attention import attention_bytes, wants_attention
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import count_parameters
from igkd_hpo.settings import Settings
from igkd_hpo.trial.student import make_body, students_at_end

# Times what the backward pass keeps: gradients and kernels need room as well. Measured growth of a process on a CPU in
# MiB, and what is kept: 88 and 78 for `digits`, 2,229 and 2,100 for `cifar10`, 4,741 and 4,685 for `digits` at 64x64.
_WORKSPACE = 1.15
_COPIES = 4  # of the weights: themselves, gradients, and up to two states of the optimizer
_PROBE = 2  # images; what a step keeps is in proportion to the batch


def largest_students(study: Study, dataset: Dataset, settings: Settings) -> list[nn.Module]:
    """Make the largest network of each architecture of the search space, on the meta device if it can be there."""
    students = []
    for values in students_at_end(study, largest=True):
        foreign = find_architecture(str(values["architecture"])).foreign  # code of others may ask for numbers
        with torch.device("cpu" if foreign else "meta"):
            students.append(make_body(values, dataset.num_classes, dataset.image_size, settings.allow_import))
    return students


def student_parameters(study: Study, dataset: Dataset, settings: Settings) -> int:
    """Return how many parameters the largest student of the search space has."""
    return max(map(count_parameters, largest_students(study, dataset, settings)))


def step_bytes(study: Study, dataset: Dataset, settings: Settings) -> int:
    """Return the bytes of the search space's largest training step, by forward passes, most of them without numbers."""
    return max(_step_bytes(student, study, dataset) for student in largest_students(study, dataset, settings))


def _step_bytes(student: nn.Module, study: Study, dataset: Dataset) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = student(torch.zeros(_PROBE, 3, *dataset.image_size, device=next(student.parameters()).device))
    del output
    weights = sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())
    batch = min(int(study.hyperparameters.highest("batch_size")), len(dataset.train_images))
    activations = max(0, sum(kept.values()) - weights) / _PROBE * batch
    return int(_WORKSPACE * activations + _COPIES * weights)


def table_bytes(study: Study, dataset: Dataset) -> dict[str, int]:
    """Return the bytes of the tables of logits, attention and maps; 0 for one that the study does not use."""
    images, (height, width) = len(dataset.train_images), dataset.image_size
    return {
        "logits": logits.table_bytes(study, dataset) if logits.wants_table(study, dataset) else 0,
        "maps": 2 * images * height * width if study.uses(Role.MAPS) else 0,
        "attention": attention_bytes(study, dataset) if wants_attention(study, dataset) else 0,
    }
