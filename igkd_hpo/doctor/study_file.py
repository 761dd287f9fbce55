"""A study file that is valid, and still would not do what it says; what `validate` and `doctor` share."""

from collections.abc import Iterator

from igkd_hpo.config.hyperparameters import NEEDS
from igkd_hpo.config.space import shown
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, ok, warning

_GROUP = "study"


def check_study_file(study: Study) -> list[Check]:
    """What a valid study file says, and what in it cannot have an effect."""
    searched = study.hyperparameters.searched()
    what = (
        f"searches {', '.join(searched)}" if searched else "searches nothing; its trials are seeds of one configuration"
    )
    return [
        ok(_GROUP, "file", f"valid; {what}; {study.n_trials} trials"),
        _check("search space", "every range can change the result", list(_idle_ranges(study))),
        _check("pruner", "bad trials are stopped early", list(_idle_pruner(study))),
        _check("trials", "the controls leave trials to search with", list(_no_trials_left(study))),
    ]


def _check(name: str, fine: str, problems: list[tuple[str, str]]) -> Check:
    if not problems:
        return ok(_GROUP, name, fine)
    return warning(_GROUP, name, "; ".join(found for found, _ in problems), "; ".join(todo for _, todo in problems))


def _idle_ranges(study: Study) -> Iterator[tuple[str, str]]:
    settings = study.hyperparameters
    searched = settings.searched()
    for name, others in NEEDS.items():
        if name in searched and all(settings.highest(other) == 0 for other in others):
            weights = " and ".join(others)
            verb = "is" if len(others) == 1 else "are"
            yield f"{name} is searched while {weights} {verb} always 0", f"fix {name}, or let {others[0]} be above 0"
    if "dkd_beta" in searched and "dkd" not in settings.words("objective"):
        yield "dkd_beta is searched while objective is never dkd", "fix dkd_beta, or let objective be dkd"
    if "alternating" in settings.words("flip") and not study.augmentation.horizontal_flip:
        yield "flip is alternating while nothing is mirrored", "leave flip out, or set augmentation.horizontal_flip"
    acting = max(
        settings.highest("alpha"), settings.highest("overlay_probability"), settings.highest("attribution_weight")
    )
    if set(settings.words("alignment")) != {"aligned"} and acting == 0:
        yield "alignment has nothing to act on: alpha and overlay_probability are 0", "raise one of them"
    for name, setting in searched.items():
        if len(set(setting.corners())) == 1:
            yield (
                f"{name} is searched in a range of one value",
                f"write {name}: {shown(setting.corners()[0])}, or widen it",
            )


def _idle_pruner(study: Study) -> Iterator[tuple[str, str]]:
    grace = getattr(study.pruner, "grace_period", None)
    if grace is not None and grace >= study.training.epochs and study.is_search:
        yield (
            f"no trial can be stopped: grace_period {grace} is not below training.epochs {study.training.epochs}",
            "lower pruner.grace_period, or write pruner: {name: none}",
        )


def _no_trials_left(study: Study) -> Iterator[tuple[str, str]]:
    if study.is_search and study.n_trials <= len(study.controls):
        yield (
            f"the {len(study.controls)} controls take all of n_trials {study.n_trials}: nothing is searched",
            "raise n_trials",
        )
