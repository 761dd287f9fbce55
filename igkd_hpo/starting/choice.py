"""The choice of a first study: from what the images, the machine and the limits are to a study, and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from igkd_hpo.config.pruner import grace_of_few
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.errors import IgkdError
from igkd_hpo.starting.balance import Balance
from igkd_hpo.starting.budget import TRIALS_EACH, Budget, plan_budget
from igkd_hpo.starting.images import ImageFacts
from igkd_hpo.starting.networks import BUILT_IN, MOST_STAGES_REMOVED, Machine, Network, StepTime, Survey
from igkd_hpo.starting.size import Sizing
from igkd_hpo.starting.students import MOST
from igkd_hpo.starting.teacher import TeacherPlan
from igkd_hpo.words import counted, parameters, rough_duration

_BATCHES = ((500, 16), (2000, 32), (20_000, 64))  # images to train on, up to which batches have so many
_LARGEST_BATCH = {"cpu": 64, "cuda": 128}
_ABOUT_KNOBS = {
    "layers_removed": "blocks cut from its end; more make it smaller and faster",
    "stages_removed": "stages cut from its end",
    "width": "a channel multiplier; less makes it smaller and faster",
}
# On photographs from shops mixtures gave plain students of 60 epochs more than distillation did, and showed nothing in
# 30, see docs/experiments.md; what students with published weights make of them was not measured.
_EPOCHS_OF_MIXED = 40
_RATES = {False: (0.02, 0.5), True: (0.002, 0.1)}  # of batches of 64; from published weights about a tenth


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A first study.

    Args:
        document: what a file of it says, in the order of the file; other keys have their defaults.
        reasons: why, by the path of a key: `dataset.image_size`; each key of the document has one.
        budget: its cost on the machine that was measured.
        teacher, students: as chosen, in a line each.
    """

    study: Study
    document: Mapping[str, Any]
    reasons: Mapping[str, str]
    budget: Budget
    teacher: str
    students: str


