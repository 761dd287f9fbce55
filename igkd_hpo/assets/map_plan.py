"""Plan of a study's attribution maps on this machine: steps, points at once and precision, measured on a few images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.progress import Progress
from igkd_hpo.assets.teachers import average_answers
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.memory import exhausted_memory
from igkd_hpo.distillation.models import Network, to_pixels

_STEPS = (8, 12, 16, 20, 24, 32, 48)
_MANY_STEPS = 64
# Mean rank correlation with the maps of 64 steps. The goal is 0.98 with those of the paper's 50; the rest is for the
# luck of 32 images, over which the mean varies by 0.003 either way, and for those 50, which are not the limit either.
_AGREEMENT = 0.983  # 0.98 with the paper's 50 steps is the goal; means of 32 images vary by 0.003 around it
_SAME_AGREEMENT = 0.99  # of bfloat16 with float32, both with the same steps
_PROBED = 32  # images
_AT_ONCE = 8  # of these between two steps of progress: those of 64 steps take as long as all others together
# Pixels that go through the network at once, with gradients: 64 or 256 points of 32x32. On a CPU, 4 images at 16 steps
# took 0.19 s each and 0.7 GB, 16 images 0.35 s and 5.8 GB (MobileNet-V2 of full width, one core).
_PIXELS_AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 18}
_PIXELS_TRIED = {"cpu": (14, 15, 16, 17), "cuda": (17, 18, 19, 20, 21, 22, 23, 24)}  # powers of 2
_TIMES = 3  # each number of points: once to warm up, and the faster of two
_WORTH = 50  # the whole work against the search for a faster way
_GAIN = 1.05  # what is worth more memory


@dataclass(frozen=True, kw_only=True)
class MapPlan:
    """Settings with which maps are made.

    Args:
        n_steps: points on each line.
        agreement: mean rank correlation of the probe's maps with those of 64 steps, where that chose n_steps.
        points: number that goes through the network at once.
        precision: float32 or bfloat16.
    """

    n_steps: int
    agreement: float | None
    points: int
    precision: str = "float32"


def make_plan(study: Study, dataset: Dataset, network: Network, *, device: torch.device, progress: Progress) -> MapPlan:
    """Choose the fewest steps whose maps have converged, if the study says `auto`, and the fastest way to make them.

    Args:
        network: the first of the study's teachers, on the device.
    """
    rows = probe_rows(dataset.train_labels)

    def maps(rows: Tensor, n_steps: int, points: int, precision: str = "float32") -> Tensor:
        plan = MapPlan(n_steps=n_steps, agreement=None, points=points, precision=precision)
        return explain(study, dataset, [network], rows, plan=plan, device=device)[0]

    points = points_at_once(study, dataset, device)
    steps, agreement = study.attribution.n_steps, None
    if steps == "auto":
        total = len(rows) * (_MANY_STEPS + sum(_STEPS))  # of which most are left out
        with progress.task("trying how many steps maps need", total) as advance:

            def tried_maps(some: int) -> Tensor:
                made = []
                for few in torch.split(rows, _AT_ONCE):
                    made.append(maps(few, some, points))
                    advance(len(few) * some)
                return torch.cat(made)

            steps, agreement = choose_steps(tried_maps)
    tried = _affordable(study, dataset, device, n_steps=steps)
    if points in tried:

        def rate(points: int) -> float:
            some = torch.linspace(0, len(dataset.train_images) - 1, max(1, points // steps)).long()
            return len(some) / min(_seconds(lambda: maps(some, steps, points)) for _ in range(_TIMES))

        points = choose_points(rate, tried)
    on_gpu = device.type == "cuda"
    precision = choose_precision(lambda some: maps(rows, steps, points, some)) if on_gpu else "float32"
    return MapPlan(n_steps=steps, agreement=agreement, points=points, precision=precision)


def probe_rows(labels: Tensor, count: int = _PROBED) -> Tensor:
    """Choose so many images, or all of fewer, spread over the classes in proportion to their sizes."""
    order = labels.argsort(stable=True)
    return order[torch.linspace(0, len(labels) - 1, min(count, len(labels))).long()]


def points_at_once(study: Study, dataset: Dataset, device: torch.device) -> int:
    """Return how many images, as the teacher sees them, go through it at once, with gradients, if nothing is tried."""
    return max(1, _PIXELS_AT_ONCE[device.type] // pixels_seen(study, dataset))


def explain(
    study: Study, dataset: Dataset, networks: Sequence[Network], rows: Tensor, *, plan: MapPlan, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Make the maps of some training images, and their completeness errors, on the CPU; see `integrated_gradients`."""
    images, labels = dataset.shown.train_images[rows], dataset.train_labels[rows]
    if study.attribution.target == "prediction":
        labels = average_answers(networks, images, device=device).argmax(dim=1)
    colour = torch.tensor(dataset.shown.mean)
    maps, errors = make_maps(networks, images, labels, baseline=colour, plan=plan, device=device)
    return fit_maps(maps, dataset.image_size).cpu(), errors.float().cpu()


