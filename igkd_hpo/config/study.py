"""The study file as frozen objects: one class per section, one field per key.

A field's docstring is its help: what it means, its unit and range. `reading.py` turns a YAML file into a `Study` and
every fault of the file into one message.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from igkd_hpo.config.controls import ControlName, controls_using
from igkd_hpo.config.dataset import DatasetConfig
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.known_good import Configuration, misfits
from igkd_hpo.config.networks import Student, TeacherConfig
from igkd_hpo.config.provenance import Provenance
from igkd_hpo.config.pruner import Pruner, SuccessiveHalvingPruner
from igkd_hpo.config.sampler import LARGEST_GRID, Sampler, TpeSampler
from igkd_hpo.config.space import LARGEST_SEED, Frozen
from igkd_hpo.config.strata import Strata
from igkd_hpo.config.time_span import TimeSpan, seconds_of
from igkd_hpo.distillation.architectures import ARCHITECTURES, find_architecture, kind_of
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.distillation.recipe import MIXING, SAME_BLOCKS
from igkd_hpo.errors import did_you_mean

Steps = Annotated[
    Annotated[Literal["auto"], Tag("word")] | Annotated[int, Field(ge=2, le=1000), Tag("number")],
    Discriminator(
        lambda value: "word" if value == "auto" else "number" if type(value) is int else None,
        custom_error_type="steps_type",
        custom_error_message="auto, or a whole number from 2 to 1000",
    ),
]


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Of a study, and of its folders."""


def _explain_features(values: dict[str, Any], needing: Sequence[str]) -> str | None:
    """Say which of these cannot compare a teacher's features with a student's, and why; None where all can."""
    teacher, hyperparameters = values.get("teacher"), values.get("hyperparameters")
    if teacher is None or not needing:  # refused already
        return None
    names = ", ".join(needing)
    if teacher.n_networks > 1:
        return f"{names}: {teacher.n_networks} teachers have no one set of features; take one teacher"
    if not (alike := [name for name in needing if name in SAME_BLOCKS]):
        return None
    names = ", ".join(alike)
    students = ("mobilenet_v2",) if hyperparameters is None else hyperparameters.words("architecture")
    apart = [name for name in students if ARCHITECTURES[kind_of(name)].taps is None]
    if apart:
        return f"{names}: a student {apart[0]} cannot be taken apart at its blocks; take mobilenet_v2"
    if {teacher.architecture} != set(students) or teacher.input_size is not None:
        needed = f"only a teacher {students[0]} without input_size has blocks that match a student's"
        return f"{names}: {needed}; take the built-in one"
    return None


class Attribution(Frozen):
    """The teacher's Integrated-Gradients maps."""

    n_steps: Steps = "auto"
    """Points on the path from the mean colour to the image; auto: the fewest that order the pixels as 64 do."""
    target: Literal["label", "prediction"] = "label"
    """Which logit is attributed: the image's label, or the teacher's own prediction."""


_PADDING = 4  # pixels, as everybody pads CIFAR-10
_SCALE = (0.35, 1.0)  # torchvision's 0.08 is for ImageNet's million; see docs/experiments.md


