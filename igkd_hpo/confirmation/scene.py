"""Scene of a comparison of explanations: held-out images, the teacher's maps of them, and what a student's maps are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from igkd_hpo.assets.map_plan import MapPlan, fit_maps, make_maps, points_at_once, probe_rows
from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.assets.teachers import average_answers
from igkd_hpo.config.study import Augmentation
from igkd_hpo.distillation.attribution import rank_correlation
from igkd_hpo.distillation.faithfulness import map_sensitivity, removal_areas
from igkd_hpo.distillation.images import choose
from igkd_hpo.distillation.map_agreement import shuffled, top_overlap
from igkd_hpo.distillation.models import Network, to_pixels
from igkd_hpo.errors import TeacherError

N_STEPS = 32  # whose maps order the pixels as those of 160 steps do, to 0.997
_MOST_IMAGES = 200
_ASKED = 4  # times as many are shown to the teacher, which may be wrong on some
_SENSITIVITY_IMAGES = 32  # each of which takes five maps
_SENSITIVITY_STEPS = 16
_AT_ONCE = 64  # images between two steps of progress

Figures = Mapping[str, Tensor]
"""Figures of each image with one network, float64 (N,), by the names of `ExplainedArm` and `Agreement`."""

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Images that networks are asked about, and the teacher's maps of them.

    Args:
        images: uint8 (N, 3, H, W), as a student sees them.
        targets: int64 (N,), the class whose logit is explained: the true one, which is the teacher's answer too.
        teacher_maps: float32 (N, H, W).
        others: int64 (N,), for each image another one, whose map is compared with its own; None of one image.
        baseline: (3,), the colour that maps begin from, and that replaces pixels.
        plan: of the maps.
    """

    images: Tensor
    targets: Tensor
    teacher_maps: Tensor
    others: Tensor | None
    baseline: Tensor
    plan: MapPlan
    device: torch.device


def choose_rows(assets: Assets, device: torch.device) -> Tensor:
    """Choose up to 200 validation images, int64 (N,), spread over the classes, all of which the teacher gets right.

    Where it is wrong it has no reasons that are worth keeping, and whether the label or its answer is to be explained
    makes no difference where it is right. Raises TeacherError where there is none.
    """
    dataset = assets.dataset
    asked = probe_rows(dataset.validation_labels, _ASKED * _MOST_IMAGES)
    answers = average_answers(
        assets.teachers.networks(device), choose(dataset.shown.validation_images, asked), device=device
    ).argmax(dim=1)
    right = asked[answers == dataset.validation_labels[asked]]
    if len(right) == 0:
        raise TeacherError(
            f"the teacher of {assets.study.name} gets none of {len(asked)} validation images right, so it has no "
            "reasons to keep; take a better one, or train it longer"
        )
    return right[probe_rows(dataset.validation_labels[right], _MOST_IMAGES)]


def another_look(augmentation: Augmentation, n_teachers: int) -> str | None:
    """Name the other look of the teacher that is the ceiling, a key of `CEILINGS`: one that it was trained to know."""
    if n_teachers > 1:
        return "teachers"
    if augmentation.horizontal_flip:
        return "mirrored"
    return "shifted" if augmentation.crop_padding or augmentation.views else None