class _Draft:
    """A document in the making."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def add(self, path: str, value: Any, reason: str) -> None:
        """Add a key to the end of its section, which is there already."""
        *sections, key = path.split(".")
        place = self.document
        for section in sections:
            place = place[section]
        place[key] = value
        self.reasons[path] = reason


def batch_size(n_train: int, machine: Machine) -> int:
    """Return the images in a step: few enough that an epoch of few images has steps to learn in."""
    return next((size for most, size in _BATCHES if n_train < most), _LARGEST_BATCH[machine.kind])


def choose_study(
    *,
    name: str,
    images: ImageFacts,
    machine: Machine,
    limits: Limits,
    sizing: Sizing,
    balance: Balance,
    survey: Survey,
    teacher: TeacherPlan,
    students: Sequence[Network],
) -> Choice:
    """Choose a study of these images for this machine, in sizes that were chosen before.

    Args:
        name: of the study.
        teacher: timed, or alike to one that was.
        students: the best first, see `fitting_students`; one that was not timed is not chosen.

    Raises:
        IgkdError: none was timed.
    """
    chosen, budget = _choose_students(images, machine, sizing, balance, survey, teacher, students)
    pretrained = (
        all(student.architecture in survey.weights for student in chosen) and chosen[0].architecture != BUILT_IN
    )
    draft = _Draft()
    draft.add("version", 1, "of the format of this file")
    draft.add("name", name, "names the study in the database; another name is another study")
    _add_dataset(draft, images, sizing, balance, budget)
    _add_teacher(draft, sizing, balance, teacher, budget)
    if pretrained:
        draft.add("student", {}, "the small network")
        draft.add("student.normalize", "weights", "the mean and deviation that its weights were trained with")
    draft.add("augmentation", {}, "what a student sees of an image differs from epoch to epoch")
    if budget.views is not None:
        draft.add("augmentation.views", budget.views, sizing.views_because)
        draft.add("augmentation.scale", [0.35, 1.0], "smallest and largest part, in shares of the area")
        if budget.epochs >= _EPOCHS_OF_MIXED and not pretrained:
            draft.add(
                "augmentation.mixed",
                0.6,
                "share of them that another photograph is blended into, or a part of it cut in",
            )
    else:
        draft.add("augmentation.crop_padding", sizing.padding, sizing.views_because)
    draft.add("augmentation.horizontal_flip", sizing.flip, sizing.flip_because)
    draft.add("training", {}, "of each student")
    draft.add("training.epochs", budget.epochs, f"about {rough_duration(budget.trial_seconds)} a trial on this machine")
    if balance.metric != "accuracy":
        draft.add("metric", balance.metric, balance.metric_because)
    _add_hyperparameters(draft, machine, balance, survey, chosen, budget, pretrained=pretrained)
    if limits.any:
        draft.add("limits", {}, "what is beyond them is not trained")
        for key, limit in limits.model_dump().items():
            if limit is not None:
                draft.add(f"limits.{key}", limit, "asked for")
    draft.add("pruner", {}, "stops trials that will not be among the best")
    draft.add("pruner.name", "successive_halving", "at some epochs the best go on, the others end")
    draft.add("pruner.grace_period", grace_of_few(budget.epochs), "epochs that every trial gets: early ones say little")
    draft.add("pruner.reduction_factor", 3, "one trial of so many goes on")
    controls = "4 of them controls" if budget.maps else "2 of them controls"
    draft.add("n_trials", budget.n_trials, f"{controls}, which are fixed trials to compare with")
    if not budget.maps:
        draft.add("controls", ["student", "kd"], "the others need maps of the teacher, for which there is no time here")
    costs = [f"{student.shown} ({parameters(survey.costs[student].parameters)})" for student in chosen]
    return Choice(
        study=study_from_json(json.dumps(draft.document), source="the study that was chosen"),
        document=draft.document,
        reasons=draft.reasons,
        budget=budget,
        teacher=f"{teacher.network.architecture}: {teacher.because}",
        students=" and ".join(costs),
    )


def _choose_students(
    images: ImageFacts,
    machine: Machine,
    sizing: Sizing,
    balance: Balance,
    survey: Survey,
    teacher: TeacherPlan,
    students: Sequence[Network],
) -> tuple[Sequence[Network], Budget]:
    """Return as many students as there is time for, and their budget; one where there is too little for any.

    Raises IgkdError where none was timed.
    """
    timed = [(student, time) for student in students if (time := survey.time(student)) is not None]
    if not timed:
        raise IgkdError("not one network could be trained here for a step; write the study file by hand")
    groups = (
        [timed[:count] for count in range(min(MOST, len(timed)), 1, -1)]
        if timed[0][0].knobs == timed[-1][0].knobs
        else []
    )
    groups += [[one] for one in timed]
    tried = []
    for group in groups:
        budget = plan_budget(
            n_train=balance.n_train,
            n_validation=balance.n_validation,
            decoding=images.n_images * images.seconds / machine.cores,
            teacher=survey.time(teacher.network) or StepTime(0.0, 0.0),
            given=teacher.weights is not None,
            student=StepTime(*(sum(times) / len(group) for times in zip(*(time for _, time in group), strict=True))),
            architectures=len(group),
            views=sizing.views,
        )
        if budget.fits and budget.n_trials >= TRIALS_EACH * (len(group) if len(group) > 1 else 0):
            return [student for student, _ in group], budget
        tried.append(([student for student, _ in group], budget))
    return min(tried[-len(timed) :], key=lambda one: one[1].total)


def _add_dataset(draft: _Draft, images: ImageFacts, sizing: Sizing, balance: Balance, budget: Budget) -> None:
    splits = f"{balance.n_train:,} images to train on, {balance.n_validation:,} to validate, {balance.n_test:,} to test"
    draft.add("dataset", {}, f"{splits}; {len(images.class_names):,} classes; nothing in test is searched on")
    draft.add("dataset.name", "folder", "your own images, in folders or in a list")
    draft.add("dataset.root", images.root, "from the current folder, or from IGKD_HPO_DATA")
    if images.follow_links:
        draft.add("dataset.follow_links", True, "links that lead out of the folder are followed, as asked for")
    trial = (
        f"; {sizing.side} keeps a trial at {rough_duration(budget.trial_seconds)} on this machine"
        if sizing.less
        else ""
    )
    draft.add("dataset.image_size", sizing.side, f"{sizing.side_because}{trial}")
    draft.add("dataset.fit", sizing.fit, sizing.fit_because)
    if images.bits is not None:
        draft.add("dataset.bits", images.bits, "images of 16 bits a channel use so many; without it they are dark")
    if balance.validation_fraction is not None:
        draft.add("dataset.validation_fraction", balance.validation_fraction, balance.validation_because)
    if balance.test_fraction is not None:
        draft.add("dataset.test_fraction", balance.test_fraction, "kept for confirm, which looks at it once")


def _add_teacher(draft: _Draft, sizing: Sizing, balance: Balance, teacher: TeacherPlan, budget: Budget) -> None:
    network, given = teacher.network, teacher.weights is not None
    draft.add("teacher", {}, "the accurate network, made once, before the trials")
    draft.add("teacher.architecture", network.architecture, teacher.because)
    if given:
        draft.add("teacher.weights", teacher.weights, "that it begins with; it gets a new classifier")
        draft.add("teacher.normalize", "weights", "the mean and deviation that they were trained with")
    else:
        draft.add("teacher.width", dict(network.knobs)["width"], "as wide as there is time for")
    if network.side != sizing.side:
        why = "the files at their own size, up to what there is time for" if given else "smaller, to save time"
        draft.add("teacher.input_size", network.side, f"{why}; a student sees {sizing.side}")
    spent = rough_duration(budget.seconds["teacher"])
    draft.add("teacher.epochs", budget.teacher_epochs, f"about {spent} on this machine")
    if balance.metric != "accuracy":
        draft.add("teacher.class_weights", "balanced", "without it a teacher may never answer the rare class")


def _add_hyperparameters(
    draft: _Draft,
    machine: Machine,
    balance: Balance,
    survey: Survey,
    students: Sequence[Network],
    budget: Budget,
    *,
    pretrained: bool,
) -> None:
    def add(name: str, value: Any, reason: str) -> None:
        draft.add(f"hyperparameters.{name}", value, reason)

    def real(low: float, high: float, **more: bool) -> dict[str, Any]:
        return {"type": "float", "low": low, "high": high, **more}

    batch = batch_size(balance.n_train, machine)
    draft.add("hyperparameters", {}, "a plain value is fixed, a range is searched")
    costs = [parameters(survey.costs[student].parameters) for student in students]
    if len(students) > 1:
        names = [student.architecture for student in students]
        choice = {"type": "categorical", "choices": names}
        sizes = ", ".join(f"{name.rpartition('/')[2]} {cost}" for name, cost in zip(names, costs, strict=True))
        add("architecture", choice, f"uncut, {sizes}; each needs some {TRIALS_EACH} trials")
    else:
        add("architecture", students[0].architecture, f"{costs[0]}; more networks would need more trials")
    for knob, value in students[0].knobs:
        if knob == "stages_removed" and value != MOST_STAGES_REMOVED and not pretrained:
            few = "of few photographs a shallow network may learn more than a deep one"
            add(knob, {"type": "int", "low": value, "high": MOST_STAGES_REMOVED}, f"cut from its end: {few}")
        elif value or students[0].architecture == BUILT_IN:
            add(knob, value, _ABOUT_KNOBS[knob])
    if pretrained:
        add("init", "pretrained", f"published weights, {survey.weights[students[0].architecture].told}")
    add("temperature", real(1.0, 8.0), "how soft the teacher's answers are")
    add("alpha", real(0.0, 1.0), "how much the teacher's answers count beside the labels")
    if budget.maps:
        add("overlay_probability", real(0.0, 0.5), "how many images are overlaid with the teacher's maps")
        add("overlay_strength", real(0.05, 0.95), "how much of such an image the map covers")
    else:
        add("overlay_probability", 0.0, "off: on this machine the teacher's maps of all images would take too long")
        add("overlay_strength", 0.5, "without effect while overlay_probability is 0")
    low, high = (float(f"{rate * batch / 64:.1g}") for rate in _RATES[pretrained])
    add("learning_rate", real(low, high, log=True), "at its highest; no other setting matters as much")
    add(
        "batch_size",
        batch,
        f"{counted(balance.n_train, 'image')} to train on: {-(-balance.n_train // batch):,} steps an epoch",
    )
    if balance.metric != "accuracy":
        add("class_weights", "balanced", "an image of a rare class counts for more")
