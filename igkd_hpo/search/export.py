"""Write a trial as a study file that repeats it: each range and each `auto` is replaced by what trained."""

from datetime import UTC, datetime

from pydantic import ValidationError

import igkd_hpo
from igkd_hpo.config.fingerprint import fingerprint
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.provenance import Provenance
from igkd_hpo.config.pruner import NoPruner
from igkd_hpo.config.resolution import resolve_autos
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.errors import StudyUnusable
from igkd_hpo.search.best import BestTrial
from igkd_hpo.search.study import SearchStudy

N_SEEDS = 5  # trials of the exported file: enough for a mean and its spread, few enough to run at once


def exported_study(study: SearchStudy, best: BestTrial) -> Study:
    """Make the study file of one trial.

    Its `training.seed` is the trial's own, so that `train` and the file's trial 0 repeat the trial, and trials 1 to 4
    are fresh seeds. A control comes out as it trained. Paths stay as they are in the study's file.
    """
    config, pins = study.config, study.read().pins
    resolved = resolve_autos(config, best.execution)
    provenance = {
        "study": study.name,
        "trial": best.number,
        "validation_accuracy": best.validation_accuracy,
        "execution": best.execution,
        "control": best.control,
        **best.cost,
        "confirmed": best.confirmed or False,
        **({"under": dict(best.under)} if best.under else {}),
        "completed_trials": best.completed,
        "controls": {comparison.control: comparison.validation_accuracy for comparison in best.compared},
        "fingerprint": fingerprint(config),
        "dataset_sha256": pins.dataset_sha256 if pins else None,
        "teacher_sha256": pins.teacher_sha256 if pins else None,
        **({"weights_sha256": pins.weights_sha256} if pins and pins.weights_sha256 else {}),
        **({"shown_sha256": pins.shown_sha256} if pins and pins.shown_sha256 else {}),
        "igkd_hpo": igkd_hpo.__version__,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    weights = config.student.weights
    if isinstance(weights, dict):  # those of other students of the search would be misspelt ones in the file
        name = str(best.hyperparameters["architecture"])
        weights = {name: weights[name]} if name in weights else None
    changed = {
        "student": config.student.model_copy(update={"weights": weights}),
        "name": f"{(study.confirms or study.name)[:95]}-best",  # a study's name has at most 100 characters
        "training": resolved.training.model_copy(update={"seed": best.seed}),
        "hyperparameters": Hyperparameters.model_validate(dict(best.hyperparameters)),
        "limits": Limits(),  # it is within them; timed once more, one of its seeds might not be
        "strata": None,
        "pruner": NoPruner(name="none"),
        "controls": (),
        "n_trials": N_SEEDS,
        "timeout": None,
        "known_good": (),
        "provenance": Provenance.model_validate(provenance),
    }
    # Validated as a whole: what is written here is read back by the same rules.
    try:
        exported = Study.model_validate({**dict(resolved), **changed})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        raise StudyUnusable(f"trial {best.number} of {study.name} cannot be a study file: {why}") from error
    marked = Provenance.model_validate(provenance | {"exported_fingerprint": fingerprint(exported)})
    return exported.model_copy(update={"provenance": marked})
