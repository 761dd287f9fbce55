"""The teacher of a first study: fine-tuned from published weights where they can be had, else trained here."""

from collections.abc import Sequence
from dataclasses import dataclass

from igkd_hpo.starting.budget import affordable
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.starting.networks import FROM_LIBRARIES, Machine, Network, Survey, given_teachers, own_teachers
from igkd_hpo.starting.size import Sizing
from igkd_hpo.starting.weights import Place

_LARGEST_INPUT = {"cpu": 128, "cuda": 224}
_INPUTS = (224, 192, 160, 128, 96, 64)  # pixels: networks that reduce an image 32 times fit these


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The teacher that a person asked for: a name, and a file of its weights or None for published ones."""

    architecture: str
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """A teacher.

    Args:
        network: with the side of its input.
        weights: that it begins with, as in a study file; None: random ones.
        because: why it and no other.
    """

    network: Network
    weights: str | None
    because: str


def candidates(
    images: ImageFacts, machine: Machine, sizing: Sizing, places: dict[str, Place], wanted: Wanted | None
) -> list[TeacherPlan]:
    """Return the teachers that can be had, the best of one kind first: others cost less.

    Args:
        places: where weights can be had.
        wanted: asked for, with weights that can be had.
    """
    if wanted is not None:
        weights, because = wanted.weights or "pretrained", "asked for"
        if wanted.weights is None and (place := places[wanted.architecture]).file is not None:
            weights, because = place.file or "", f"asked for; its weights are those {place.told}"
        return [
            TeacherPlan(network=Network(wanted.architecture, (), side), weights=weights, because=because)
            for side in _inputs(images, machine, sizing)
        ]
    known = [name for name in given_teachers(machine) if name in places]
    if sizing.side >= FROM_LIBRARIES and known:
        place = places[known[0]]
        because = f"begins with published weights, {place.told}, and is trained on these images"
        return [
            TeacherPlan(network=Network(known[0], (), side), weights=place.file or "pretrained", because=because)
            for side in _inputs(images, machine, sizing)
        ]
    because = "trained here from random weights: no published ones can be had here; --teacher and --weights name some"
    if sizing.side < FROM_LIBRARIES:
        because = f"trained here: published weights are of networks for larger images than {sizing.side} pixels"
    return [TeacherPlan(network=network, weights=None, because=because) for network in own_teachers(sizing.side)]


def choose_teacher(plans: Sequence[TeacherPlan], survey: Survey, n_train: int) -> TeacherPlan:
    """Return the first teacher that can be trained in its share of the time; the cheapest where none can."""
    timed = [(plan, time) for plan in plans if (time := survey.time(plan.network)) is not None]
    within = [plan for plan, time in timed if affordable(time, n_train=n_train, given=plan.weights is not None)]
    cheapest = min(timed, key=lambda pair: pair[1].training, default=(plans[-1], None))[0]
    return within[0] if within else cheapest


def _inputs(images: ImageFacts, machine: Machine, sizing: Sizing) -> list[int]:
    """Return the sides that a teacher from a library may see the files at, the largest first."""
    own = images.long if sizing.fit == "pad" else images.short
    most = max(sizing.side, FROM_LIBRARIES, min(own, _LARGEST_INPUT[machine.kind]))
    sides = [side for side in _INPUTS if sizing.side <= side <= most]
    return sides or [most]
