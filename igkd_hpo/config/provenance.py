"""Origin of an exported study file, and the settings of the machine that decided its last bits."""

from typing import Literal

from pydantic import ConfigDict, Field

from igkd_hpo.config.space import Frozen


class Execution(Frozen):
    """Settings of a machine that decide a result's last bits; recorded with each trial and used again by `train`."""

    device: str
    """Where it was trained: cpu, cuda:0 …"""
    threads: int = Field(ge=1)
    """Threads of the training."""
    precision: Literal["float32", "bfloat16", "float16"]
    """What training.precision came to."""
    memory_format: Literal["channels_last", "contiguous"]
    """Layout of the images in memory."""
    compile: Literal["auto", "none", "cuda_graph"]
    """What training.compile came to."""
    torch: str
    """Version of PyTorch."""


class Provenance(Frozen):
    """Origin of an exported file. Facts only: nothing here changes what runs, but `train` uses `execution`."""

    model_config = ConfigDict(extra="allow")

    study: str
    """Name of the study that was exported."""
    trial: int = Field(ge=0)
    """Number of the trial."""
    validation_accuracy: float = Field(ge=0, le=1)
    """Its accuracy on the validation split, as a fraction."""
    execution: Execution | None = None
    """What of the machine decides the last bits of a result."""
