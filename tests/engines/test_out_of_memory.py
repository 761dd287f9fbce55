"""A trial that runs out of memory runs again with the device to itself; there it completes, or is too large."""

import itertools
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from optuna.trial import TrialState
from sklearn.datasets import load_digits

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.config.reading import parse_study
from igkd_hpo.engines.events import Event
from igkd_hpo.engines.local import child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.trial_process import start_trial
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.engines.worker import OneStudy, work
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Worker
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open
from igkd_hpo.settings import Settings, host_name
from igkd_hpo.trial.device_share import hold_device

# The nearest class mean, about 9 of 10 right. Asked by a trial, its process takes the next letter of a file: "x" runs
# out of memory as CUDA does, "h" as the host's allocator does, "k" is killed, "." answers.
HEAVY_TEACHER = """
import os, signal
from pathlib import Path
import numpy as np, torch

class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.means = torch.nn.Parameter(torch.tensor(np.load("means.npy"), dtype=torch.float32))
        self.fate = None

    def forward(self, pixels):
        fates = Path("fates")
        if self.fate is None and fates.exists():
            self.fate, *rest = fates.read_text()
            fates.write_text("".join(rest))
        match self.fate:
            case "x":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            case "h":
                torch.empty(1 << 45, dtype=torch.uint8)
            case "k":
                os.kill(os.getpid(), signal.SIGKILL)
        return -40 * torch.cdist(pixels.mean(dim=1).flatten(1), self.means)

def means():
    return Means()
"""

STUDY = """\
version: 1
name: heavy
dataset: {name: digits}
teacher: {architecture: "heavy_teacher:means", normalize: none, logits: online}
training: {epochs: 1}
hyperparameters:
  learning_rate: {type: float, low: 1.0e-3, high: 1.0e-1, log: true}
  temperature: 4.0
  alpha: 0.5
  overlay_probability: 0.0
  overlay_strength: 0.5
  batch_size: 256
  layers_removed: 15
  width: 0.25
pruner: {name: none}
n_trials: 2
max_retries: 0
controls: []
"""


def work_through(study: SearchStudy, settings: Settings, said: list[str]) -> None:
    """Be the study's worker, beside somebody who is on the device until a trial waits for it.

    The kernel's counter of what it killed goes up with every look.
    """
    held = hold_device(settings.paths.device_locks, host_name() + "-cpu", alone=False, on_wait=lambda: None)

    def hear(_: str, event: Event) -> None:
        if event.kind in {"waiting", "released"}:
            said.append(event.kind)
        if event.kind == "waiting":
            held.close()

    with StopSignal() as stop, patch.object(child, "oom_kills", itertools.count().__next__):
        work(
            OneStudy(study=study, settings=settings, worker=Worker(name="here", process=this_process())),
            settings,
            Slot(number=0, device="cpu", threads=1),
            start=partial(start_trial, ForkServer()),
            stop=stop,
            on_event=hear,
        )


def test_a_trial_that_ran_out_of_memory_runs_alone_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = load_digits(return_X_y=True)
    np.save(tmp_path / "means.npy", [images[labels == digit].mean(axis=0) / 16 for digit in range(10)])
    (tmp_path / "heavy_teacher.py").write_text(HEAVY_TEACHER)
    monkeypatch.syspath_prepend(tmp_path)
    settings = Settings.resolve(allow_import=("heavy_teacher",))
    study = parse_study(STUDY, source="test")
    prepare_assets(study, settings, device="cpu", progress=SilentProgress())
    storage = open_storage(settings.storage_url, create=True)
    found = create_or_open(storage, study, n_trials=None, pins=None)
    (tmp_path / "fates").write_text("x." + "hx" + "kk" + ".")
    said: list[str] = []
    work_through(found, settings, said)
    assert said[0] == "released"
    assert said[1] == "waiting", "the second attempt began beside us"
    assert said.count("released") == 3

    fitted, too_large, killed, untroubled = found.trials()
    # Not one failed, although the study allows no attempt in vain.
    assert fitted.state is untroubled.state is TrialState.COMPLETE
    assert (fitted.user_attrs["attempts"], fitted.user_attrs["out_of_memory"]) == (2, 1)
    assert "out_of_memory" not in untroubled.user_attrs
    for trial, why in ((too_large, "CUDA out of memory. Tried to allocate 2.00 GiB."), (killed, "by the kernel")):
        assert trial.state is TrialState.PRUNED
        assert is_infeasible(trial)
        assert trial.value is None
        assert (trial.user_attrs["attempts"], trial.user_attrs["out_of_memory"]) == (2, 2)
        assert trial.user_attrs["reason"].startswith("too large: out of memory with the device to itself: ")
        assert why in trial.user_attrs["reason"]
    assert (found.counts().finished, found.counts().infeasible) == (2, 2)
    storage.engine.dispose()
