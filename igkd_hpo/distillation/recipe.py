"""The settings of one training."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training gives, beside the data, the networks and the machine."""

    epochs: int
    batch_size: int  # 2 or more
    optimizer: str  # sgd, adam or adamw
    schedule: str  # constant, cosine or one_cycle
    learning_rate: float  # the highest of the schedule
    weight_decay: float
    temperature: float
    alpha: float  # share of the distillation term, 0 to 1
    objective: str = "kd"  # the distillation term, one of `objectives`
    dkd_beta: float = 2.0  # of the objective dkd, 0 or above
    attention_weight: float = 0.0  # this weight and the next three are of the terms that are added; 0 leaves a term out
    attention_depths: str = "middle"  # middle, last or stages
    hint_weight: float = 0.0
    teacher_tail_weight: float = 0.0
    attribution_weight: float = 0.0
    overlay_probability: float  # share of the samples that get an overlay, 0 to 1
    overlay_strength: float  # share of the map in an overlay, 0 to 1
    crop_padding: int  # pixels
    horizontal_flip: bool
    seed: int  # 0 or more; order, views and overlays follow from it, the initial weights are the caller's
    precision: str  # float32, bfloat16 or float16
    channels_last: bool
    compile: str = "none"  # none, cuda_graph, or auto: a CUDA graph where it can be had, is right and is faster
    overlay_mode: str = "blend"  # blend, multiply or background
    alignment: str = "aligned"  # aligned, reference_shuffled, permuted_maps, smooth_noise or mean_map
    ema_decay: float = 0.0  # of the averaged weights, below 1; 0 keeps the last weights
    label_smoothing: float = 0.0  # of the cross-entropy term, 0 to 1
    cutout: int = 0  # side of the square that is cut out of the student's view, in pixels
    flip: str = "random"  # random or alternating
    decay: str = "all"  # all, or weights: no weight decay on batch normalisation and biases

    @property
    def uses_logits(self) -> bool:
        """Whether the loss needs the teacher's logits."""
        return self.alpha > 0 or self.teacher_tail_weight > 0

    @property
    def uses_features(self) -> bool:
        """Whether the loss needs what the teacher's blocks give."""
        return self.attention_weight > 0 or self.hint_weight > 0 or self.teacher_tail_weight > 0

    @property
    def uses_maps(self) -> bool:
        """Whether the student's images or its loss need attribution maps."""
        return self.overlay_probability > 0 or self.attribution_weight > 0
