"""Contents of a bundle, and the record in it of what its files must be and what they were measured to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from igkd_hpo.config.space import Frozen
from igkd_hpo.distillation.metrics import Metric
from igkd_hpo.documents import DocumentError, file_inside, read_bounded
from igkd_hpo.errors import DataError, UsageError
from igkd_hpo.files import sha256_of

STUDY = "best.yaml"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
CARD = "MODEL_CARD.md"
RECORD = "verify.json"


class Figures(Frozen):
    """Measurements of one ONNX file, in onnxruntime on the CPU of the machine that made the bundle.

    Accuracies (see `Expected.metric`) and agreement are fractions, latencies milliseconds for one image on one thread.
    """

    validation_accuracy: float
    test_agreement: float
    """Share of the test images on which the answer is that of the float network in PyTorch; labels are not read."""
    test_images: int
    largest_logit_difference: float
    """On those images."""
    validation_images: int | None = None
    """None in a bundle from before these three were counted."""
    lost: int | None = None
    """Validation images that the float network in PyTorch gets right and this file does not."""
    gained: int | None = None
    """The other way round."""
    latency_ms: float
    latency_ms_p95: float
    bytes: int


class Quantisation(Frozen):
    """A way to make int8 of a float file, and how often its answers are those of the float file."""

    weights: Literal["per channel", "per tensor"]
    """What shares a scale."""
    activations: Literal["min-max", "percentile"]
    """Their ranges: all that calibration showed, or but for the outermost hundred-thousandth."""
    calibrated_on: int
    """Training images."""
    agreement: float
    """A fraction of `images`."""
    images: int
    """Training images that were not calibrated with; their labels are not read."""
    kept: bool
    """Whether the bundle's file is this one."""


class Expected(Frozen):
    """Value of the study's metric to expect of training the bundle's study once more."""

    validation_accuracy: float
    """The mean of the runs, a fraction."""
    runs: int
    low: float
    high: float
    seed: int
    """That `verify` trains with."""
    basis: str
    """Where low and high come from, in a sentence."""
    metric: Metric = Field(default="accuracy", exclude_if=lambda metric: metric == "accuracy")
    """Of the study, which every validation_accuracy of the record is a value of."""

    def holds(self, accuracy: float) -> bool:
        """Tell whether an accuracy is from low to high, both included, but for rounding."""
        return self.low - 1e-9 <= accuracy <= self.high + 1e-9


class Record(Frozen):
    """Content of verify.json: enough to see that nothing was changed, and to repeat what is claimed."""

    format: Literal[1] = 1
    study: str
    trial: int
    created: str
    files: dict[str, str]
    """SHA-256 of each of the other files, in hexadecimal."""
    expected: Expected
    opset: int
    onnx: Figures
    int8: Figures
    quantisations: tuple[Quantisation, ...] = ()
    """All that were tried; none in a bundle from before there was a choice."""
    versions: dict[str, str | None]


def read_record(bundle: Path) -> Record:
    """Read the record of a bundle.

    Raises:
        UsageError: there is no bundle.
        DataError: the record is damaged.
    """
    path = bundle / RECORD
    if not path.exists():
        raise UsageError(f"{bundle} is no bundle: it has no {RECORD}; `igkd-hpo export --bundle DIR` makes one")
    try:
        with file_inside(bundle, RECORD).open("rb") as file:
            return Record.model_validate_json(read_bounded(file))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give the folder of a bundle") from error
    except DocumentError as error:
        raise DataError(f"{path} {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is damaged ({where}: {first['msg']}); export the bundle again") from None


def check_files(bundle: Path, record: Record, names: Sequence[str] | None = None) -> None:
    """Raise DataError where a file of the bundle (of these names, if given) is missing, was changed or lies elsewhere.

    What lies elsewhere is not opened: a bundle may come from anybody, and name any file of the machine.
    """
    for name in dict.fromkeys([STUDY, *record.files]) if names is None else names:
        try:
            changed = record.files.get(name) != sha256_of(file_inside(bundle, name))
        except DocumentError as error:
            raise DataError(f"{bundle}: the file {name!r} {error}; export the bundle again") from None
        except OSError as error:
            raise DataError(f"{bundle / name} cannot be read: {error.strerror}; export the bundle again") from error
        if changed:
            raise DataError(f"{bundle / name} was changed after it was exported; export the bundle again")
