"""The life of a trial, from its task to its last epoch, in the process that trains it; no database is involved.

`attempt` runs a claimed trial and reports all that happens to it as messages. `run_attempt` is its last part, the
training alone.
"""

import logging
import os
import traceback
from typing import Protocol

import torch

from igkd_hpo.assets.pins import check_pins
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.config.cost import excess, why_infeasible
from igkd_hpo.distillation.class_table import MOST_CLASSES, ClassTable, class_table
from igkd_hpo.distillation.device import choose_device, lasting_name
from igkd_hpo.distillation.memory import exhausted_memory, memory_in_use, shares_memory
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import host_name
from igkd_hpo.trial import messages
from igkd_hpo.trial.build import PreparedTrial, make_trial, overlay_examples
from igkd_hpo.trial.checkpoint import Journal, open_journal
from igkd_hpo.trial.device_share import hold_device
from igkd_hpo.trial.pictures import draw_strip
from igkd_hpo.trial.step import memory_format
from igkd_hpo.trial.student import measure_student
from igkd_hpo.trial.task import AttemptTask, TrialTask

_log = logging.getLogger(__name__)
_TRACEBACK_CHARACTERS = 4000  # the end of a traceback says what happened; a database column should stay small
_OVERLAYS = 5


class Reporter(Protocol):
    """Receiver of a trial's messages."""

    def report(self, message: messages.Message) -> None:
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
        reporter.report(messages.Diverged(epoch=error.epoch))
    except IgkdError as error:
        traceback.print_exc()
        reporter.report(messages.Crashed(reason=str(error), traceback=""))
    except (BrokenPipeError, ConnectionResetError):  # nobody hears us any more
        raise
    except Exception as error:
        traceback.print_exc()
        end = traceback.format_exc()[-_TRACEBACK_CHARACTERS:]
        reporter.report(messages.Crashed(reason=_last_line(error), traceback=end))


def _last_line(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def _attempt_on_device(task: AttemptTask, reporter: Reporter) -> None:
    """Wait for the device, and report when its memory, or the host's, runs out."""
    device = choose_device(task.device, task.slot)
    name = f"{host_name()}-{lasting_name(device)}"
    locks = task.settings.paths.device_locks
    with hold_device(locks, name, alone=task.alone, on_wait=lambda: reporter.report(messages.Waiting())):
        try:
            _attempt_within_limits(task, reporter, device)
        except Exception as error:
            memory = exhausted_memory(error)
            if memory is None:
                raise
            traceback.print_exc()
            on_device = memory == "device" or device.type == "cpu"
            too_large = task.alone and on_device and not shares_memory(device)
            reporter.report(messages.OutOfMemory(reason=_last_line(error), too_large=too_large))


def _attempt_within_limits(task: AttemptTask, reporter: Reporter, device: torch.device) -> None:
    """Open the study's assets, measure the student, and train it unless it is beyond a limit."""
    trial = task.trial
    assets = open_assets(trial.study, task.settings)
    dataset = assets.dataset
    pins = assets.pins
    if task.pins is not None:
        check_pins(trial.study.name, task.pins, pins)
    journal = open_journal(task.checkpoint, trial, pins, remote=task.settings.remote)
    limits = trial.study.limits
    cost = task.cost or measure_student(
        trial.study,
        trial.hyperparameters,
        dataset.num_classes,
        dataset.image_size,
        assets.teacher_parameters,
        allow_import=task.settings.allow_import,
        memory_format=memory_format(
            trial.study, str(trial.hyperparameters["architecture"]), dataset, task.settings, device
        ),
    )
    # A trial that began within the limits goes on, also where a slower host times it otherwise.
    resumed = journal.earlier is not None
    reporter.report(messages.Measured(cost=cost, excess={} if resumed else excess(limits, cost, task.stratum)))
    if not resumed and (reason := why_infeasible(limits, cost, task.stratum)) is not None:
        _log.info("not trained: %s", reason)
        reporter.report(messages.Infeasible(reason=reason))
        return
    if (png := _draw_overlays(trial, assets)) is not None:
        reporter.report(messages.Overlays(png=png))
    run_attempt(trial, assets, reporter, device=device, journal=journal)


def _draw_overlays(task: TrialTask, assets: Assets) -> bytes | None:
    strength, mode = float(task.hyperparameters["overlay_strength"]), str(task.hyperparameters["overlay_mode"])
    examples = overlay_examples(assets, strength=strength, mode=mode, count=_OVERLAYS)
    return None if examples is None else draw_strip(examples.images, examples.maps, examples.overlays)


def run_attempt(
    task: TrialTask, assets: Assets, reporter: Reporter, *, device: torch.device, journal: Journal | None = None
) -> PreparedTrial:
    """Train one student to its last epoch, and return its training.

    Args:
        assets: of the task's study.
        journal: says where to go on, and keeps each further epoch; None keeps nothing.

    Raises:
        NonFiniteLoss: an epoch's loss is not finite.
        IgkdError: the study cannot be trained here.
    """
    trial = make_trial(
        task.study, task.hyperparameters, assets, seed=task.seed, device=device, execution=task.execution
    )
    training = trial.training
    reporter.report(messages.Started(pid=os.getpid(), device=str(device), execution=trial.execution))
    if journal is not None:
        for earlier in journal.metrics:
            _log.info("epoch %d again, accuracy %r", earlier.epoch, earlier.validation_accuracy)
            reporter.report(messages.EpochDone(metrics=earlier, memory=None))
        if journal.result is not None:
            _log.info("result %r", journal.result)
            journal.restore(training)
            reporter.report(messages.Trained(accuracy=journal.result, classes=_classes(training, assets)))
            return trial
        journal.restore(training)
    reporter.watch(training)
    accuracy = 0.0
    for metrics in training.epochs():
        accuracy = metrics.validation_accuracy
        _log.info("epoch %d done, accuracy %r", metrics.epoch, accuracy)
        if journal is not None:
            journal.keep(training, metrics)
        reporter.report(messages.EpochDone(metrics=metrics, memory=memory_in_use(device)))
    _log.info("result %r", accuracy)
    reporter.report(messages.Trained(accuracy=accuracy, classes=_classes(training, assets)))
    return trial


def _classes(training: Training, assets: Assets) -> ClassTable:
    return class_table(training.tally(), assets.dataset.class_names, most=MOST_CLASSES)
