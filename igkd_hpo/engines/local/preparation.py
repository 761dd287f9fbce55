"""Making a study's assets from a process that must stay light: `igkd-hpo prepare -` does it in a forked one.

That answers with one line of JSON on standard output: what it made, or what is wrong.
"""

import json
import os
import signal
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from igkd_hpo import errors
from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.config.study import Study
from igkd_hpo.engines.local.fork_server import Command, Forked, fork_server
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import AssetError, IgkdError, Interrupted
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings

_KILL_SECONDS = 5.0
_LOOK_SECONDS = 1.0  # how often to see that the server still runs


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child these settings; a URL with a password must not stand in its arguments."""
    return os.environ | {
        "IGKD_HPO_STORAGE": settings.storage_url,
        "IGKD_HPO_DATA": str(settings.data_root),
        "IGKD_HPO_ALLOW_IMPORT": ",".join(sorted(settings.allow_import)),
    }


def error_line(error: IgkdError) -> str:
    """What the child answers with instead of its assets."""
    return json.dumps({"error": type(error).__name__, "message": str(error)})


def prepare_in_child(
    study: Study, settings: Settings, *, device: str, stop: StopSignal, progress: bool = True
) -> AssetPins:
    """Make what is missing; what the data and the teacher are here.

    Args:
        progress: show the child's progress on this process's standard error.

    Raises:
        Interrupted: a signal came to us.
        AssetError: the child did not come to an end.
        IgkdError: what the child raised.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as said:
        asked.write(study.model_dump_json().encode())
        asked.seek(0)
        command = Command(
            arguments=("prepare", "-", "--supervised", "--device", device),
            # rich draws no bars where TTY_COMPATIBLE is 0: a notebook's descriptor 2 looks like a terminal to a child
            environment=worker_environment(settings) | ({} if sys.stderr.isatty() else {"TTY_COMPATIBLE": "0"}),
            folder=str(Path.cwd()),
        )
        child = fork_server().fork(command, [asked.fileno(), answered.fileno(), 2 if progress else said.fileno()])
        try:
            exit_code = _wait(child, stop)
        finally:
            child.close(_KILL_SECONDS)
        if stop.received is not None:
            raise Interrupted(
                f"stopped while the assets of {study.name} were made; run again: work already done is kept",
                stop.received,
            )
        answered.seek(0)
        answers = answered.read().splitlines()
        said.seek(0)
        last_words = said.read().decode(errors="replace").strip().splitlines()
    if not answers and (exit_code is None or exit_code < 0):
        how = "with the server that it was forked from" if exit_code is None else signal.Signals(-exit_code).name
        raise AssetError(
            f"preparing the assets was ended by {how}; if memory ran out, free some "
            "or use smaller images, then run again: work already done is kept"
        )
    if not answers:
        why = last_words[-1] if last_words else "see above"
        raise AssetError(f"preparing the assets ended with exit code {exit_code}: {why}")
    answer: dict[str, Any] = json.loads(answers[-1])  # it may have been killed after its last word
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return AssetPins(dataset_sha256=answer["dataset_sha256"], teacher_sha256=answer["teacher_sha256"])


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


def prepare_existing(
    study: SearchStudy, settings: Settings, *, device: str, stop: StopSignal, progress: bool = True
) -> None:
    """Make what is missing of a study's assets here, and see that they are the study's.

    Raises:
        Interrupted, AssetError, IgkdError: as `prepare_in_child`.
        DataError, TeacherError: this host's content is not the study's.
    """
    here = prepare_in_child(study.config, settings, device=device, stop=stop, progress=progress)
    if (pins := study.read().pins) is not None:
        check_pins(study.name, pins, here)