def make_maps(
    networks: Sequence[Network],
    images: Tensor,
    targets: Tensor,
    *,
    baseline: Tensor,
    plan: MapPlan,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Make the maps of uint8 images and their completeness errors, on the device, as they are planned."""
    from igkd_hpo.distillation.attribution import integrated_gradients  # captum: only the making of maps needs it

    return integrated_gradients(
        networks,
        to_pixels(images.to(device)),
        targets.to(device),
        baseline=baseline,
        n_steps=plan.n_steps,
        points=plan.points,
        precision=getattr(torch, plan.precision),
    )


def fit_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, H, W) in the size of a student's images: of each of its pixels the mean of what lies there."""
    return maps if maps.shape[1:] == size else F.interpolate(maps[:, None], size, mode="area")[:, 0]


def choose_steps(maps: Callable[[int], Tensor]) -> tuple[int, float]:
    """Choose the fewest steps whose maps (B, H, W) order the pixels as those of 64 steps do.

    Completeness of 5 % asked for 12, 20 and 50 steps in three measurements, and says little of that order: the sum is a
    small difference of large attributions with different signs. Returns the mean rank correlation with the steps.
    """
    from igkd_hpo.distillation.attribution import rank_correlation

    many = maps(_MANY_STEPS)
    for steps in _STEPS:
        agreement = float(rank_correlation(maps(steps), many).mean())
        if agreement >= _AGREEMENT:
            return steps, agreement
    return _MANY_STEPS, 1.0


def choose_points(rate: Callable[[int], float], tried: Sequence[int]) -> int:
    """Choose the number of points with the highest rate; more memory must gain 5 %.

    Args:
        rate: measures images a second with so many points at once.
        tried: from few to many; no more are tried after two that gained nothing, or one that memory was too small for.
    """
    best, fastest, without_gain = tried[0], 0.0, 0
    for points in tried:
        try:
            speed = rate(points)
        except Exception as error:
            if exhausted_memory(error) is None or fastest == 0:
                raise
            break
        if speed > fastest * _GAIN:
            best, fastest, without_gain = points, speed, 0
        else:
            without_gain += 1
        if without_gain == 2:
            break
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the largest number took would stay
    return best


def choose_precision(maps: Callable[[str], Tensor]) -> str:
    """Choose bfloat16 where the probe's maps with it are nearly those with float32, and made sooner; else float32."""
    from igkd_hpo.distillation.attribution import rank_correlation

    reduced = rank_correlation(maps("bfloat16"), maps("float32")).mean()
    if not reduced >= _SAME_AGREEMENT:
        return "float32"
    seconds = {word: min(_seconds(partial(maps, word)) for _ in range(2)) for word in ("float32", "bfloat16")}
    return "bfloat16" if seconds["bfloat16"] * _GAIN < seconds["float32"] else "float32"


def _affordable(study: Study, dataset: Dataset, device: torch.device, *, n_steps: int) -> list[int]:
    """List the numbers of points that can be tried for a fiftieth of the work."""
    sizes = sorted({max(1, (1 << power) // pixels_seen(study, dataset)) for power in _PIXELS_TRIED[device.type]})
    work = len(dataset.train_images) * n_steps
    return [points for points, all_so_far in zip(sizes, accumulate(sizes), strict=True)
            if all_so_far * _TIMES * _WORTH <= work]  # fmt: skip


def pixels_seen(study: Study, dataset: Dataset) -> int:
    """Return the number of pixels of an image as the teacher sees it."""
    height, width = dataset.image_size
    return max(height * width, (study.teacher.input_size or 0) ** 2)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
