"""Checks of a valid study file that still would not do what it says, shared by `validate` and `doctor`."""

from collections.abc import Iterator
from pathlib import Path

from igkd_hpo.assets.checkpoint_file import find_format
from igkd_hpo.config.pruner import SuccessiveHalvingPruner, grace_of_few
from igkd_hpo.config.space import shown
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture, kind_of
from igkd_hpo.distillation.recipe import KNOB_OF, SETTING_OF, needs
from igkd_hpo.doctor.check import Check, failed, grade, ok, warning
from igkd_hpo.errors import DataError
from igkd_hpo.settings import Settings
from igkd_hpo.sources import find_source
from igkd_hpo.words import counted

_GROUP = "study"
_TRIALS_EACH = 20  # of an architecture, before a sampler knows anything of its other hyperparameters
_MANY = 8  # architectures in one study; more are compared better in studies of their own
_MANY_TRIALS = 40  # that are searched, from which on the default pruner is no worse, see `grace_of_few`


def check_study_file(study: Study) -> list[Check]:
    """Check a valid study file: say in words what it does, and warn of what in it cannot have an effect."""
    searches = ", ".join(study.hyperparameters.searched()) or "nothing; its trials are seeds of one configuration"
    return [
        ok(_GROUP, "file", f"valid; searches {searches}; {counted(study.n_trials, 'trial')}"),
        _check("search space", "every range can change the result", list(_idle_ranges(study))),
        _check("pruner", "bad trials are stopped early", list(_doubtful_pruner(study))),
        _check("trials", "the controls leave trials to search with", list(_no_trials_left(study))),
        *_architectures(study),
        *_pretrained(study),
    ]


def check_weights(study: Study, settings: Settings) -> list[Check]:
    """Check files of checkpoints and weights from outside: the part of the networks' checks that needs no images."""
    teacher, student = study.teacher, study.student
    named = [("teacher.checkpoint", name) for name in teacher.checkpoints]
    if teacher.weights not in (None, "pretrained"):
        named.append(("teacher.weights", str(teacher.weights)))
    if "pretrained" in study.hyperparameters.words("init"):
        files = map(student.weights_of, study.hyperparameters.words("architecture"))
        named += [("student.weights", name) for name in dict.fromkeys(files) if name is not None]
    return [_check_file(key, settings.data_path(name)) for key, name in named]


def _check_file(key: str, path: Path) -> Check:
    """Check a file of weights that a key names, which hosts that do not prepare need not have."""
    try:
        return ok(_GROUP, key, f"{path} is a file of {find_format(path, called=key).value}")
    except DataError as error:
        if path.exists():
            return failed(_GROUP, key, error)
        return warning(_GROUP, key, f"{key} {path} is not there", "have it on every host that prepares")


def check_root(study: Study, settings: Settings) -> list[Check]:
    """Check whether the place of the images is there, without a look into it; nothing where they are downloaded."""
    if find_source(study.dataset.name).root != "needed" or study.dataset.root is None:
        return []
    if (path := settings.data_path(study.dataset.root)).exists():
        return [ok(_GROUP, "images", f"{path} is there")]
    return [warning(_GROUP, "images", f"dataset.root {path} is not there", "have it on the host that prepares")]


def _check(name: str, fine: str, problems: list[tuple[str, str]]) -> Check:
    if not problems:
        return ok(_GROUP, name, fine)
    findings, advice = zip(*problems, strict=True)
    return warning(_GROUP, name, "; ".join(findings), "; ".join(advice))


