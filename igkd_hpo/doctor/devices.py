"""The device: is it there, can it compute as asked, and is there memory for that many trials side by side."""

import os
from typing import TYPE_CHECKING

from igkd_hpo.assets.host_memory import free_memory
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import CUDA_CONTEXT_BYTES
from igkd_hpo.doctor.check import Check, failed, fault, not_checked, ok, warning
from igkd_hpo.doctor.sizes import step_bytes, table_bytes
from igkd_hpo.engines.local.probe import FORK_SERVER_BYTES, SLOT_BYTES
from igkd_hpo.errors import UsageError
from igkd_hpo.words import byte_size

if TYPE_CHECKING:
    import torch

    from igkd_hpo.assets.dataset import Dataset

_GROUP = "devices"
# Of its trial process alone, beside its networks: measured as unique set size with `digits` on CPUs, torch 2.15.
_TRIAL_BYTES = 135 << 20
_TIGHT = 0.8  # of what is free
_CROWDED = 2  # trials for each core


def check_devices(
    study: Study | None, dataset: "Dataset | None", *, workers: int, device: str
) -> "tuple[torch.device, list[Check]]":
    """Where to compute, the CPU where the device cannot be used, and what is wrong with that."""
    import torch

    from igkd_hpo.distillation.device import choose_device

    names = ("precision", "memory", "cores")
    try:
        slots = [choose_device(device, slot) for slot in range(workers)]
    except UsageError as error:
        rest = [not_checked(_GROUP, name, "the device cannot be used") for name in names]
        return torch.device("cpu"), [failed(_GROUP, "device", error), *rest]
    cores = len(os.sched_getaffinity(0))
    found = ", ".join(dict.fromkeys(_name(slot, cores) for slot in slots))
    if study is None:
        return slots[0], [ok(_GROUP, "device", found), not_checked(_GROUP, "memory", "the study file has faults")]
    return slots[0], [
        ok(_GROUP, "device", found),
        _check_precision(study, slots[0]),
        _check_memory(study, dataset, slots),
        _check_cores(slots, cores),
    ]


def _name(device: "torch.device", cores: int) -> str:
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({cores} cores)"


def _check_precision(study: Study, device: "torch.device") -> Check:
    from igkd_hpo.distillation.execution import resolve_compile, resolve_precision

    try:
        precision = resolve_precision(study.training.precision, device)
        resolve_compile(study.training.compile, device, precision)
        return ok(_GROUP, "precision", precision)
    except UsageError as error:
        return failed(_GROUP, "precision", error)


def _check_memory(study: Study, dataset: "Dataset | None", slots: "list[torch.device]") -> Check:
    import torch

    name = "memory"
    if dataset is None:
        return not_checked(_GROUP, name, "the images cannot be used")
    step = step_bytes(study, dataset)
    if slots[0].type == "cpu":
        each, most = SLOT_BYTES + _TRIAL_BYTES + step, len(slots)
        free = max(0, free_memory() - FORK_SERVER_BYTES)
    else:
        images = dataset.train_images.nbytes + dataset.validation_images.nbytes
        tables = sum(table_bytes(study, dataset))
        each = CUDA_CONTEXT_BYTES + step + images + tables
        # The GPU that has least for each of its trials decides.
        shares = {gpu: (torch.cuda.mem_get_info(gpu)[0], slots.count(gpu)) for gpu in slots}
        free, most = min(shares.values(), key=lambda share: share[0] / share[1])
    need = most * each
    found = f"{most} trials side by side take about {byte_size(need)}, and {byte_size(free)} are free"
    advice = f"start {max(1, int(_TIGHT * free // each))} workers, or lower batch_size or width"
    if need > free:
        return fault(_GROUP, name, found, advice if free >= each else "lower batch_size or width, or free memory")
    if need > _TIGHT * free:
        return warning(_GROUP, name, found, advice)
    return ok(_GROUP, name, found)


def _check_cores(slots: "list[torch.device]", cores: int) -> Check:
    name = "cores"
    found = f"{len(slots)} trials on {cores} cores"
    if len(slots) > _CROWDED * cores:
        return warning(_GROUP, name, found, f"start {cores} workers: more of them finish no sooner")
    return ok(_GROUP, name, found)
