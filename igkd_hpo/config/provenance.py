"""Origin of an exported study file, and the settings of the machine that decided its last bits."""

from typing import Literal

from pydantic import ConfigDict, Field

from igkd_hpo.config.space import Frozen

MemoryFormat = Literal["channels_last", "contiguous"]


class Execution(Frozen):
    """Settings of a machine that decide a result's last bits; recorded with each trial and used again by `train`."""

    device: str
    """Where it was trained: cpu, cuda:0 …"""
    threads: int = Field(ge=1)
    """Threads of the training."""
    precision: Literal["float32", "bfloat16", "float16"]
    """What training.precision came to."""
    memory_format: MemoryFormat
    """Layout of the images in memory."""
    compile: Literal["auto", "none", "cuda_graph"]
    """What training.compile came to."""
    torch: str
    """Version of PyTorch."""
    processor: str | None = None
    """Model and instruction set of the CPU, or model of the GPU. This and the rest is null in older records."""
    logits: Literal["cached", "online"] | None = None
    """What teacher.logits came to."""
    n_steps: int | None = None
    """What attribution.n_steps came to; null without maps."""
    map_points: int | None = None
    """Points that went through the teacher at once when the maps were made; null without maps."""
    map_precision: Literal["float32", "bfloat16"] | None = None
    """Precision of the maps' making; null without maps."""
    pointwise: Literal["convolution", "matmul"] | None = None
    """How 1x1 convolutions were computed; null is as convolutions."""
    teacher_threads: int | None = None
    """Threads of the teacher's training on a CPU; null where it was given, or trained on a GPU."""


class Provenance(Frozen):
    """Origin of an exported file. Facts only: nothing here changes what runs, but `train` uses `execution`."""

    model_config = ConfigDict(extra="allow")

    study: str
    """Name of the study that was exported."""
    trial: int = Field(ge=0)
    """Number of the trial."""
    validation_accuracy: float = Field(ge=0, le=1)
    """Its value of the file's metric on the validation split, as a fraction."""
    execution: Execution | None = None
    """What of the machine decides the last bits of a result."""
