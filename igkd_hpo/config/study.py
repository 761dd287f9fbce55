"""The study file as frozen objects: one class per section, one field per key.

A field's docstring is its help: what it means, its unit and range. `reading.py` turns a YAML file into a `Study` and
every fault of the file into one message.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from igkd_hpo.config.controls import ControlName, controls_using
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.provenance import Provenance
from igkd_hpo.config.space import LARGEST_SEED, Frozen
from igkd_hpo.distillation.architectures import ARCHITECTURES
from igkd_hpo.distillation.hyperparameter import Role

Pixel = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Normalize = Annotated[
    Annotated[Literal["dataset", "none"], Tag("word")]
    | Annotated[tuple[tuple[Pixel, Pixel, Pixel], tuple[Deviation, Deviation, Deviation]], Tag("triples")],
    Discriminator(
        lambda value: (
            "triples" if isinstance(value, list | tuple) else "word" if value in ("dataset", "none") else None
        ),
        custom_error_type="normalize_type",
        custom_error_message="dataset, none, or [[mean, mean, mean], [std, std, std]] in [0, 1] pixels",
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
Steps = Annotated[
    Annotated[Literal["auto"], Tag("word")] | Annotated[int, Field(ge=2, le=1000), Tag("number")],
    Discriminator(
        lambda value: "word" if value == "auto" else "number" if type(value) is int else None,
        custom_error_type="steps_type",
        custom_error_message="auto, or a whole number from 2 to 1000",
    ),
]
if TYPE_CHECKING:  # a file each, which type checkers cannot know
    ArchitectureName = str
else:
    ArchitectureName = Literal[*ARCHITECTURES]


def _is_trained_here(architecture: str | None, checkpoint: str | tuple[str, ...] | None) -> bool:
    return checkpoint is None and architecture == "mobilenet_v2"


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Of a study, and of its folders."""


class TeacherConfig(Frozen):
    """The accurate network whose knowledge the students get."""

    architecture: str = "mobilenet_v2"
    """mobilenet_v2 (CIFAR form), a torchvision model name, or module:function of your own code (see --allow-import)."""
    width: float = Field(default=1.0, ge=0.1, le=4.0)
    """Channel multiplier of mobilenet_v2."""
    checkpoint: Checkpoint | None = None
    """A state dict to load, or a list of them; null trains here (torchvision models bring their own weights)."""
    checkpoint_key: str | None = Field(default=None, min_length=1)
    """Where in the checkpoint its weights lie, such as state_dict_ema, if it holds several; null: not the averaged."""
    normalize: Normalize = "dataset"
    """What the network's input is normalised with: dataset, none, or [[mean x3], [std x3]] in [0, 1] pixels."""
    input_size: int | None = Field(default=None, ge=8, le=1024)
    """Pixels; images are resized to this for the teacher alone; null gives it the dataset's size."""
    epochs: int = Field(default=100, ge=1, le=100_000)
    """Epochs of training, where there is no checkpoint."""
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

    @field_validator("members")
    @classmethod
    def _members_can_be_had(cls, members: int, info: ValidationInfo) -> int:
        checkpoint = info.data.get("checkpoint")
        if isinstance(checkpoint, tuple):
            if members not in (1, len(checkpoint)):
                raise ValueError(f"{members}, and checkpoint names {len(checkpoint)}; remove members")
            return len(checkpoint)
        if members > 1 and not _is_trained_here(info.data.get("architecture"), checkpoint):
            raise ValueError(f"{members} of one given network are all alike; give checkpoint a list, or write 1")
        return members

    @field_validator("folds")
    @classmethod
    def _folds_can_be_had(cls, folds: int, info: ValidationInfo) -> int:
        if folds == 1:
            raise ValueError("1 fold leaves nothing to train on; write 0, or 2 and more")
        if folds and not _is_trained_here(info.data.get("architecture"), info.data.get("checkpoint")):
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
        return _is_trained_here(self.architecture, self.checkpoint)

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

    architecture: ArchitectureName = "mobilenet_v2"
    """Its hyperparameters decide how large it is: of mobilenet_v2 layers_removed and width."""
    normalize: Normalize = "dataset"
    """As for the teacher."""


