"""The declaration of a hyperparameter, in one place; everything else about it is derived from that."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from types import ModuleType

Value = int | float | str


class Role(StrEnum):
    """The part of a training that a hyperparameter acts on; the first three are what a teacher gives."""

    LOGITS = "logits"
    MAPS = "maps"
    FEATURES = "features"
    ARCHITECTURE = "architecture"
    TRAINING = "training"


@dataclass(frozen=True)
class Hyperparameter:
    """The declaration of one hyperparameter of a study file.

    Args:
        help: its meaning, in its unit, for the reference of the study file.
        also: what else of the teacher it asks for.
        low: the least value of a number, which itself is not allowed where `above`; `high` is the greatest.
        words: all values that it can take, where it is no number.
        check: raises ValueError for a word that it cannot take, where it can take more words than can be listed.
        default: of the study file; None where every file must say it.
        off: the value that takes it out of a training: a control or an ablation without its role has it. A number
            that 0 turns off is called a weight.
        kept: words that ask nothing of the teacher, and that a control therefore has as the study has them.
        same_blocks: whether the teacher's first blocks must have the structure of the student's.
        needs: weights, or roles for all weights that ask for them; while all of these are 0 it has no effect.
        later: a study file is written without it at its default, so that earlier studies keep their fingerprints.
    """

    help: str
    role: Role
    _: KW_ONLY
    also: tuple[Role, ...] = ()
    low: float = 0
    high: float = 1
    above: bool = False
    whole: bool = False
    words: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None
    default: Value | None = None
    off: Value | None = None
    kept: tuple[str, ...] = ()
    same_blocks: bool = False
    needs: tuple[str, ...] = ()
    later: bool = False

    @property
    def is_weight(self) -> bool:
        """Return whether 0 turns it off."""
        return self.off == 0

    @property
    def is_word(self) -> bool:
        """Return whether it is no number."""
        return bool(self.words) or self.check is not None

    def cast(self, value: Value) -> Value:
        """Return the value in the type that the training takes: an integer may stand for a real number."""
        return str(value) if self.is_word else int(value) if self.whole else float(value)


def declared_in(file: ModuleType) -> Mapping[str, Hyperparameter]:
    """Return the hyperparameters that a file declares as its own, by name."""
    declared: Mapping[str, Hyperparameter] = getattr(file, "HYPERPARAMETERS", {})
    return declared
