"""Choice of the trial to take home: that of a confirmation, or the best so far where nothing was confirmed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from igkd_hpo.config.cost_limit import under_as_flags, under_in_words
from igkd_hpo.confirmation.confirmation import Confirmation, ConfirmedArm, confirmation_of, read_confirmation
from igkd_hpo.distillation.metrics import measured
from igkd_hpo.search.best import BestTrial, best_trial, result, summary, trained_trial
from igkd_hpo.search.confirmation_study import Arm, open_confirmation, parent_of
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.search.trial_cost import select_under
from igkd_hpo.words import percent


def best_or_confirmed(study: SearchStudy, *, under: Mapping[str, float] = {}) -> tuple[SearchStudy, BestTrial]:
    """Return the trial that export takes, and the study that trained it.

    Args:
        under: limits to its costs, by their names. Within them the search's best is taken, or what a confirmation
            chooses where that configuration is among the confirmed ones.

    Raises:
        NoCompletedTrial: there is none, or none is within the limits; the nearest is told.
    """
    if study.purpose == "ladder":  # whose best trial is the luckiest seed of its largest student
        study = parent_of(study)
    if not under:
        confirmation = confirmation_of(study)
        return (study, best_trial(study)) if confirmation is None else confirmed_trial(study, confirmation)
    searched = parent_of(study)
    best = best_trial(searched, under=under)
    confirmation = confirmed_under(searched, best)
    if confirmation is None:
        return searched, best
    linked, chosen = confirmed_trial(searched, confirmation)
    return linked, dataclasses.replace(chosen, under=best.under, remarks=best.remarks)


def confirmed_under(study: SearchStudy, best: BestTrial) -> Confirmation | None:
    """Read the confirmation of what is within the limits of `best`; None where `best` itself was not confirmed.

    A configuration of the search costs what was recorded there: timed again, it may be beyond a limit by chance.
    """
    linked = study if study.confirms is not None else open_confirmation(study.storage, study.name)
    if linked is None:
        return None
    searched, tested = study.trials(), linked.trials()

    def is_within(arm: ConfirmedArm) -> bool:
        of_search = arm.trial is not None and study.confirms is None
        trial = searched[arm.trial or 0] if of_search else tested[arm.trials[0]]
        return bool(select_under([trial], best.under).within)

    confirmation = read_confirmation(linked, is_within)
    config = study.config.hyperparameters
    key = Arm(names=("",), kinds=("",), hyperparameters=config.fixed() | dict(best.hyperparameters)).training_key
    if confirmation is None or key not in [arm.training_key for arm in confirmation.arms]:
        return None
    return confirmation


def summary_under(study: SearchStudy, under: Mapping[str, float]) -> str:
    """Sum up the best of a study within limits, and what its confirmation takes there. Raises NoCompletedTrial."""
    best = best_trial(study, under=under)
    if (confirmation := confirmed_under(study, best)) is None:
        return summary(study, under=under)
    taken = describe_trial(*confirmed_trial(study, confirmation))
    lines = result(study, best).splitlines()
    take = "take" if not confirmation.inconclusive else "for now"
    return "\n".join([f"{take} {taken}", *lines, f"`igkd-hpo export {study.name}{under_as_flags(under)}` writes it"])


def confirmed_trial(study: SearchStudy, confirmation: Confirmation) -> tuple[SearchStudy, BestTrial]:
    """Return the first seed of the arm that a confirmation chose, and the linked study, which trained it.

    Its `confirmed` holds the results of all seeds, as the provenance of an exported file does; fractions.
    """
    linked = study if study.purpose == "confirm" else open_confirmation(study.storage, study.name)
    assert linked is not None, "there is a confirmation, so there is its study"
    arm = confirmation.arm(confirmation.chosen)
    facts = {
        "study": confirmation.study,
        "arm": " = ".join(arm.names),
        "trial": arm.trial,
        "n_seeds": len(arm.seeds),
        "seeds": list(arm.seeds),
        "test_accuracy": arm.test.mean.value,
        "test_interval": [arm.test.mean.low, arm.test.mean.high],
        "test_images": confirmation.n_test_images,
        "validation_accuracy": arm.validation.mean.value,
        "validation_accuracies": list(arm.validation.accuracies),
        "metric": confirmation.metric,
        "named": confirmation.named,
        "inconclusive": confirmation.inconclusive,
        "equal": [confirmation.arm(number).name for number in confirmation.tie_set if number != arm.number],
    }
    return linked, dataclasses.replace(trained_trial(linked, arm.trials[0]), control=None, confirmed=facts)


def describe_trial(study: SearchStudy, best: BestTrial) -> str:
    """Say which trial it is, and whether it was confirmed."""
    if best.confirmed is None:
        reached = measured(best.validation_accuracy, best.metric)
        limited = f" with {under_in_words(best.under)}" if best.under else ""
        return (
            f"trial {best.number} of {study.name}, {reached} on validation, best so far{limited} "
            "(not confirmed with fresh seeds)"
        )
    return confirmed_in_words(best.confirmed)


def confirmed_in_words(facts: Mapping[str, Any]) -> str:
    """Say how a configuration was confirmed, from the facts that a `BestTrial` and an exported file hold."""
    low, high = facts["test_interval"]
    reached = measured(facts["test_accuracy"], facts.get("metric", "accuracy"))
    equal = f"; it cannot be told from {', '.join(facts['equal'])}" if facts["equal"] else ""
    if facts.get("inconclusive"):  # older files do not say it
        equal += "; nothing can be told yet, more seeds or epochs are needed"
    return (
        f"{facts['arm']} of {facts['study']}, confirmed with {facts['n_seeds']} fresh seeds: "
        f"{reached} on {facts['test_images']:,} test images on average "
        f"({percent(low)} to {percent(high)}){equal}"
    )
