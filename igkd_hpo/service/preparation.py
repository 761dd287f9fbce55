"""Making a study's assets from a process that must stay light: `igkd-hpo prepare -` does it in a child."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from igkd_hpo.config.study import Study
from igkd_hpo.errors import AssetError
from igkd_hpo.search.study import AssetPins, SearchStudy, check_pins
from igkd_hpo.service.signals import StopSignal
from igkd_hpo.settings import Settings


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
    child = subprocess.Popen(
        [sys.executable, "-m", "igkd_hpo", "prepare", "-", "--json", "--device", device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(settings),
    )
    asked_to_stop = False
    text: str | None = study.model_dump_json()
    while True:
        try:
            output, _ = child.communicate(text, timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            text = None
            if stop.received is not None and not asked_to_stop:
                asked_to_stop = True
                child.send_signal(signal.SIGTERM)
    if stop.received is not None:
        raise PreparationFailed(128 + stop.received)
    if child.returncode < 0:
        raise AssetError(
            f"preparing the assets was ended by {signal.Signals(-child.returncode).name}; if memory ran out, free some "
            "or use smaller images, then run again: work already done is kept"
        )
    if child.returncode != 0:
        raise PreparationFailed(child.returncode)
    made: dict[str, Any] = json.loads(output)
    return AssetPins(dataset_sha256=made["dataset_sha256"], teacher_sha256=made["teacher_sha256"])


def prepare_existing(study: SearchStudy, settings: Settings, *, device: str, stop: StopSignal) -> None:
    """Make what is missing of a study's assets here, and see that they are the study's.

    Raises:
        PreparationFailed: it ended with an error, or a signal came.
        DataError, TeacherError: this host's content is not the study's.
    """
    here = prepare_in_child(study.config, settings, device=device, stop=stop)
    if study.pins is not None:
        check_pins(study.name, study.pins, here)