def _explain_blocks(values: dict[str, Any]) -> str | None:
    """Say why the teacher's blocks cannot be compared with a student's; None where they have the same structure."""
    teacher, student = values.get("teacher"), values.get("student")
    if teacher is None or student is None:  # refused already
        return None
    if teacher.n_networks > 1:
        return f"{teacher.n_networks} teachers have no one set of blocks; take one teacher"
    architecture = student.architecture
    if ARCHITECTURES[architecture].taps is None:
        return f"the blocks of a student {architecture} are not known; take another architecture"
    if teacher.architecture != architecture or teacher.input_size is not None:
        needed = f"only a teacher {architecture} without input_size has blocks that match a student's"
        return f"{needed}; take the built-in one"
    return None


class Attribution(Frozen):
    """The teacher's Integrated-Gradients maps."""

    n_steps: Steps = "auto"
    """Points on the path from the mean colour to the image; auto: the fewest that order the pixels as 64 do."""
    target: Literal["label", "prediction"] = "label"
    """Which logit is attributed: the image's label, or the teacher's own prediction."""


class Augmentation(Frozen):
    """Random views of a training image; the teacher and the map see the same view as the student."""

    crop_padding: int = Field(default=4, ge=0, le=32)
    """Pixels of zero padding on each side before a random crop back to size."""
    horizontal_flip: bool = True
    """Mirror every second view, on average."""


class TrainingConfig(Frozen):
    """The training of a student."""

    epochs: int = Field(default=100, ge=1, le=100_000)
    """Epochs of every trial that is not pruned."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd (with Nesterov momentum 0.9), adam or adamw."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    """constant, cosine or one_cycle: the learning rate's course, step by step."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """float32, bfloat16, float16, or auto: bfloat16 on a GPU that has it, float32 elsewhere."""
    compile: Literal["auto", "none", "cuda_graph"] = "auto"
    """cuda_graph launches all of a step at once; none does not; auto: a graph on a GPU where it is right and faster."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Trial n trains with seed + n: initial weights, order, views and overlays."""


class Limits(Frozen):
    """The limits of the device: a configuration beyond one is not trained, and does not count in n_trials."""

    parameters: int | None = Field(default=None, ge=1)
    """Most numbers that the student may learn."""
    macs: float | None = Field(default=None, gt=0)
    """Most multiply-adds for one image, in convolutions and linear layers."""
    size_kb: float | None = Field(default=None, gt=0)
    """Most kilobytes (1,024 bytes) of the weights in float32."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Most milliseconds for one image: the median, measured in PyTorch on one CPU thread of the training host."""

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in self.model_dump().values())


class Sampler(Frozen):
    """The choice of the next configuration."""

    name: Literal["tpe", "random"] = "tpe"
    """tpe learns from the trials so far; random does not."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of the choice."""


class PercentilePruner(Frozen):
    """A pruner that stops a trial whose best accuracy so far is not among the best `keep` per cent at that epoch."""

    name: Literal["percentile"]
    """Names this pruner."""
    keep: float = Field(default=50, gt=0, lt=100)
    """Per cent of the trials that go on."""
    grace_period: int = Field(default=3, ge=0)
    """No trial is stopped in its first this many epochs."""
    patience: int = Field(default=0, ge=0)
    """Epochs in a row without a better accuracy before a trial may be stopped."""


class MedianPruner(Frozen):
    """A pruner that stops a trial whose best accuracy so far is below the median at that epoch."""

    name: Literal["median"]
    """Names this pruner."""
    grace_period: int = Field(default=3, ge=0)
    """No trial is stopped in its first this many epochs."""
    patience: int = Field(default=0, ge=0)
    """Epochs in a row without a better accuracy before a trial may be stopped."""


class SuccessiveHalvingPruner(Frozen):
    """A pruner that keeps one trial in `reduction_factor` at epoch grace_period, then at that times the factor, …"""

    name: Literal["successive_halving"] = "successive_halving"
    """Names this pruner."""
    grace_period: int | None = Field(default=None, ge=1)
    """The first epoch at which trials are stopped; null: a twelfth of training.epochs, 1 at least."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in this many goes on."""


