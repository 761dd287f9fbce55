"""Choice of the trial to take home: that of a confirmation, or the best so far where nothing was confirmed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from igkd_hpo.confirm.confirmation import Confirmation, confirmation_of
from igkd_hpo.distillation.metrics import measured
from igkd_hpo.search.best import BestTrial, best_trial, trained_trial
from igkd_hpo.search.confirmation_study import open_confirmation, parent_of
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.words import percent


def best_or_confirmed(study: SearchStudy) -> tuple[SearchStudy, BestTrial]:
    """Return the trial that export takes, and the study that trained it. Raises NoCompletedTrial."""
    if study.purpose == "ladder":  # whose best trial is the luckiest seed of its largest student
        study = parent_of(study)
    confirmation = confirmation_of(study)
    return (study, best_trial(study)) if confirmation is None else confirmed_trial(study, confirmation)


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
        "equal": [confirmation.arm(number).name for number in confirmation.tie_set if number != arm.number],
    }
    return linked, dataclasses.replace(trained_trial(linked, arm.trials[0]), control=None, confirmed=facts)


def describe_trial(study: SearchStudy, best: BestTrial) -> str:
    """Say which trial it is, and whether it was confirmed."""
    if best.confirmed is None:
        reached = measured(best.validation_accuracy, best.metric)
        return (
            f"trial {best.number} of {study.name}, {reached} on validation, best so far "
            "(not confirmed with fresh seeds)"
        )
    return confirmed_in_words(best.confirmed)


def confirmed_in_words(facts: Mapping[str, Any]) -> str:
    """Say how a configuration was confirmed, from the facts that a `BestTrial` and an exported file hold."""
    low, high = facts["test_interval"]
    reached = measured(facts["test_accuracy"], facts.get("metric", "accuracy"))
    equal = f"; as good, as far as can be told: {', '.join(facts['equal'])}" if facts["equal"] else ""
    return (
        f"{facts['arm']} of {facts['study']}, confirmed with {facts['n_seeds']} fresh seeds: "
        f"{reached} on {facts['test_images']:,} test images on average "
        f"({percent(low)} to {percent(high)}){equal}"
    )
