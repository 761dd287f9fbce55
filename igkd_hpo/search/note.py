"""Write the note that opens a study's page in optuna-dashboard: what is searched, on what, and how to take it home."""

import warnings
from functools import partial

from optuna.exceptions import ExperimentalWarning

from igkd_hpo.config.space import shown, shown_range
from igkd_hpo.distillation.metrics import METRICS
from igkd_hpo.escaping import code, markdown
from igkd_hpo.search.study import SearchStudy


def save_study_note(study: SearchStudy) -> None:
    """Write the note and the objective's name, once, when the study is created.

    As optuna-dashboard's own `save_note` does, whose import takes 1.7 s, for it brings scikit-learn along.
    """
    note, write = study_note(study), partial(study.storage.set_study_system_attr, study.study_id)
    write("dashboard:note_str:0", note)
    write("dashboard:note_ver", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # optuna-dashboard calls it "Objective 0" otherwise
        study.optuna_study.set_metric_names([f"validation {METRICS[study.config.metric]}"])


def study_note(study: SearchStudy) -> str:
    """Return the note as Markdown."""
    config = study.config
    if study.purpose == "ladder":
        return f"""# {study.name}

How small may a student of the study **{study.confirms}** become? Each arm, named by the user attribute `arm_name`, is \
a student so many times smaller than the teacher, trained with one configuration's settings: once with all that the \
teacher gives (distilled), once without (plain), each with the same fresh seeds; nothing is searched and nothing \
pruned. The value of a trial is its {METRICS[config.metric]} on the validation split. The test split is read once, \
when all trials have ended:

    igkd-hpo ladder {study.confirms}
"""
    if study.confirms is not None:
        return f"""# {study.name}

Are the best configurations of the study **{study.confirms}** as good as they look? Each arm, named by the user \
attribute `arm_name`, is trained with the same fresh seeds; nothing is searched and nothing pruned. The value of a \
trial is its {METRICS[config.metric]} on the validation split. The test split is read once, when all trials have ended:

    igkd-hpo confirm {study.confirms}
"""
    hyperparameters = config.hyperparameters
    values = hyperparameters.telling(hyperparameters.fixed())
    fixed = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
    space = "Nothing is searched: each trial is one more seed.\n"
    if searched := hyperparameters.searched():
        rows = "\n".join(f"| {name} | {shown_range(setting)} |" for name, setting in searched.items())
        space = f"| searched | values |\n| --- | --- |\n{rows}\n"
    root = f" from {code(config.dataset.root)}" if config.dataset.root else ""
    given = config.teacher.checkpoints
    teacher = ", ".join(code(path) for path in given) if given else f"{config.teacher.epochs} epochs here"
    if config.teacher.folds:
        teacher += f", {config.teacher.folds} folds: an image's teacher has not seen it"
    elif config.teacher.members > 1:
        teacher += f", {config.teacher.members} of them, their probabilities averaged"
    controls = ", ".join(config.controls) or "none"
    strata = ""
    if config.strata is not None:
        ends = ", ".join(str(one) for one in config.strata.each)
        strata = f"- strata, which trials are drawn for in turn, and pruned within: {ends}\n"
    return f"""# {study.name}

Which hyperparameters make the most accurate small student on **{config.dataset.name}**{root}? \
A trial has {config.training.epochs} epochs, unless it is pruned ({config.pruner.name}). \
The value of a trial is its {METRICS[config.metric]} on the validation split, a fraction of 1; the test split is \
never read here.

{space}
Fixed: {fixed}; the rest is at its default.

- teacher: {markdown(config.teacher.architecture)}, {teacher}
- controls (fixed trials that the others are compared with): {controls}
{strata}- a trial's pictures, its learning curve and its overlays, are under *Artifacts*

## Take the best home

    igkd-hpo best {study.name}
    igkd-hpo export {study.name} -o best.yaml
    igkd-hpo train best.yaml
"""
