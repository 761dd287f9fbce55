"""The device: whether it exists, computes as asked, and has memory for that many trials side by side."""

import math
import os

import torch

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.host_memory import free_memory
from igkd_hpo.config.resolution import training_on
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES, choose_device
from igkd_hpo.distillation.execution import resolve_compile, resolve_precision
from igkd_hpo.distillation.streaming import fits
from igkd_hpo.doctor.check import Check, failed, grade, not_checked, ok
from igkd_hpo.doctor.sizes import step_bytes, table_bytes
from igkd_hpo.engines.local.probe import FORK_SERVER_BYTES, SLOT_BYTES
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.words import byte_size, counted

_GROUP = "devices"
# Of its trial process alone, beside its networks: measured as unique set size with `digits` on CPUs, torch 2.15.
_TRIAL_BYTES = 135 << 20
_TIGHT = 0.8  # of what is free
_CROWDED = 2  # trials for each core


def check_devices(
    study: Study | None, dataset: Dataset | None, settings: Settings, *, workers: int, device: str
) -> tuple[torch.device, list[Check]]:
    """Return where to compute, the CPU where the device cannot be used, and the checks of it."""
    try:
        slots = [choose_device(device, slot) for slot in range(workers)]
    except UsageError as error:
        rest = [not_checked(_GROUP, name, "the device cannot be used") for name in ("precision", "memory", "cores")]
        return torch.device("cpu"), [failed(_GROUP, "device", error), *rest]
    cores = len(os.sched_getaffinity(0))
    usable = ok(_GROUP, "device", ", ".join(dict.fromkeys(_device_in_words(slot, cores) for slot in slots)))
    if study is None:
        return slots[0], [usable, not_checked(_GROUP, "memory", "the study file has faults")]
    crowd = f"{counted(workers, 'trial')} on {counted(cores, 'core')}"
    advice = f"start {counted(cores, 'worker')}: more of them finish no sooner"
    return slots[0], [
        usable,
        _check_precision(study, slots[0]),
        _check_memory(study, dataset, settings, slots),
        grade(_GROUP, "cores", crowd, advice, doubtful=workers > _CROWDED * cores),
    ]


def _device_in_words(device: torch.device, cores: int) -> str:
    return (
        f"{device} ({torch.cuda.get_device_name(device)})"
        if device.type == "cuda"
        else f"cpu ({counted(cores, 'core')})"
    )


def _check_precision(study: Study, device: torch.device) -> Check:
    try:
        training = training_on(study, device.type)
        precision = resolve_precision(training.precision, device)
        resolve_compile(training.compile, device, precision)
        return ok(_GROUP, "precision", precision)
    except UsageError as error:
        return failed(_GROUP, "precision", error)


def _check_memory(study: Study, dataset: Dataset | None, settings: Settings, slots: list[torch.device]) -> Check:
    if dataset is None:
        return not_checked(_GROUP, "memory", "the images cannot be used")
    step = step_bytes(study, dataset, settings)
    if slots[0].type == "cpu":
        each, most = SLOT_BYTES + _TRIAL_BYTES + step, len(slots)
        free = max(0, free_memory() - FORK_SERVER_BYTES)
    else:
        tables = table_bytes(study, dataset)
        images = sum(math.prod(split.shape) for split in (dataset.train_images, dataset.validation_images))
        kept = images + tables["maps"]
        kept = kept if fits(kept, slots[0]) else 0  # else they are read ahead of each step
        each = CUDA_CONTEXT_BYTES + step + kept + tables["logits"] + tables["attention"]
        # The GPU that has least for each of its trials decides.
        shares = {gpu: (torch.cuda.mem_get_info(gpu)[0], slots.count(gpu)) for gpu in slots}
        free, most = min(shares.values(), key=lambda share: share[0] / share[1])
    need = most * each
    side_by_side = "1 trial" if most == 1 else f"{most} trials side by side"
    finding = f"{side_by_side}: about {byte_size(need)}; {byte_size(free)} are free"
    advice = f"start {max(1, int(_TIGHT * free // each))} workers, or lower batch_size or width"
    if free < each:
        advice = "lower batch_size or width, or free memory"
    return grade(_GROUP, "memory", finding, advice, faulty=need > free, doubtful=need > _TIGHT * free)
