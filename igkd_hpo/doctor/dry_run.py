"""What a launch would run, where, and about how long: two networks are timed for real, the rest is arithmetic."""

import os
import time
from dataclasses import dataclass

from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.probe import Probe
from igkd_hpo.errors import AssetMissing, IgkdError
from igkd_hpo.search.storage import mask
from igkd_hpo.settings import Settings
from igkd_hpo.sources import SOURCES

_WARM_UP_STEPS = 2
_TIMED_STEPS = 3
_BACKWARD_COST = 3  # a training step costs about three forward passes
_LIKELY_STEPS = 16  # `auto` chose 8 to 16 for the teachers that it was tried with


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds, before pruning saves any of them.

    Args:
        step: one training step of the middle configuration.
        trial: all epochs of one trial, validation included.
        search: all trials that are left, on all workers.
        assets: teacher, logits and maps; 0 when they are there.
    """

    step: float
    trial: float
    search: float
    assets: float


def describe_launch(
    study: Study, settings: Settings, *, workers: int, trials: int | None, device: str, measured: Probe | None = None
) -> str:
    """Several lines for people. Nothing is created. Raises what opening the storage or choosing the device raises.

    Args:
        measured: what the number of workers was chosen by.
    """
    import torch

    from igkd_hpo.distillation.device import choose_device

    chosen = choose_device(device)
    slots = max(1, workers)
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // slots)
    torch.set_num_threads(threads)
    finished, recorded_total = _so_far(study, settings)
    total = trials or recorded_total
    lines = [
        f"study {study.name}: {total} trials of {study.training.epochs} epochs, {finished} finished",
        f"  controls: {', '.join(study.controls) or 'none'}",
        *(f"  searches {name}: {_span(setting)}" for name, setting in study.hyperparameters.searched().items()),
        f"storage: {mask(settings.storage_url)}",
        *([str(measured)] if measured else []),
        *(
            f"worker {slot}: {choose_device(device, slot)}, {threads} thread{'s' if threads > 1 else ''}"
            for slot in range(slots)
        ),
    ]
    shape = _shape(study, settings)
    if shape is None:
        return "\n".join(
            [*lines, f"time: not known before the images are read; `igkd-hpo prepare` reads {study.dataset.root}"]
        )
    n_images, size, num_classes, prepared = shape
    lines += _limits(study, num_classes, size)
    gpus = len({choose_device(device, slot) for slot in range(slots)})
    parallel = min(slots, cores) if chosen.type == "cpu" else gpus * (measured.gain if measured else 1)
    left = max(0, total - finished)
    estimate = _estimate(
        study, n_images=n_images, size=size, num_classes=num_classes, prepared=prepared,
        left=left, parallel=parallel, device=chosen,
    )  # fmt: skip
    made = "there" if prepared else f"about {_duration(estimate.assets)} to make (images, teacher, logits, maps)"
    return "\n".join(
        [
            *lines,
            f"assets: {made}",
            f"time: roughly {_duration(estimate.search)} of training for what is left, {left} trial{'s'[: left != 1]}",
            f"  {_duration(estimate.trial)} each without pruning ({1000 * estimate.step:.0f} ms a step, measured)",
        ]
    )


def _limits(study: Study, num_classes: int, size: int) -> list[str]:
    from igkd_hpo.trial.student import check_fit

    fit = check_fit(study, num_classes=num_classes, image_size=(size, size))
    if fit.smallest is not None:
        return [f"limits: no configuration can be trained: the smallest student has {fit.smallest}"]
    if fit.controls is not None:
        return [f"limits: the controls will not be trained: their student has {fit.controls}"]
    return ["limits: some configurations are within them"] if study.limits.any else []


def _so_far(study: Study, settings: Settings) -> tuple[int, int]:
    """Finished trials, and the total that a launch without --trials would run to."""
    from igkd_hpo.search.storage import bare_connection, check_url, has_tables, open_storage
    from igkd_hpo.search.study import check_unchanged

    url = check_url(settings.storage_url)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        return 0, study.n_trials
    with bare_connection(url) as connection:
        if not has_tables(connection):
            return 0, study.n_trials
    existing = check_unchanged(open_storage(settings.storage_url, create=False), study)
    if existing is None:
        return 0, study.n_trials
    total = existing.n_trials if study.n_trials == existing.config.n_trials else study.n_trials
    return existing.counts().finished, total


def _shape(study: Study, settings: Settings) -> tuple[int, int, int, bool] | None:
    """Training images, side in pixels, classes, and whether the assets are there; None when only reading would tell."""
    from igkd_hpo.assets.study_assets import open_assets

    try:
        assets = open_assets(study, settings)
    except AssetMissing:
        published = SOURCES[study.dataset.name].published
        if published is None:
            return None
        n_images, size, classes = published
        return round(n_images * (1 - study.dataset.validation_fraction)), size, classes, False
    except IgkdError:
        return None
    images = assets.dataset.train_images
    return len(images), images.shape[-1], len(assets.dataset.class_names), True


def _estimate(
    study: Study,
    *,
    n_images: int,
    size: int,
    num_classes: int,
    prepared: bool,
    left: int,
    parallel: float,
    device: object,
) -> Estimate:
    import torch

    from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
    from igkd_hpo.distillation.augmentation import n_views
    from igkd_hpo.trial.student import make_body

    assert isinstance(device, torch.device)
    middle = study.hyperparameters.middle()
    batch = min(int(middle["batch_size"]), n_images)
    student = make_body(study.student.architecture, middle, num_classes)
    step = _time_step(student, batch, size, device)
    share = study.dataset.validation_fraction / (1 - study.dataset.validation_fraction)
    trial = study.training.epochs * -(-n_images // batch) * step * (1 + share / _BACKWARD_COST)
    assets = 0.0
    if not prepared:
        teacher = mobilenet_v2(num_classes=num_classes, width=study.teacher.width)
        per_image = _time_step(teacher, batch, size, device) / batch
        folds = study.teacher.folds
        seen = (folds - 1) / folds if folds else 1.0  # of the images, by each teacher that is trained
        learning = study.teacher.epochs * _BACKWARD_COST * seen if study.teacher.checkpoint is None else 1.0
        answering = n_views(study.augmentation.crop_padding, study.augmentation.horizontal_flip)
        steps = study.attribution.n_steps
        answering += (_LIKELY_STEPS if steps == "auto" else steps) * _BACKWARD_COST
        passes = study.teacher.n_networks * learning + study.teacher.n_answers * answering
        assets = passes / _BACKWARD_COST * n_images * per_image
    return Estimate(step=step, trial=trial, search=left * trial / parallel, assets=assets)


def _time_step(network: object, batch: int, size: int, device: object) -> float:
    """Seconds of forward, backward and nothing else, the median of a few."""
    import torch

    assert isinstance(network, torch.nn.Module)
    assert isinstance(device, torch.device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(_WARM_UP_STEPS + _TIMED_STEPS):
        begun = time.perf_counter()
        network(pixels).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds[_WARM_UP_STEPS:])[_TIMED_STEPS // 2]


def _span(setting: object) -> str:
    from igkd_hpo.config.space import Choices, FloatRange, IntRange, WordChoices, shown

    if isinstance(setting, Choices | WordChoices):
        return "one of " + ", ".join(map(shown, setting.choices))
    assert isinstance(setting, FloatRange | IntRange)
    return f"{setting.low:g} to {setting.high:g}{', log scale' if setting.log else ''}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
