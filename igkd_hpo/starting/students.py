"""The students of a first study: those that keep the limits of the device, and of these, those worth searching."""

from collections.abc import Sequence

from igkd_hpo.config.cost import StudentCost, excess, why_infeasible
from igkd_hpo.config.study import Limits
from igkd_hpo.errors import UsageError
from igkd_hpo.starting.networks import BUILT_IN, Network, Survey

MOST = 3
"""Architectures in one study: each needs trials of its own."""
_TINY = 1_000_000  # parameters, where nobody said a limit


def fitting_students(
    networks: Sequence[Network], survey: Survey, limits: Limits, *, below: int | None
) -> list[Network]:
    """Return the students to choose from, the best first, all with as much removed.

    Without limits these are small ones in an order of preference; with limits the largest that keep them come first.
    Of networks from a library, those whose weights can be had come alone where there are any.

    Args:
        networks: in the order of preference; what is not in the survey cannot be built here.
        below: parameters of the teacher, which a student must not reach; None where they are not known.

    Raises UsageError where no student keeps the limits; the nearest is named.
    """
    known = [network for network in networks if network in survey.costs]
    if not limits.any and known[0].architecture != BUILT_IN:  # nothing asks for less than a whole network
        known = [network for network in known if network.knobs == known[0].knobs]
    allowed = limits if limits.any else Limits(parameters=_TINY)
    fitting = [network for network in known if why_infeasible(allowed, survey.costs[network]) is None]
    if not fitting and not limits.any:  # of so many classes the classifier alone is larger
        fitting = known
    if not fitting:
        raise _nothing_fits(known, survey, allowed)
    smaller = [network for network in fitting if below is None or survey.costs[network].parameters < below]
    fitting = smaller or fitting[-1:]
    if fitting[0].architecture == BUILT_IN:
        return fitting
    removed = fitting[0].knobs
    alike = [network for network in fitting if network.knobs == removed]
    if limits.any:
        alike.sort(key=lambda network: -survey.costs[network].parameters)
    with_weights = [network for network in alike if network.architecture in survey.weights]
    return (with_weights or alike)[:MOST]


def _nothing_fits(networks: Sequence[Network], survey: Survey, limits: Limits) -> UsageError:
    def beyond(network: Network) -> float:
        return max(excess(limits, survey.costs[network]).values())

    nearest = min(networks, key=beyond)
    cost: StudentCost = survey.costs[nearest]
    return UsageError(
        f"no student here keeps the limits: the nearest, {nearest.shown}, has {why_infeasible(limits, cost)}; raise "
        "the limit, or name a network of your own in a study file"
    )
