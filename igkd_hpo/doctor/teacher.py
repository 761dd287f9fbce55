"""The teacher: whether it fits these classes in this order, its input is right, it can be explained, and is larger."""

from dataclasses import replace

import scipy
import torch
from torch import Tensor

from igkd_hpo.assets.attribution_maps import warn_coarse
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds
from igkd_hpo.assets.map_plan import MapPlan, choose_steps, explain, points_at_once, probe_rows
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher import weights_hash
from igkd_hpo.assets.teacher_check import best_order, check_teacher, other_normalizations
from igkd_hpo.assets.teacher_network import check_output, load_given_body, unwrap, wrap
from igkd_hpo.assets.teachers import combined_hash, open_teachers
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import ARCHITECTURES
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.evaluation import predict
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import Network, count_parameters, to_pixels
from igkd_hpo.doctor.check import Check, CheckVerdict, failed, fault, grade, not_checked, ok
from igkd_hpo.doctor.sizes import largest_student
from igkd_hpo.errors import AssetMissing, IgkdError, TeacherError, first_line
from igkd_hpo.settings import Settings
from igkd_hpo.words import parameters, percent

_GROUP = "teacher"
_NAMES = ("network", "evaluation mode", "accuracy", "class order", "normalisation", "attribution", "size")
_P_VALUE = 0.001  # one-sided; what another order or normalisation must beat, so that chance finds no fault
_SMALLEST_GAIN = 0.02  # of accuracy; published statistics of a data set differ from the split's own by less
_PROBED = 1000  # images for each other normalisation
_BATCH = 32
_TOLERANCE = 0.01  # of the largest logit: kernels for another batch size differ in their last bits only


def check_teacher_network(
    study: Study, dataset: Dataset, settings: Settings, device: torch.device, progress: Progress
) -> tuple[str | None, list[Check]]:
    """Return the hash of the teachers' weights, None while there are none, and the checks of them. Trains nothing."""
    count, trained = study.teacher.n_networks, study.teacher.is_trained_here
    try:
        networks = _networks(study, dataset, settings)
    except AssetMissing:
        will = f"will be trained for {study.teacher.epochs} epochs when the study is prepared"
        if count > 1:
            will = f"{count} teachers; each {will}"
        return None, [ok(_GROUP, _NAMES[0], will), _check_size(study, dataset, None)]
    except IgkdError as error:
        rest = [not_checked(_GROUP, name, "the teacher cannot be used") for name in _NAMES[1:]]
        return None, [failed(_GROUP, _NAMES[0], error), *rest]
    progress.note("checking the teacher" if count == 1 else f"checking {count} teachers")
    each = [
        [
            _check_evaluation_mode(network.to(device), dataset, device),
            *_check_accuracy(network, dataset, device, given=not trained),
            _check_attribution(study, network, dataset, device),
        ]
        for network in networks
    ]
    several = f"{count} of " if count > 1 else ""
    checks = [
        ok(_GROUP, "network", f"{several}{study.teacher.architecture}, {'trained here' if trained else 'given'}"),
        *(_worst(of_teachers) for of_teachers in zip(*each, strict=True)),
        _check_size(study, dataset, networks[0]),
    ]
    folds = assign_folds(dataset, study.teacher.folds) if study.teacher.folds else None
    return combined_hash([weights_hash(unwrap(network).state_dict()) for network in networks], folds), checks


def _networks(study: Study, dataset: Dataset, settings: Settings) -> list[Network]:
    if study.teacher.is_trained_here:
        opened = open_teachers(study, dataset, settings, AssetStore(settings.paths.assets, in_full=True))
        return [member.network for member in opened.members]
    networks = []
    for member in range(study.teacher.n_networks):
        body = load_given_body(study.teacher, dataset.num_classes, settings, member=member)
        networks.append(wrap(body, study.teacher, (dataset.mean, dataset.std)))
        check_output(networks[-1], dataset.image_size, dataset.num_classes, study.teacher.architecture)
    return networks


def _worst(checks: tuple[Check, ...]) -> Check:
    """Return the first with the worst verdict of one check of every teacher, with that teacher's number."""
    worst = max(checks, key=lambda check: list(CheckVerdict).index(check.verdict))
    if all(check.found == worst.found for check in checks):
        return worst
    return replace(worst, found=f"teacher {checks.index(worst) + 1} of {len(checks)}: {worst.found}")


def _check_evaluation_mode(network: Network, dataset: Dataset, device: torch.device) -> Check:
    """Check that the answer to an image depends neither on its neighbours in the batch nor on chance."""
    name = "evaluation mode"
    pixels = to_pixels(dataset.train_images[:_BATCH].to(device), torch.channels_last)
    beside_black = torch.cat([pixels, torch.zeros_like(pixels)]).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        together, again = network(pixels), network(pixels)
        beside = network(beside_black)[: len(pixels)]
    if not bool(torch.isfinite(together).all()):
        return fault(_GROUP, name, "its logits are not finite", "check the weights for NaN, and teacher.normalize")
    tolerance = _TOLERANCE * float(together.abs().max())
    if float((together - again).abs().max()) > tolerance:
        finding = "it answers the same image differently each time"
        return fault(_GROUP, name, finding, "switch its dropout off in eval()")
    if float((together - beside).abs().max()) > tolerance:
        finding = "its answer to an image depends on the other images of the batch: BatchNorm uses batch statistics"
        return fault(_GROUP, name, finding, "let its BatchNorm track running statistics and use them after eval()")
    return ok(_GROUP, name, "an image gets the same logits whatever else is in its batch")


