"""Sections of the study file on its two networks: the teacher, and what all its students have in common."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from igkd_hpo.config.space import Frozen
from igkd_hpo.distillation.architectures import ARCHITECTURES, find_architecture, kind_of

_BARE = re.compile(r"[a-z0-9_]+")
_NORMALIZE = ("dataset", "weights", "none")
Pixel = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Normalize = Annotated[
    Annotated[Literal["dataset", "weights", "none"], Tag("word")]
    | Annotated[tuple[tuple[Pixel, Pixel, Pixel], tuple[Deviation, Deviation, Deviation]], Tag("triples")],
    Discriminator(
        lambda value: "triples" if isinstance(value, list | tuple) else "word" if value in _NORMALIZE else None,
        custom_error_type="normalize_type",
        custom_error_message="dataset, weights, none, or [[mean, mean, mean], [std, std, std]] in [0, 1] pixels",
    ),
]
Checkpoint = Annotated[
    Annotated[str, Tag("path")] | Annotated[tuple[str, ...], Tag("paths")],
    Discriminator(
        lambda value: "path" if isinstance(value, str) else "paths" if isinstance(value, list | tuple) else None,
        custom_error_type="checkpoint_type",
        custom_error_message="a path, or a list of paths",
    ),
]
Weights = Annotated[
    Annotated[str, Tag("path")] | Annotated[dict[str, str], Tag("paths")],
    Discriminator(
        lambda value: "path" if isinstance(value, str) else "paths" if isinstance(value, dict) else None,
        custom_error_type="weights_type",
        custom_error_message="a path, or a mapping from names of networks to paths",
    ),
]


def _is_trained_here(values: dict[str, Any]) -> bool:
    if values.get("checkpoint") is not None:
        return False
    return values.get("weights") is not None or values.get("architecture") == "mobilenet_v2"


class TeacherConfig(Frozen):
    """The accurate network whose knowledge the students get."""

    architecture: str = "mobilenet_v2"
    """mobilenet_v2 (CIFAR form), torchvision/NAME, timm/NAME[.TAG], or module:function (see --allow-import)."""
    width: float = Field(default=1.0, ge=0.1, le=4.0)
    """Channel multiplier of mobilenet_v2."""
    checkpoint: Checkpoint | None = None
    """A finished teacher's state dict, or a list; null: mobilenet_v2 is trained here, others bring their own."""
    checkpoint_key: str | None = Field(default=None, min_length=1)
    """Where in the checkpoint its weights lie, such as state_dict_ema, if it holds several; null: not the averaged."""
    weights: str | None = Field(default=None, min_length=1)
    """To begin with, and then be trained here with a new classifier: pretrained (the library's own), or a file."""
    normalize: Normalize = "dataset"
    """The input's mean and deviation: dataset, weights (theirs), none, or [[mean x3], [std x3]] in [0, 1] pixels."""
    input_size: int | None = Field(default=None, ge=8, le=1024)
    """Pixels; images are resized to this for the teacher alone; null gives it the dataset's size."""
    epochs: int = Field(default=100, ge=1, le=100_000)
    """Epochs of training, where it is trained here."""
    learning_rate: float | None = Field(default=None, gt=0, le=100)
    """Peak rate of that, for batches of 128; null: 0.1, and 0.01 where it begins with weights."""
    class_weights: Literal["none", "balanced"] = Field(default="none", exclude_if=lambda chosen: chosen == "none")
    """Of that training: balanced, as hyperparameters.class_weights does for students, or none."""
    members: int = Field(default=1, ge=1, le=100, validate_default=True)
    """This many teachers, their probabilities averaged: trained here, each with its seed, or the list's."""
    folds: int = Field(default=0, ge=0, le=100)
    """0, or 2 and more: each of so many teachers is trained without one part of the images, and asked about that."""
    logits: Literal["auto", "cached", "online"] = "auto"
    """cached: logits of every view are made once; online: computed in each step; auto: whichever costs less."""

    @field_validator("checkpoint")
    @classmethod
    def _not_empty(cls, checkpoint: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if checkpoint == ():
            raise ValueError("the list is empty; name state dicts in it, or write null")
        return checkpoint

    @field_validator("checkpoint_key")
    @classmethod
    def _in_a_checkpoint(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is not None and "checkpoint" in info.data and info.data["checkpoint"] is None:
            raise ValueError(f"{key!r} is a place in a checkpoint; give checkpoint, or remove checkpoint_key")
        return key

    @field_validator("architecture")
    @classmethod
    def _known_form(cls, architecture: str) -> str:
        if architecture not in ARCHITECTURES and _BARE.fullmatch(architecture):
            return f"torchvision/{architecture}"  # as torchvision's networks were called when there were no others
        kind_of(architecture)
        return architecture

    @field_validator("weights")
    @classmethod
    def _weights_can_be_had(cls, weights: str | None, info: ValidationInfo) -> str | None:
        if weights is None:
            return None
        if info.data.get("checkpoint") is not None:
            raise ValueError("a checkpoint is a finished teacher, weights are to be trained on; remove one of them")
        architecture = info.data.get("architecture")
        if weights == "pretrained" and architecture and find_architecture(architecture).published is None:
            raise ValueError(f"nobody has published weights of {architecture}; name a file of them")
        return weights

    @field_validator("normalize")
    @classmethod
    def _statistics_are_known(cls, normalize: Any, info: ValidationInfo) -> Any:
        architecture = info.data.get("architecture")
        if normalize == "weights" and architecture and find_architecture(architecture).statistics is None:
            raise ValueError(f"what weights of {architecture} were trained with is not known; write [[mean], [std]]")
        return normalize

    @field_validator("class_weights")
    @classmethod
    def _weighs_a_training(cls, class_weights: str, info: ValidationInfo) -> str:
        if class_weights != "none" and not _is_trained_here(info.data):
            raise ValueError(f"{class_weights} is for a teacher that is trained here, not for a given one; remove it")
        return class_weights

    @field_validator("members")
    @classmethod
    def _members_can_be_had(cls, members: int, info: ValidationInfo) -> int:
        checkpoint = info.data.get("checkpoint")
        if isinstance(checkpoint, tuple):
            if members not in (1, len(checkpoint)):
                raise ValueError(f"{members}, and checkpoint names {len(checkpoint)}; remove members")
            return len(checkpoint)
        if members > 1 and not _is_trained_here(info.data):
            raise ValueError(f"{members} of one given network are all alike; give checkpoint a list, or write 1")
        return members

    @field_validator("folds")
    @classmethod
    def _folds_can_be_had(cls, folds: int, info: ValidationInfo) -> int:
        if folds == 1:
            raise ValueError("1 fold leaves nothing to train on; write 0, or 2 and more")
        if folds and not _is_trained_here(info.data):
            raise ValueError(f"{folds} folds need a teacher that is trained here; a given one has seen what it has")
        if folds and info.data.get("members", 1) > 1:
            raise ValueError(f"{folds} folds and {info.data['members']} members exclude each other; remove one of them")
        return folds

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The paths that are given, one for each member."""
        return (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint or ()

    @property
    def is_trained_here(self) -> bool:
        """Whether it is made by training, as opposed to given: as a file, or as code that brings weights."""
        return _is_trained_here(dict(self))

    @property
    def n_networks(self) -> int:
        """The number of its networks."""
        return self.folds or self.members

    @property
    def n_answers(self) -> int:
        """The number of its networks that are asked about a training image: of folds, the one that did not see it."""
        return 1 if self.folds else self.members


class Student(Frozen):
    """The small network that is searched for."""

    architecture: str | None = None
    """Fixes hyperparameters.architecture, where it can be searched as well."""
    weights: Weights | None = None
    """Of init pretrained: a file, or a file for each network; null: the library's own, of the tag in the name."""
    normalize: Normalize = "dataset"
    """As for the teacher; weights: where init is pretrained, and dataset elsewhere."""

    @field_validator("architecture")
    @classmethod
    def _known_form(cls, architecture: str | None) -> str | None:
        if architecture is not None:
            kind_of(architecture)
        return architecture

    def weights_of(self, architecture: str) -> str | None:
        """Return the file of a network's weights, as the study file names it; None for the library's own."""
        return self.weights.get(architecture) if isinstance(self.weights, dict) else self.weights
