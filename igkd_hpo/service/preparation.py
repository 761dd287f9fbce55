"""Making a study's assets from a process that must stay light: `igkd-hpo prepare -` does it in a forked one."""

import json
import os
import signal
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from igkd_hpo.config.study import Study
from igkd_hpo.errors import AssetError
from igkd_hpo.search.study import AssetPins, SearchStudy, check_pins
from igkd_hpo.service.fork_server import Command, Forked, fork_server
from igkd_hpo.service.signals import StopSignal
from igkd_hpo.settings import Settings

_KILL_SECONDS = 5.0
_LOOK_SECONDS = 1.0  # how often to see that the server still runs


class PreparationFailed(Exception):
    """The child has said on standard error what is wrong; only its exit code is left to pass on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"preparing the assets ended with exit code {exit_code}")
        self.exit_code = exit_code


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child these settings; a URL with a password must not stand in its arguments."""
    return os.environ | {
        "IGKD_HPO_STORAGE": settings.storage_url,
        "IGKD_HPO_DATA": str(settings.data_root),
        "IGKD_HPO_ALLOW_IMPORT": ",".join(sorted(settings.allow_import)),
    }


def prepare_in_child(study: Study, settings: Settings, *, device: str, stop: StopSignal) -> AssetPins:
    """Make what is missing, with the child's progress on this terminal; what the data and the teacher are here.

    Raises:
        PreparationFailed: it ended with an error, or a signal came to us.
        AssetError: a signal ended it.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered:
        asked.write(study.model_dump_json().encode())
        asked.seek(0)
        command = Command(
            arguments=("prepare", "-", "--json", "--device", device),
            environment=worker_environment(settings),
            folder=str(Path.cwd()),
        )
        child = fork_server().fork(command, [asked.fileno(), answered.fileno(), 2])
        try:
            exit_code = _wait(child, stop)
        finally:
            child.close(_KILL_SECONDS)
        if stop.received is not None:
            raise PreparationFailed(128 + stop.received)
        answered.seek(0)
        answer = answered.read()
        if exit_code is None and answer:
            exit_code = 0  # whoever knew the code was killed, but it got to its last word
        if exit_code is None or exit_code < 0:
            how = "with the server that it was forked from" if exit_code is None else signal.Signals(-exit_code).name
            raise AssetError(
                f"preparing the assets was ended by {how}; if memory ran out, free some "
                "or use smaller images, then run again: work already done is kept"
            )
        if exit_code != 0:
            raise PreparationFailed(exit_code)
        made: dict[str, Any] = json.loads(answer)
    return AssetPins(dataset_sha256=made["dataset_sha256"], teacher_sha256=made["teacher_sha256"])


def _wait(child: Forked, stop: StopSignal) -> int | None:
    """Until it has ended; on a signal it is asked to."""
    while not child.ended:
        if stop.received is None:
            wait([stop.descriptor, *child.waitables()], _LOOK_SECONDS)
        elif child.pid is None:
            break
        else:
            child.send_signal(signal.SIGTERM)
            wait(child.waitables(), _LOOK_SECONDS)
        child.take_in()
    return child.exit_code


def prepare_existing(study: SearchStudy, settings: Settings, *, device: str, stop: StopSignal) -> None:
    """Make what is missing of a study's assets here, and see that they are the study's.

    Raises:
        PreparationFailed: it ended with an error, or a signal came.
        DataError, TeacherError: this host's content is not the study's.
    """
    here = prepare_in_child(study.config, settings, device=device, stop=stop)
    if study.pins is not None:
        check_pins(study.name, study.pins, here)
