"""How much of the teacher's reasons the confirmed students kept: the figures, as the database holds them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from igkd_hpo.confirmation.statistics import Estimate

ATTRIBUTE = "explanations"
"""Of the linked study; it holds an `Explanations` as plain JSON values."""

CEILINGS = {
    "teachers": "two of the teachers",
    "mirrored": "the teacher on the mirrored image",
    "shifted": "the teacher on the shifted image",
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of maps with the teacher's, the mean over images and networks.

    Args:
        correlation: Spearman's rank correlation of the pixels, -1 to 1.
        overlap: share of the brightest tenth of the pixels that is the same, 0 to 1.
    """

    correlation: Estimate
    overlap: Estimate


@dataclass(frozen=True, kw_only=True)
class ExplainedArm:
    """Maps of one arm of the confirmation, the mean over its seeds and the images.

    Args:
        number, name: of the arm.
        trials: whose networks were explained, by their numbers in the linked study.
        deletion, insertion: areas of its own maps, 0 to 1, see `removal_areas`; `_by_lot` with pixels in random order.
        sensitivity: to small noise, 0 or above, see `map_sensitivity`; None with one image.
    """

    number: int
    name: str
    trials: tuple[int, ...]
    agreement: Agreement
    deletion: Estimate
    deletion_by_lot: Estimate
    insertion: Estimate
    insertion_by_lot: Estimate
    sensitivity: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One of the images, from the least agreement with the teacher to the most.

    Args:
        row: of the validation images.
        correlation: of the first explained arm's maps with the teacher's, the mean over its seeds.
    """

    row: int
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Agreement of the students' maps with the teacher's on validation images, between a floor and a ceiling.

    Args:
        arms: the search's best, the same without IG, plain training, and the one that export takes, each once.
        subject: number of the search's best; `without` that of the same without IG, None where it has no IG.
        difference: rank correlation of the subject minus that of `without`; None where one of them is missing.
        verdict: keeps (IG brings the maps closer to the teacher's), loses, unknown (the interval of the difference
            includes 0), absent (the subject has no IG), or untested (an arm diverged or is not there yet).
        shuffled: floor: the subject's maps against the teacher's of other images; None with one image.
        untrained: floor: the subject's networks with random weights, one for each of its seeds.
        ceiling, ceiling_of: what another look of the teacher reaches, and which, a key of CEILINGS; None without.
        n_images: of the validation split, all of which the teacher gets right; `n_sensitivity` of them for sensitivity.
        n_steps: of each map.
        measured: when (ISO 8601, UTC).
    """

    arms: tuple[ExplainedArm, ...]
    subject: int
    without: int | None
    difference: Estimate | None
    verdict: str
    shuffled: Agreement | None
    untrained: Agreement
    ceiling: Agreement | None
    ceiling_of: str | None
    n_images: int
    n_sensitivity: int
    n_steps: int
    examples: tuple[Example, ...]
    measured: str

    def arm(self, number: int | None) -> ExplainedArm | None:
        """Return the arm of this number, if it was explained."""
        return next((arm for arm in self.arms if arm.number == number), None)

    def against_untrained(self, arm: ExplainedArm) -> str:
        """Return whether an arm's maps agree with the teacher's more than those of random weights do.

        above or below where the intervals do not meet, else unknown. That asks for more than a test of the difference.
        """
        own, floor = arm.agreement.correlation, self.untrained.correlation
        if own.low > floor.high:
            return "above"
        return "below" if own.high < floor.low else "unknown"

    @property
    def floors(self) -> tuple[tuple[str, Agreement], ...]:
        """Return what needs no reasons of the teacher, each with a name for people."""
        named = (("maps of other images", self.shuffled), ("random weights", self.untrained))
        return tuple((f"floor: {name}", one) for name, one in named if one is not None)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def read_explanations(attributes: Mapping[str, Any]) -> Explanations | None:
    """Return what the attributes of a linked study hold; None where nothing was explained yet."""
    kept = attributes.get(ATTRIBUTE)
    return None if kept is None else TypeAdapter(Explanations).validate_python(kept)


def judge(without: int | None, difference: Estimate | None) -> str:
    """Return the verdict on IG, see `Explanations`."""
    if without is None:
        return "absent"
    if difference is None:
        return "untested"
    if difference.low <= 0 <= difference.high:
        return "unknown"
    return "keeps" if difference.value > 0 else "loses"
