"""One trial from its task to its last epoch, in the process that trains; it hears of no database.

`attempt` is a claimed trial with all that can happen to it, and every end of it is a message. `run_attempt` is the
training alone, for whoever has no use for messages.
"""

import logging
import os
import traceback
from typing import Protocol

import torch

from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.config.cost import excess, why_infeasible
from igkd_hpo.distillation.device import choose_device, lasting_name
from igkd_hpo.distillation.memory import exhausted_memory, memory_in_use, shares_memory
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import host_name
from igkd_hpo.trial.build import PreparedTrial, make_trial, overlay_examples
from igkd_hpo.trial.checkpoint import Journal, open_journal
from igkd_hpo.trial.device_share import hold_device
from igkd_hpo.trial.messages import (
    Crashed,
    Diverged,
    EpochDone,
    Infeasible,
    Measured,
    Message,
    OutOfMemory,
    Overlays,
    Started,
    Trained,
    Waiting,
)
from igkd_hpo.trial.pictures import draw_strip
from igkd_hpo.trial.student import measure_student
from igkd_hpo.trial.task import AttemptTask, TrialTask

_log = logging.getLogger(__name__)
_TRACEBACK_CHARACTERS = 4000  # the end of a traceback says what happened; a database column should stay small
_OVERLAYS = 5


class Reporter(Protocol):
    """Who hears of a trial's progress."""

    def report(self, message: Message) -> None:
        """Take a message; what this raises ends the trial."""
        ...

    def watch(self, training: Training) -> None:
        """Take the training before its first step; another thread may read its `steps_done`."""
        ...


def attempt(task: AttemptTask, reporter: Reporter) -> None:
    """Run one attempt at a claimed trial on a device of this host; its end, whatever it is, is the last message."""
    try:
        _attempt_on_device(task, reporter)
    except NonFiniteLoss as error:
        reporter.report(Diverged(epoch=error.epoch))
    except IgkdError as error:
        traceback.print_exc()
        reporter.report(Crashed(reason=str(error), traceback=""))
    except OSError as error:
        if isinstance(error, BrokenPipeError | ConnectionResetError):  # nobody hears us any more
            raise
        _report_crash(error, reporter)
    except Exception as error:
        _report_crash(error, reporter)


def _report_crash(error: Exception, reporter: Reporter) -> None:
    traceback.print_exc()
    reporter.report(Crashed(reason=_last_line(error), traceback=traceback.format_exc()[-_TRACEBACK_CHARACTERS:]))


def _last_line(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def _attempt_on_device(task: AttemptTask, reporter: Reporter) -> None:
    device = choose_device(task.device, task.slot)
    name = f"{host_name()}-{lasting_name(device)}"
    locks = task.settings.paths.device_locks
    with hold_device(locks, name, alone=task.alone, on_wait=lambda: reporter.report(Waiting())):
        try:
            _attempt_within_limits(task, reporter, device)
        except Exception as error:
            memory = exhausted_memory(error)
            if memory is None:
                raise
            traceback.print_exc()
            its_own = memory == "device" or device.type == "cpu"
            too_large = task.alone and its_own and not shares_memory(device)
            reporter.report(OutOfMemory(reason=_last_line(error), too_large=too_large))


def _attempt_within_limits(task: AttemptTask, reporter: Reporter, device: torch.device) -> None:
    trial = task.trial
    assets = open_assets(trial.study, task.settings)
    here = AssetPins(dataset_sha256=assets.dataset.sha256, teacher_sha256=assets.teacher_sha256)
    if task.pins is not None:
        check_pins(trial.study.name, task.pins, here)
    journal = open_journal(task.checkpoint, trial, here)
    limits = trial.study.limits
    cost = task.cost or measure_student(
        trial.hyperparameters,
        architecture=trial.study.student.architecture,
        num_classes=assets.dataset.num_classes,
        image_size=assets.dataset.image_size,
        teacher_parameters=assets.teacher_parameters,
        limits=limits,
    )
    # What began within the limits goes on, also where a slower host times it otherwise.
    began = journal.earlier is not None
    reporter.report(Measured(cost=cost, excess={} if began else excess(limits, cost)))
    if not began and (beyond := why_infeasible(limits, cost)) is not None:
        _log.info("not trained: %s", beyond)
        reporter.report(Infeasible(reason=beyond))
        return
    if (png := _draw_overlays(trial, assets)) is not None:
        reporter.report(Overlays(png=png))
    run_attempt(trial, assets, reporter, device=device, journal=journal)


def _draw_overlays(task: TrialTask, assets: Assets) -> bytes | None:
    strength = float(task.hyperparameters["overlay_strength"])
    mode = str(task.hyperparameters["overlay_mode"])
    examples = overlay_examples(assets, strength=strength, mode=mode, count=_OVERLAYS)
    return None if examples is None else draw_strip(examples.images, examples.maps, examples.overlays)


def run_attempt(
    task: TrialTask, assets: Assets, reporter: Reporter, *, device: torch.device, journal: Journal | None = None
) -> PreparedTrial:
    """Train one student to its last epoch, and return what was trained.

    Args:
        assets: of the task's study.
        journal: goes on where it ends, and keeps each further epoch; None keeps nothing.

    Raises:
        NonFiniteLoss: an epoch's loss is not finite.
        IgkdError: the study cannot be trained here.
    """
    trial = make_trial(
        task.study, task.hyperparameters, assets, seed=task.seed, device=device, execution=task.execution
    )
    training = trial.training
    reporter.report(Started(pid=os.getpid(), device=str(device), execution=trial.execution))
    if journal is not None:
        for earlier in journal.metrics:
            _log.info("epoch %d again, accuracy %r", earlier.epoch, earlier.validation_accuracy)
            reporter.report(EpochDone(metrics=earlier, memory=None))
        if journal.result is not None:
            _log.info("result %r", journal.result)
            reporter.report(Trained(accuracy=journal.result))
            return trial
        journal.restore(training)
    reporter.watch(training)
    accuracy = 0.0
    for metrics in training.epochs():
        accuracy = metrics.validation_accuracy
        _log.info("epoch %d done, accuracy %r", metrics.epoch, accuracy)
        if journal is not None:
            journal.keep(training, metrics)
        reporter.report(EpochDone(metrics=metrics, memory=memory_in_use(device)))
    _log.info("result %r", accuracy)
    reporter.report(Trained(accuracy=accuracy))
    return trial