def _idle_ranges(study: Study) -> Iterator[tuple[str, str]]:
    settings = study.hyperparameters
    searched = settings.searched()
    for name in searched:
        others = needs(name)
        if others and not any(settings.highest(other) for other in others):
            weights = f"{' and '.join(others)} {'is' if len(others) == 1 else 'are'}"
            yield f"{name} is searched while {weights} always 0", f"fix {name}, or let {others[0]} be above 0"
        if (of := SETTING_OF.get(name)) and not set(of) & set(settings.words("objective")):
            never = f"{name} is searched while objective is never {' or '.join(of)}"
            yield never, f"fix {name}, or let objective be {of[0]}"
        if (of := KNOB_OF.get(name)) and not set(of) & set(map(kind_of, settings.words("architecture"))):
            yield f"{name} is searched while the student is no {' or '.join(of)}", f"fix {name}"
    if "alternating" in settings.words("flip") and not study.augmentation.horizontal_flip:
        yield "flip is alternating while nothing is mirrored", "leave flip out, or set augmentation.horizontal_flip"
    if "alternating" in settings.words("flip") and study.augmentation.views is not None:
        yield "flip is alternating while each of the views is mirrored or not for good", "leave flip out"
    if set(settings.words("alignment")) != {"aligned"} and "alignment" not in searched:
        acting = needs("alignment")
        if not any(settings.highest(weight) for weight in acting):
            yield f"alignment has nothing to act on: {', '.join(acting)} are 0", "raise one of them"
    for name, setting in searched.items():
        if len(set(setting.corners())) == 1:
            only = shown(setting.corners()[0])
            yield f"{name} is searched in a range of one value", f"write {name}: {only}, or widen it"


def _doubtful_pruner(study: Study) -> Iterator[tuple[str, str]]:
    grace = getattr(study.pruner, "grace_period", None)
    if grace is not None and grace >= study.training.epochs and study.is_search:
        late = f"grace_period {grace} is not below training.epochs {study.training.epochs}"
        yield f"no trial can be stopped: {late}", "lower pruner.grace_period, or write pruner: {name: none}"

    searched, epochs = study.n_trials - len(study.controls), study.training.epochs
    few = study.is_search and 0 < searched < _MANY_TRIALS
    if not few or not isinstance(study.pruner, SuccessiveHalvingPruner):
        return
    if (first := study.pruner.first_rung(epochs)) < (third := grace_of_few(epochs)) - 1:
        early = f"most of {searched} searched trials are stopped at epoch {first} of {epochs}"
        yield early, f"write pruner: {{name: successive_halving, grace_period: {third}}}: early epochs say little"


def _architectures(study: Study) -> list[Check]:
    """Check whether there are trials for each architecture; nothing of a study with one."""
    count, left = len(study.hyperparameters.words("architecture")), study.n_trials - len(study.controls)
    if count == 1:
        return []
    few = study.n_trials < _TRIALS_EACH * count
    too_few = ": too few to try each" if left < count else ""
    found = f"{count} to choose from in {study.n_trials} trials, {len(study.controls)} of them controls{too_few}"
    raised = f"raise n_trials to {_TRIALS_EACH * count}, or leave some out" if few else "leave some out"
    advice = f"{raised}: a sampler needs about {_TRIALS_EACH} trials of each"
    return [grade(_GROUP, "architectures", found, advice, doubtful=few or count > _MANY)]


def _pretrained(study: Study) -> list[Check]:
    """Check whether pretrained students see what they were trained with; nothing of studies without any."""
    settings = study.hyperparameters
    if "pretrained" not in settings.words("init"):
        return []
    known = [name for name in settings.words("architecture") if find_architecture(name).statistics is not None]
    doubtful = study.student.normalize == "dataset" and bool(known)
    found = f"init is pretrained, and student.normalize is {study.student.normalize}"
    advice = "write student: {normalize: weights}, the mean and deviation that they were trained with"
    return [
        grade(
            _GROUP, "pretrained", found if doubtful else "students see what they began with", advice, doubtful=doubtful
        )
    ]


def _no_trials_left(study: Study) -> Iterator[tuple[str, str]]:
    if study.is_search and study.n_trials <= len(study.controls):
        all_taken = f"the {len(study.controls)} controls take all of n_trials {study.n_trials}"
        yield f"{all_taken}: nothing is searched", "raise n_trials"