def look_as_teacher(
    assets: Assets, rows: Tensor, kind: str | None, device: torch.device, advance: Advance
) -> tuple[Scene, Figures | None]:
    """Return the scene of validation images, and how well another look of the teacher agrees with its maps."""
    study, dataset, teachers = assets.study, assets.dataset, assets.teachers.networks(device)
    images, targets = dataset.shown.validation_images[rows], dataset.validation_labels[rows]
    plan = MapPlan(n_steps=N_STEPS, agreement=None, points=points_at_once(study, dataset, device))
    colour = torch.tensor(dataset.shown.mean)

    def maps(networks: Sequence[Network], some: Tensor) -> Tensor:
        return in_parts(networks, some, targets, colour, plan, device, advance)

    fit = partial(fit_maps, size=dataset.image_size)
    own = maps(teachers, images)
    scene = Scene(
        images=dataset.validation_images[rows],
        targets=targets,
        teacher_maps=fit(own),
        others=shuffled(len(rows), torch.Generator().manual_seed(0)) if len(rows) > 1 else None,
        baseline=torch.tensor(dataset.mean),
        plan=plan,
        device=device,
    )
    if kind is None:
        return scene, None
    if kind == "teachers":
        of_each = [fit(maps([network], images)) for network in teachers]
        pairs = [agree(of_each[j], of_each[i]) for i in range(len(of_each)) for j in range(i)]
        return scene, {name: torch.stack([pair[name] for pair in pairs]).mean(dim=0) for name in pairs[0]}
    if kind == "mirrored":
        return scene, agree(fit(maps(teachers, images.flip(3)).flip(2)), scene.teacher_maps)
    # One pixel of a student's image, and what both then show.
    by = max(1, round(images.shape[2] / dataset.image_size[0]))
    height, width = images.shape[2:]
    moved = F.pad(images.float(), (by, 0, by, 0), mode="replicate")[:, :, :height, :width].to(torch.uint8)
    size = (dataset.image_size[0] - 1, dataset.image_size[1] - 1)
    smaller = [fit_maps(some, size) for some in (maps(teachers, moved)[:, by:, by:], own[:, :-by, :-by])]
    return scene, agree(smaller[0], smaller[1])


def in_parts(
    networks: Sequence[Network],
    images: Tensor,
    targets: Tensor,
    colour: Tensor,
    plan: MapPlan,
    device: torch.device,
    advance: Advance,
) -> Tensor:
    """Return the maps of all images, on the CPU, a part after the other."""
    maps = []
    for some, classes in zip(torch.split(images, _AT_ONCE), torch.split(targets, _AT_ONCE), strict=True):
        maps.append(make_maps(networks, some, classes, baseline=colour, plan=plan, device=device)[0].cpu())
        advance(len(some))
    return torch.cat(maps)


def agree(maps: Tensor, others: Tensor) -> dict[str, Tensor]:
    """Return how well maps (N, H, W) agree with others of the same images."""
    return {"correlation": rank_correlation(maps, others), "overlap": top_overlap(maps, others)}


def compare(network: Network, scene: Scene, advance: Advance) -> tuple[Tensor, Figures]:
    """Return a network's maps, and how well they agree with the teacher's, and with those of other images."""
    maps = in_parts([network], scene.images, scene.targets, scene.baseline, scene.plan, scene.device, advance)
    figures = agree(maps, scene.teacher_maps)
    if scene.others is not None:
        by_lot = agree(maps, scene.teacher_maps[scene.others])
        figures |= {f"shuffled_{name}": values for name, values in by_lot.items()}
    return maps, figures


def examine(network: Network, scene: Scene, advance: Advance) -> Figures:
    """Return what `compare` does, and how far the network's answer hangs on what its maps show."""
    maps, figures = compare(network, scene, advance)
    lot = torch.rand(maps.shape, generator=torch.Generator().manual_seed(1))
    areas: dict[str, list[Tensor]] = {"deletion": [], "insertion": [], "deletion_by_lot": [], "insertion_by_lot": []}
    parts = (torch.split(tensor, _AT_ONCE) for tensor in (scene.images, scene.targets, maps, lot))
    for images, targets, own, random in zip(*parts, strict=True):
        pixels, classes = to_pixels(images.to(scene.device)), targets.to(scene.device)
        for some, end in ((own, ""), (random, "_by_lot")):
            found = removal_areas(network, pixels, classes, some.to(scene.device), baseline=scene.baseline)
            areas[f"deletion{end}"].append(found[0].cpu())
            areas[f"insertion{end}"].append(found[1].cpu())
    few = sensitivity_rows(len(scene.images))
    moved = map_sensitivity(
        network,
        to_pixels(scene.images[few].to(scene.device)),
        scene.targets[few].to(scene.device),
        baseline=scene.baseline,
        n_steps=_SENSITIVITY_STEPS,
        points=scene.plan.points,
        generator=torch.Generator().manual_seed(2),
    )
    joined = {name: torch.cat(values) for name, values in areas.items()}
    return {**figures, **joined, "sensitivity": moved.double().cpu()}


def sensitivity_rows(count: int) -> Tensor:
    """Choose 32 of so many images, or all of fewer, evenly."""
    return torch.linspace(0, count - 1, min(_SENSITIVITY_IMAGES, count)).long()