class Augmentation(Frozen):
    """Random views of a training image; the teacher and the map see the same view as the student."""

    views: int | None = Field(default=None, ge=1, le=1000, exclude_if=lambda views: views is None)
    """Random resized crops of each image, drawn once, such as 16: for photographs; null: crops by padding."""
    scale: tuple[float, float] | None = Field(
        default=None, validate_default=True, strict=False, exclude_if=lambda scale: scale is None
    )
    """Smallest and largest share of an image's area in a random resized crop; with views, null is [0.35, 1.0]."""
    mixed: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda share: share is None)
    """Share of those crops that another image is blended into or has a box in, the same ones in each trial."""
    crop_padding: int | None = Field(default=None, ge=0, le=32, validate_default=True)
    """Pixels of zero padding on each side before a random crop back to size; null is 4, and 0 with views."""
    horizontal_flip: bool = True
    """Mirror every second view, on average."""

    @field_validator("scale")
    @classmethod
    def _share_of_area(cls, scale: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        if info.data.get("views") is None:
            if scale is not None:
                raise ValueError(f"{list(scale)} is for random resized crops; say how many with views, or remove scale")
            return None
        smallest, largest = scale = scale or _SCALE
        if not 0 < smallest <= largest <= 1:
            raise ValueError(f"{list(scale)} must be two shares of the area, above 0 and at most 1, the smaller first")
        return scale

    @field_validator("mixed")
    @classmethod
    def _boxes_are_mixed(cls, mixed: float | None, info: ValidationInfo) -> float | None:
        if mixed is not None and info.data.get("views") is None:
            raise ValueError(f"{mixed} is for random resized crops; say how many with views, or remove mixed")
        return mixed

    @field_validator("crop_padding")
    @classmethod
    def _one_kind_of_crop(cls, padding: int | None, info: ValidationInfo) -> int:
        boxes = info.data.get("views") is not None
        if boxes and padding:
            raise ValueError(f"{padding} is for crops by padding, and views asks for random resized ones; remove one")
        return padding if padding is not None else 0 if boxes else _PADDING


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
    peak_ram_kb: float | None = Field(default=None, gt=0, exclude_if=lambda limit: limit is None)
    """Most kilobytes (1,024 bytes) that one image and its activations in int8 take at once, layer after layer."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Most milliseconds for one image: the median, measured in PyTorch on one CPU thread of the training host."""

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in self.model_dump().values())


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
    metric: Metric = Field(default="accuracy", exclude_if=lambda metric: metric == "accuracy")
    """Maximised on validation: accuracy, balanced_accuracy (mean recall), or macro_f1."""
    hyperparameters: Hyperparameters
    """What is searched, and what is fixed."""
    limits: Limits = Limits()
    """What the device allows."""
    sampler: Sampler = TpeSampler()
    """How the next configuration is chosen."""
    strata: Strata | None = Field(default=None, exclude_if=lambda strata: strata is None)
    """Sizes that are searched in turn, so that small students are tried and compared among themselves."""
    pruner: Pruner = SuccessiveHalvingPruner()
    """Which trials are stopped early."""
    n_trials: int = Field(default=100, ge=1, le=1_000_000)
    """A total of COMPLETE plus PRUNED trials, over all launches and hosts, controls included."""
    timeout: TimeSpan | None = Field(default=None, exclude_if=lambda timeout: timeout is None)
    """Time from the first launch to the end of the search, such as 8h, pauses included; what runs then waits."""
    controls: tuple[ControlName, ...] = Field(default=("student", "kd", "ig", "kd_ig"), validate_default=True)
    """Fixed trials (student, kd, ig, at, their combinations, paper): first, never pruned, counted in n_trials."""
    known_good: tuple[Configuration, ...] = Field(
        default=(), validate_default=True, exclude_if=lambda configurations: not configurations
    )
    """Configurations that run after the controls, such as {alpha: 0.9}; the sampler chooses what they leave out."""
    max_retries: int = Field(default=3, ge=0)
    """Attempts in a row that ended without one more finished epoch, before the trial fails."""
    max_failures: int = Field(default=5, ge=1)
    """When the last this many ended trials all failed, the study stops with the reason."""
    provenance: Provenance | None = None
    """Written by export."""

    @field_validator("hyperparameters")
    @classmethod
    def _architecture_is_said_once(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        student = info.data.get("student")
        if student is None or settings.words("architecture") == (student.architecture,) or student.architecture is None:
            return settings
        if "architecture" in settings.model_fields_set:
            written = ", ".join(settings.words("architecture"))
            raise ValueError(
                f"architecture is {written} here and {student.architecture} in student; remove one of them"
            )
        return settings.model_copy(update={"architecture": student.architecture})

    @field_validator("hyperparameters")
    @classmethod
    def _weights_can_be_had(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        student = info.data.get("student")
        if student is None or "pretrained" not in settings.words("init"):
            return settings
        given = student.weights if isinstance(student.weights, dict) else {}
        students = settings.words("architecture")
        for name in given.keys() - set(students):  # a choice less needs no weights less, but a misspelt one would
            if hint := did_you_mean(name, [other for other in students if other not in given]):
                raise ValueError(
                    f"init: pretrained, and student.weights names {name!r}, which is no student{hint}; mend it"
                )
        for name in students:
            if student.weights_of(name) is None and find_architecture(name).published is None:
                advice = "write init: random, or name a file in student.weights"
                raise ValueError(f"init: pretrained, and nobody has published weights of {name}; {advice}")
            if student.normalize == "weights" and find_architecture(name).statistics is None:
                advice = "write student.normalize: [[mean x3], [std x3]], or dataset"
                raise ValueError(
                    f"init: pretrained, and what weights of {name} were trained with is not known; {advice}"
                )
        if any(width != 1 for width in settings.corners("width")) and any(
            "width" in find_architecture(name).knobs for name in settings.words("architecture")
        ):
            raise ValueError("init: pretrained, and weights are of networks of full width; write width: 1.0")
        return settings

    @field_validator("hyperparameters")
    @classmethod
    def _mixtures_are_in_no_table(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        teacher = info.data.get("teacher")
        if teacher is not None and teacher.logits == "cached" and settings.always_mixes and settings.using(Role.LOGITS):
            raise ValueError(
                f"{' and '.join(MIXING)} let the teacher be asked about mixtures, which are in no table, "
                "and teacher.logits is cached; write teacher.logits: auto"
            )
        return settings

    @field_validator("hyperparameters")
    @classmethod
    def _images_are_mixed_once(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        augmentation = info.data.get("augmentation")
        if augmentation is not None and augmentation.mixed is not None:
            for name in MIXING:
                if any(value > 0 for value in settings.corners(name)):
                    raise ValueError(
                        f"{name} mixes images in each step, and augmentation.mixed mixes them for good; remove one"
                    )
        return settings

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
        if (reason := _explain_features({**info.data, "hyperparameters": settings}, needing)) is not None:
            raise ValueError(f"{reason}, or leave it out")
        return settings

    @field_validator("hyperparameters")
    @classmethod
    def _something_is_left(cls, settings: Hyperparameters, info: ValidationInfo) -> Hyperparameters:
        neighbors, batch = settings.highest("osakd_neighbors"), min(settings.corners("batch_size"))
        if settings.highest("osakd_weight") > 0 and neighbors >= batch:
            raise ValueError(
                f"osakd_neighbors: {neighbors} of a batch of {batch}, in which an image has {batch - 1} others; "
                "write fewer, or a larger batch_size"
            )
        training = info.data.get("training")
        if training is not None and training.epochs == 1 and settings.highest("labels_alone") > 0:
            raise ValueError("labels_alone: training.epochs is 1, and the first is taught; write 0, or more epochs")
        if settings.highest("frozen_blocks") > 0 and "teacher_prefix" not in settings.words("init"):
            raise ValueError("frozen_blocks: no student begins with the teacher's; write init: teacher_prefix, or 0")
        return settings

    @field_validator("sampler")
    @classmethod
    def _grid_has_an_end(cls, sampler: Sampler, info: ValidationInfo) -> Sampler:
        settings = info.data.get("hyperparameters")
        if settings is not None and sampler.name == "grid":
            if endless := [name for name, setting in settings.searched().items() if setting.points() is None]:
                raise ValueError(f"grid needs a step or choices for {', '.join(endless)}; give them, or take qmc")
            if (size := settings.grid_size()) > LARGEST_GRID:
                raise ValueError(f"the grid has {size:,} configurations, above {LARGEST_GRID:,}; take qmc or tpe")
        return sampler

    @field_validator("strata")
    @classmethod
    def _strata_can_be_drawn_for(cls, strata: Strata | None, info: ValidationInfo) -> Strata | None:
        limits, sampler = info.data.get("limits"), info.data.get("sampler")
        if strata is None or limits is None or sampler is None:  # refused already
            return strata
        if (reason := strata.refused(list(limits), sampler.name)) is not None:
            raise ValueError(reason)
        return strata

    @field_validator("controls")
    @classmethod
    def _controls_fit(cls, controls: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(controls)) < len(controls):
            raise ValueError(f"{', '.join(controls)}: one is there twice; write each once")
        needing = [name for name in controls if name in controls_using(Role.FEATURES)]
        if (reason := _explain_features(info.data, needing)) is not None:
            raise ValueError(f"{reason}, or leave them out")
        n_trials = info.data.get("n_trials")
        if n_trials is not None and len(controls) > n_trials:
            raise ValueError(
                f"{len(controls)} controls do not fit into n_trials {n_trials}; raise n_trials or drop controls"
            )
        return controls

    @field_validator("known_good")
    @classmethod
    def _known_good_fits(
        cls, configurations: tuple[Configuration, ...], info: ValidationInfo
    ) -> tuple[Configuration, ...]:
        settings, controls, n_trials = (info.data.get(key) for key in ("hyperparameters", "controls", "n_trials"))
        if settings is None or controls is None or n_trials is None:  # refused already
            return configurations
        for number, values in enumerate(configurations, start=1):
            if faults := misfits(values, settings):
                raise ValueError(f"configuration {number}: {'; '.join(faults)}; mend it, or widen the search space")
        first, sampler = len(controls) + len(configurations), info.data.get("sampler")
        grid = sampler is not None and sampler.name == "grid" and settings.searched()
        if grid and n_trials - first > (size := settings.grid_size()):
            raise ValueError(
                f"n_trials is {n_trials}, the grid has {size} configurations, and {first} run before it; "
                f"write n_trials: {size + first}"
            )
        if first > n_trials:
            raise ValueError(
                f"{len(configurations)} configurations and {len(controls)} controls do not fit into n_trials "
                f"{n_trials}; raise n_trials, or drop some"
            )
        return configurations

    def without_room(self, n_trials: int) -> str | None:
        """Say which of the trials that the file gives do not fit into so many, and what to do; None where all do."""
        if n_trials >= len(self.controls) + len(self.known_good):
            return None
        known = f" and {len(self.known_good)} of known_good" if self.known_good else ""
        return f"{len(self.controls)} controls{known}; give more, or drop some"

    def uses(self, role: Role) -> bool:
        """Return whether any trial, controls included, can ask for this of the teacher."""
        return bool(self.hyperparameters.using(role)) or not controls_using(role).isdisjoint(self.controls)

    def without_controls(self) -> "Study":
        """Return it without controls, so that of the teacher nothing is made that only they would ask for."""
        return self.model_copy(update={"controls": ()})

    @property
    def seconds(self) -> int | None:
        """Return the seconds of `timeout`; None without one."""
        return None if self.timeout is None else seconds_of(self.timeout)

    @property
    def is_search(self) -> bool:
        """Whether any hyperparameter is a range."""
        return bool(self.hyperparameters.searched())
