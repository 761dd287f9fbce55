"""The teacher: whether it fits these classes in this order, its input is right, it can be explained, and is larger."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from igkd_hpo.assets.attribution_maps import warn_coarse
from igkd_hpo.assets.checkpoint import Taken, weights_hash
from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.folds import assign_folds
from igkd_hpo.assets.map_plan import MapPlan, choose_steps, explain, points_at_once, probe_rows
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.teacher import wrap_given
from igkd_hpo.assets.teacher_check import CHECK_NAMES, examine_teacher
from igkd_hpo.assets.teacher_network import build_body, load_given_body, teacher_request, teacher_state, unwrap
from igkd_hpo.assets.teachers import combined_hash, open_teachers
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.architectures import find_architecture
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import Network, count_parameters
from igkd_hpo.doctor.check import Check, CheckVerdict, failed, fault, grade, not_checked, ok
from igkd_hpo.doctor.sizes import student_parameters
from igkd_hpo.errors import AssetMissing, IgkdError, TeacherError
from igkd_hpo.settings import Settings
from igkd_hpo.words import parameters, percent

_GROUP = "teacher"


def check_teacher_network(
    study: Study, dataset: Dataset, settings: Settings, device: torch.device, progress: Progress
) -> tuple[str | None, list[Check]]:
    """Return the hash of the teachers' weights, None while there are none, and the checks of them. Trains nothing."""
    count, trained = study.teacher.n_networks, study.teacher.is_trained_here
    try:
        networks = _networks(study, dataset.shown, settings, device)
    except AssetMissing:
        will = f"will be trained for {study.teacher.epochs} epochs when the study is prepared"
        if count > 1:
            will = f"{count} teachers; each {will}"
        return None, [ok(_GROUP, "network", will), _check_size(study, dataset, settings, None)]
    except IgkdError as error:
        rest = [not_checked(_GROUP, name, "the teacher cannot be used") for name in (*CHECK_NAMES, "size")]
        return None, [failed(_GROUP, "network", error), *rest]
    progress.note("checking the teacher" if count == 1 else f"checking {count} teachers")
    each = [
        _check_one(study, one.network, dataset.shown, device, others=one.taken.others if one.taken else ())
        for one in networks
    ]
    several = f"{count} of " if count > 1 else ""
    told = [line for one in networks for line in (one.taken and one.taken.tell(), one.told) if line]
    found = [f"{several}{study.teacher.architecture}, {'trained here' if trained else 'given'}", *dict.fromkeys(told)]
    checks = [
        ok(_GROUP, "network", "; ".join(found)),
        *(_worst(of_teachers) for of_teachers in zip(*each, strict=True)),
        _check_size(study, dataset, settings, networks[0].network),
    ]
    folds = assign_folds(dataset, study.teacher.folds) if study.teacher.folds else None
    states = [teacher_state(unwrap(one.network), study.teacher) for one in networks]
    return combined_hash([weights_hash(state) for state in states], folds), checks


@dataclass(frozen=True)
class _Examined:
    """A teacher, what of its checkpoint was taken, and what was made out by trying."""

    network: Network
    taken: Taken | None = None
    told: str | None = None


def _networks(study: Study, dataset: Dataset, settings: Settings, device: torch.device) -> list[_Examined]:
    if study.teacher.is_trained_here:
        opened = open_teachers(study, dataset, settings, AssetStore(settings.paths.assets, in_full=True))
        return [_Examined(member.network.to(device)) for member in opened.members]
    networks = []
    for member in range(study.teacher.n_networks):
        request = teacher_request(study.teacher, dataset.num_classes, dataset.image_size, settings)
        body, taken = load_given_body(study.teacher, request, settings, member=member)
        network, told = wrap_given(body, study, dataset, settings, device)
        networks.append(_Examined(network, taken, told))
    return networks


def _check_one(
    study: Study, network: Network, dataset: Dataset, device: torch.device, *, others: Sequence[str]
) -> list[Check]:
    """Make the checks that `prepare` makes, and with them that of the maps."""
    given = not study.teacher.is_trained_here
    checks = {
        made.name: ok(_GROUP, made.name, made.found) if made.error is None else failed(_GROUP, made.name, made.error)
        for made in examine_teacher(
            network,
            dataset,
            device=device,
            given=given,
            explained=study.uses(Role.MAPS),
            metric=study.metric,
            weighable=not given and study.teacher.class_weights == "none",
            others=others,
        )
    }
    for name in CHECK_NAMES:  # of one that was made by this program, on these classes, behind this normalisation
        checks.setdefault(name, ok(_GROUP, name, "as it was trained here"))
    if not study.uses(Role.MAPS):
        checks["attribution"] = ok(_GROUP, "attribution", "no trial uses overlays")
    elif checks["attribution"].verdict is CheckVerdict.OK:
        checks["attribution"] = _check_maps(study, network, dataset, device)
    return [checks[name] for name in CHECK_NAMES]


def _worst(checks: tuple[Check, ...]) -> Check:
    """Return the first with the worst verdict of one check of every teacher, with that teacher's number."""
    worst = max(checks, key=lambda check: list(CheckVerdict).index(check.verdict))
    if all(check.found == worst.found for check in checks):
        return worst
    return replace(worst, found=f"teacher {checks.index(worst) + 1} of {len(checks)}: {worst.found}")


def _check_maps(study: Study, network: Network, dataset: Dataset, device: torch.device) -> Check:
    name = "attribution"
    rows, points = probe_rows(dataset.train_labels), points_at_once(study, dataset, device)

    def maps_of(n_steps: int) -> tuple[Tensor, Tensor]:
        plan = MapPlan(n_steps=n_steps, agreement=None, points=points)
        return explain(study, dataset, [network], rows, plan=plan, device=device)

    n_steps = study.attribution.n_steps
    if n_steps == "auto":
        n_steps, _ = choose_steps(lambda steps: maps_of(steps)[0])
    maps, errors = maps_of(n_steps)
    if not bool((maps > 0).any()):
        return fault(_GROUP, name, "its maps are empty: its logits do not depend on the image", "check its weights")
    median = float(errors.median())
    if coarse := warn_coarse(median, n_steps=n_steps):
        return failed(_GROUP, name, TeacherError(coarse))
    return ok(_GROUP, name, f"maps of {n_steps} steps miss their sum by {percent(median)} (median)")


def _check_size(study: Study, dataset: Dataset, settings: Settings, network: Network | None) -> Check:
    student = student_parameters(study, dataset, settings)
    if network is None:
        foreign = find_architecture(study.teacher.architecture).foreign  # whose code may ask for numbers
        with torch.random.fork_rng([]), torch.device("cpu" if foreign else "meta"):
            request = teacher_request(study.teacher, dataset.num_classes, dataset.image_size, settings)
            to_train, _ = build_body(study.teacher, request)
    teacher = count_parameters(to_train if network is None else network)
    sizes = f"the largest student has {parameters(student)}, the teacher {teacher:,}"
    architectures = map(find_architecture, study.hyperparameters.words("architecture"))
    knobs = {name: knob for architecture in architectures for name, knob in architecture.knobs.items()}
    smaller = "".join(f"{'raise' if knob.smallest == 'high' else 'lower'} {name}, " for name, knob in knobs.items())
    return grade(_GROUP, "size", sizes, f"{smaller}or take a larger teacher", doubtful=student >= teacher)