def _check_accuracy(network: Network, dataset: Dataset, device: torch.device, *, given: bool) -> list[Check]:
    labels = dataset.validation_labels
    try:
        measured = check_teacher(network, dataset, device=device)
        accuracy = ok(_GROUP, "accuracy", f"{percent(measured)} of {len(labels):,} validation images")
    except TeacherError as error:
        accuracy = failed(_GROUP, "accuracy", error)
    if not given:  # made by this program, on these classes, behind this normalisation
        return [accuracy, *(ok(_GROUP, name, "as it was trained here") for name in ("class order", "normalisation"))]
    logits = predict(network, dataset.validation_images, device=device)
    images = dataset.validation_images[:_PROBED]
    others = other_normalizations(network, dataset).items()
    right = {name: predict(other, images, device=device).argmax(dim=1) == labels[:_PROBED] for name, other in others}
    network.to(device)
    right_as_given = (logits.argmax(dim=1) == labels)[:_PROBED]
    return [accuracy, _check_order(logits, dataset), _check_normalisation(right_as_given, right)]


def _check_order(logits: Tensor, dataset: Dataset) -> Check:
    """Look for a better order on one half of the images and measure it on the other: chance does not pass twice."""
    labels, classes = dataset.validation_labels, dataset.num_classes
    answers = logits.argmax(dim=1)
    reordered = torch.empty_like(answers)
    for half in (0, 1):
        order = best_order(logits[1 - half :: 2], labels[1 - half :: 2], classes)
        reordered[half::2] = order[answers[half::2]]
    gain = _gain(answers == labels, reordered == labels)
    if gain is None:
        return ok(_GROUP, "class order", "no other order of the classes fits better")
    order = best_order(logits, labels, classes)
    moved = [int(number) for number in torch.nonzero(order != torch.arange(classes))]
    swaps = ", ".join(f"its {number} is {dataset.class_names[int(order[number])]!r}" for number in moved[:4])
    more = " …" if moved[4:] else ""
    finding = f"with its classes in another order it would be right on {gain} more of the images ({swaps}{more})"
    return fault(_GROUP, "class order", finding, "bring its last layer into the order of the class names")


def _check_normalisation(right_as_given: Tensor, right: dict[str, Tensor]) -> Check:
    gains = {other: gain for other, answers in right.items() if (gain := _gain(right_as_given, answers)) is not None}
    if not gains:
        return ok(_GROUP, "normalisation", "none of the usual others fits better")
    best = max(gains, key=lambda other: int(right[other].sum()))
    finding = f"with teacher.normalize {best} it would be right on {gains[best]} more of the images"
    return fault(_GROUP, "normalisation", finding, f"set teacher.normalize: {best.partition(' (')[0]}")


def _gain(before: Tensor, after: Tensor) -> str | None:
    """Return how much more often `after` is right than `before`, unless by chance (sign test) or by too little."""
    better, worse = int((after & ~before).sum()), int((before & ~after).sum())
    gain = (better - worse) / len(before)
    if gain < _SMALLEST_GAIN:
        return None
    by_chance = scipy.stats.binomtest(better, better + worse, 0.5, alternative="greater").pvalue
    return percent(gain) if by_chance < _P_VALUE else None


def _check_attribution(study: Study, network: Network, dataset: Dataset, device: torch.device) -> Check:
    name = "attribution"
    if not study.uses(Role.MAPS):
        return ok(_GROUP, name, "no trial uses overlays")
    rows, points = probe_rows(dataset.train_labels), points_at_once(study, dataset, device)

    def maps_of(n_steps: int) -> tuple[Tensor, Tensor]:
        plan = MapPlan(n_steps=n_steps, agreement=None, points=points)
        return explain(study, dataset, [network], rows, plan=plan, device=device)

    n_steps = study.attribution.n_steps
    try:
        if n_steps == "auto":
            n_steps, _ = choose_steps(lambda steps: maps_of(steps)[0])
        maps, errors = maps_of(n_steps)
    except (RuntimeError, AssertionError) as error:  # what torch and captum raise where no gradient reaches the image
        finding = f"no gradient reaches the image ({first_line(error)})"
        return fault(_GROUP, name, finding, "remove no_grad, detach and argmax")
    if not bool((maps > 0).any()):
        return fault(_GROUP, name, "its maps are empty: its logits do not depend on the image", "check its weights")
    median = float(errors.median())
    if coarse := warn_coarse(median, n_steps=n_steps):
        return failed(_GROUP, name, TeacherError(coarse))
    return ok(_GROUP, name, f"maps of {n_steps} steps miss their sum by {percent(median)} (median)")


def _check_size(study: Study, dataset: Dataset, network: Network | None) -> Check:
    with torch.device("meta"):
        student = count_parameters(largest_student(study, dataset.num_classes))
        to_train = mobilenet_v2(num_classes=dataset.num_classes, width=study.teacher.width)
    teacher = count_parameters(to_train if network is None else network)
    sizes = f"the largest student has {parameters(student)}, the teacher {teacher:,}"
    knobs = ARCHITECTURES[study.student.architecture].knobs.items()
    smaller = "".join(f"{'raise' if knob.smallest == 'high' else 'lower'} {name}, " for name, knob in knobs)
    return grade(_GROUP, "size", sizes, f"{smaller}or take a larger teacher", doubtful=student >= teacher)