class HyperbandPruner(Frozen):
    """Several successive halvings with different grace periods, side by side."""

    name: Literal["hyperband"]
    """Names this pruner."""
    grace_period: int = Field(default=1, ge=1)
    """The first epoch at which trials are stopped."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in this many goes on."""


class NoPruner(Frozen):
    """No pruner: every trial runs to its end."""

    name: Literal["none"]
    """Names this pruner."""


Pruner = Annotated[
    PercentilePruner | MedianPruner | SuccessiveHalvingPruner | HyperbandPruner | NoPruner, Field(discriminator="name")
]


class Study(Frozen):
    """The whole study file."""

    version: Literal[1] = 1
    """Format of this file."""
    name: str = Field(pattern=NAME)
    """Names the study in the database; letters, digits, '.', '_' and '-'."""
    dataset: DatasetConfig
    """Which images, and how they are split."""
    teacher: TeacherConfig = TeacherConfig()
    """The accurate network."""
    student: Student = Student()
    """The small network."""
    attribution: Attribution = Attribution()
    """How the maps are made."""
    augmentation: Augmentation = Augmentation()
    """Random crops and flips."""
    training: TrainingConfig = TrainingConfig()
    """How a student is trained."""
    hyperparameters: Hyperparameters
    """What is searched, and what is fixed."""
    limits: Limits = Limits()
    """What the device allows."""
    sampler: Sampler = Sampler()
    """How the next configuration is chosen."""
    pruner: Pruner = SuccessiveHalvingPruner()
    """Which trials are stopped early."""
    n_trials: int = Field(default=100, ge=1, le=1_000_000)
    """A total of COMPLETE plus PRUNED trials, over all launches and hosts, controls included."""
    controls: tuple[ControlName, ...] = Field(default=("student", "kd", "ig", "kd_ig"), validate_default=True)
    """Fixed trials (student, kd, ig, at, their combinations, paper): first, never pruned, counted in n_trials."""
    max_retries: int = Field(default=3, ge=0)
    """Attempts in a row that ended without one more finished epoch, before the trial fails."""
    max_failures: int = Field(default=5, ge=1)
    """When the last this many ended trials all failed, the study stops with the reason."""
    provenance: Provenance | None = None
    """Written by export."""

    @field_validator("hyperparameters")
    @classmethod
    def _teacher_has_the_blocks(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        teacher = info.data.get("teacher")
        needing = settings.using(Role.FEATURES)
        if "teacher_prefix" in settings.words("init"):
            needing.append("init: teacher_prefix")
            if teacher is not None and set(settings.corners("width")) != {teacher.width}:
                advice = f"write width: {teacher.width}, or init: random"
                raise ValueError(f"init: teacher_prefix needs students as wide as the teacher; {advice}")
        if needing and (reason := _explain_blocks(info.data)) is not None:
            raise ValueError(f"{', '.join(needing)}: {reason}, or leave it out")
        return settings

    @field_validator("controls")
    @classmethod
    def _controls_fit(cls, controls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(controls)) < len(controls):
            raise ValueError(f"{', '.join(controls)}: one is there twice; write each once")
        needing = [name for name in controls if name in controls_using(Role.FEATURES)]
        if needing and (reason := _explain_blocks(info.data)) is not None:
            raise ValueError(f"{', '.join(needing)}: {reason}, or leave them out")
        n_trials = info.data.get("n_trials")
        if n_trials is not None and len(controls) > n_trials:
            raise ValueError(
                f"{len(controls)} controls do not fit into n_trials {n_trials}; raise n_trials or drop controls"
            )
        return controls

    def uses(self, role: Role) -> bool:
        """Return whether any trial, controls included, can ask for this of the teacher."""
        return bool(self.hyperparameters.using(role)) or not controls_using(role).isdisjoint(self.controls)

    @property
    def is_search(self) -> bool:
        """Whether any hyperparameter is a range."""
        return bool(self.hyperparameters.searched())
