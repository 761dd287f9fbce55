"""The process of one attempt: it trains, writes a checkpoint after each epoch, and tells its worker through a pipe.

It is forked from a fork server that has imported this module, and torch with it, and nothing more: no connection, no
thread, no CUDA call. It talks to no database. When the worker's end of the pipe closes, it leaves.
"""

import base64
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.assets.study_assets import Assets, open_assets
from igkd_hpo.config.cost import excess, why_infeasible
from igkd_hpo.config.reading import study_from_json
from igkd_hpo.config.study import Study
from igkd_hpo.distillation.device import choose_device, lasting_name
from igkd_hpo.distillation.heap import keep_freed_memory
from igkd_hpo.distillation.memory import exhausted_memory, memory_in_use, shares_memory
from igkd_hpo.distillation.training import NonFiniteLoss, Training
from igkd_hpo.errors import IgkdError
from igkd_hpo.settings import host_name
from igkd_hpo.trial.build import make_trial, overlay_examples
from igkd_hpo.trial.checkpoint import Checkpoint, checkpoint_mark, newest_checkpoint, save_checkpoint
from igkd_hpo.trial.device_share import hold_device
from igkd_hpo.trial.pictures import draw_strip
from igkd_hpo.trial.student import measure_student
from igkd_hpo.trial.task import TrialTask

_log = logging.getLogger(__name__)
_STEPS_SECONDS = 3.0
_TRACEBACK_CHARACTERS = 4000  # the end of a traceback says what happened; a database column should stay small


def run_trial_process(task: TrialTask, pipe: Connection) -> None:
    """Entry point of the process. Messages are JSON objects, told apart by `kind`:

    waiting (for the device, every moment), infeasible (reason, excess: by limit, cost), ready (pid, device, execution,
    excess, cost: the student's, by attribute, overlays: a PNG in base64 or null), steps (done: so far, every few
    seconds as long as there are more), epoch (the fields of EpochMetrics; memory: those of MemoryUse, where it was
    trained just now), result (accuracy), non_finite (epoch), out_of_memory (text, too_large: it was alone on the
    device), error (text, traceback).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    study = study_from_json(task.study, source="the database")
    log = task.settings.paths.trial_log(study.name, task.number, task.attempt)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    threading.Thread(target=_leave_with_worker, args=(pipe,), daemon=True).start()
    torch.set_num_threads(task.threads)
    keep_freed_memory()

    one_at_a_time = threading.Lock()

    def send(kind: str, **content: Any) -> None:
        with one_at_a_time:
            pipe.send_bytes(json.dumps({"kind": kind, **content}).encode())

    try:
        _run_attempt(task, study, send)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)
    except NonFiniteLoss as error:
        send("non_finite", epoch=error.epoch)
    except IgkdError as error:
        traceback.print_exc()
        send("error", text=str(error), traceback="")
    except Exception as error:
        traceback.print_exc()
        send("error", text=_last_line(error), traceback=traceback.format_exc()[-_TRACEBACK_CHARACTERS:])


def _leave_with_worker(pipe: Connection) -> None:
    """The worker never writes to the pipe: that it becomes readable means that the worker is gone."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _tell_steps(training: Training, send: Callable[..., None]) -> None:
    """For ever: how far the training is, whenever that has changed."""
    told = -1
    while True:
        if training.steps_done != told:
            told = training.steps_done
            try:
                send("steps", done=told)
            except OSError:  # the pipe is closed: the process is about to leave
                return
        time.sleep(_STEPS_SECONDS)


def _last_line(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def _run_attempt(task: TrialTask, study: Study, send: Callable[..., None]) -> None:
    device = choose_device(task.device, task.slot)
    name = f"{host_name()}-{lasting_name(device)}"
    with hold_device(task.settings.paths.device_locks, name, alone=task.alone, on_wait=lambda: send("waiting")):
        try:
            _train(device, task, study, send)
        except Exception as error:
            memory = exhausted_memory(error)
            if memory is None:
                raise
            traceback.print_exc()
            its_own = memory == "device" or device.type == "cpu"
            too_large = task.alone and its_own and not shares_memory(device)
            send("out_of_memory", text=_last_line(error), too_large=too_large)


def _train(device: torch.device, task: TrialTask, study: Study, send: Callable[..., None]) -> None:
    paths = task.settings.paths
    assets = open_assets(study, task.settings)
    here = AssetPins(dataset_sha256=assets.dataset.sha256, teacher_sha256=assets.teacher_sha256)
    if task.pins is not None:
        check_pins(study.name, task.pins, here)
    mark = checkpoint_mark(study, dataset_sha256=here.dataset_sha256, teacher_sha256=here.teacher_sha256)
    found = newest_checkpoint(
        paths.trial_checkpoints(study.name, task.number),
        fingerprint=mark,
        hyperparameters=task.hyperparameters,
        seed=task.seed,
    )
    cost = task.cost or measure_student(
        task.hyperparameters,
        num_classes=assets.dataset.num_classes,
        image_size=assets.dataset.image_size,
        teacher_parameters=assets.teacher_parameters,
        limits=study.limits,
    )
    # What began within the limits goes on, also where a slower host times it otherwise.
    facts = {"cost": cost.as_attributes(), "excess": {} if found else excess(study.limits, cost)}
    beyond = None if found else why_infeasible(study.limits, cost)
    if beyond is not None:
        _log.info("not trained: %s", beyond)
        send("infeasible", reason=beyond, **facts)
        return
    trial = make_trial(study, task.hyperparameters, assets, seed=task.seed, device=device)
    training = trial.training
    send(
        "ready",
        pid=os.getpid(),
        device=str(device),
        execution=trial.execution.model_dump(mode="json"),
        overlays=_draw_overlays(task, assets),
        **facts,
    )

    metrics = list(found.metrics) if found else []
    for earlier in metrics:
        _log.info("epoch %d again, accuracy %r", earlier.epoch, earlier.validation_accuracy)
        send("epoch", **asdict(earlier))
    if found and found.result is not None:
        _log.info("result %r", found.result)
        send("result", accuracy=found.result)
        return
    if found and found.training is not None:
        training.load_state_dict(found.training)
        _log.info("going on after epoch %d", training.completed_epochs)

    path: Path = paths.checkpoint(study.name, task.number, task.attempt)
    threading.Thread(target=_tell_steps, args=(training, send), daemon=True).start()
    for epoch in training.epochs():
        metrics.append(epoch)
        _log.info("epoch %d done, accuracy %r", epoch.epoch, epoch.validation_accuracy)
        finished = epoch.epoch == study.training.epochs
        state = training.state_dict()
        save_checkpoint(
            path,
            Checkpoint(
                fingerprint=mark,
                hyperparameters=task.hyperparameters,
                seed=task.seed,
                training=None if finished else state,
                weights=training.network.body.state_dict(),
                metrics=tuple(metrics),
                result=epoch.validation_accuracy if finished else None,
            ),
        )
        send("epoch", **asdict(epoch), memory=memory_in_use(device))
    _log.info("result %r", metrics[-1].validation_accuracy)
    send("result", accuracy=metrics[-1].validation_accuracy)


def _draw_overlays(task: TrialTask, assets: Assets) -> str | None:
    strength = float(task.hyperparameters["overlay_strength"])
    mode = str(task.hyperparameters["overlay_mode"])
    examples = overlay_examples(assets, strength=strength, mode=mode, count=5)
    if examples is None:
        return None
    return base64.b64encode(draw_strip(examples.images, examples.maps, examples.overlays)).decode()
