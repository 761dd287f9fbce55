"""Every command that the documents show is one that the program has, and each is run.

They run in the order of the pages, in one folder, as by a reader who types them all. The built-in studies and the
reader's own images are tiny there, and numbers are small. All commands run in this process, and make their assets here.
No worker and no trial process is started, since each would import torch.
"""

import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from igkd_hpo.cli.app import COMMANDS, main
from igkd_hpo.engines.in_process import InProcessEngine
from igkd_hpo.engines.local.fork_server import ForkServer
from tests.fixtures.documents import Line, blocks, command_lines, commands_in_sentences, program
from tests.fixtures.measuring import MeasuringHere

CPU = torch.device("cpu")
NOT_RUN = {
    r"python3 -m venv|\.venv/bin/|pip install|source \.venv": "sets up an environment, as CI does",
    r"mkdocs serve": "serves until Ctrl-C; tests/check.py builds what it serves",
    r"igkd-hpo status .*--watch": "watches until Ctrl-C; tests/cli/test_status.py watches it",
    r"igkd-hpo dashboard": "serves until Ctrl-C; tests/dashboard/test_dashboard.py asks it",
    r"docker |kubectl |\(umask|echo ": "needs a container engine or a cluster; tests/test_compose.py reads the files",
    r"igkd-hpo launch .*--engine slurm|sbatch ": "needs a cluster; tests/cli/test_slurm.py has programs in its place",
    r"ssh |curl ": "needs another host",
    r"createdb|psql |export IGKD_HPO_(STORAGE|REMOTE)=": "needs a server; tests/cli/test_postgresql.py has one",
    r"igkd-hpo launch .*--engine ray": "needs a cluster; tests/engines/ray has one",
    r"igkd-hpo launch --storage sqlite:////home": "writes where the reader keeps a database",
    r"python benchmarks/": "takes hours",
}
SMALLER = {
    r"--workers (\d+|auto)": "--workers 1",
    r"--trials \d+": "--trials 5",
    r"(igkd-hpo confirm).*": r"\1 digits --top 1 --seeds 2 --workers 1",
    r"(igkd-hpo ladder).*": r"\1 digits --rungs 512 --seeds 2 --workers 1",
}
SMALLER_IN_PYTHON = {
    "workers=2": "workers=1",
    "trials=8": "trials=3",
    "rungs=[4.1, 12]": "rungs=[512]",
    '"n_trials": 6': '"n_trials": 4',
    '"dataset": {"name": "digits"}': '"dataset": {"name": "digits", "validation_fraction": 0.5}',
    '"width": 0.5, "epochs": 15}': '"width": 0.25, "epochs": 5}, "attribution": {"n_steps": 2}',
    '"crop_padding": 1': '"crop_padding": 0',  # the teacher and its answers are those of the study above
    '"epochs": 4': '"epochs": 1',
    '"width": 0.25,\n': '"width": 0.25, "layers_removed": 17,\n',
}
TINY = """\
dataset: {name: digits, validation_fraction: 0.5}
teacher: {width: 0.25, epochs: 5}
attribution: {n_steps: 2}
augmentation: {crop_padding: 0, horizontal_flip: false}
training: {epochs: 1}
hyperparameters:
  temperature: {type: float, low: 1.0, high: 8.0}
  alpha: 0.5
  overlay_probability: 0.1
  overlay_strength: 0.5
  learning_rate: {type: float, low: 1.0e-2, high: 0.1, log: true}
  layers_removed: 17
  width: 0.25
pruner: {name: none}
n_trials: 4
controls: [student]
"""


def reason_not_to_run(line: Line) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line.text)), None)


def test_every_command_shown_is_one_of_the_program(repository: Path) -> None:
    seen = 0
    commands = program().commands
    for line in command_lines(repository):
        words = line.words
        # In a container the program's own words come after its name, or after a service's.
        places = [
            place
            for place, (word, following) in enumerate(pairwise(words))
            if word in ("igkd-hpo", "worker-gpu") and (following in commands or place == 0)
        ]
        if not places:
            continue
        words = words[places[0] :]
        assert words[1] in commands, f"{line.page}: {line.text}"
        seen += 1
        try:
            commands[words[1]].make_context(words[1], words[2:])
        except Exception as error:
            pytest.fail(f"{line.page}: {line.text}: {error}")
    assert seen > 40


def test_every_command_in_a_sentence_is_one_of_the_program(repository: Path) -> None:
    commands = program().commands
    found = commands_in_sentences(repository)
    assert len(found) > 10
    for line in found:
        words = [word for word in line.text.rstrip("\\").split()[1:] if word != "--debug"]
        assert words[0] in commands, f"{line.page}: {line.text}"
        flags = {flag for param in commands[words[0]].params for flag in param.opts}
        assert {word for word in words if word.startswith("-")} <= flags, f"{line.page}: {line.text}"


def test_every_reason_not_to_run_a_command_is_still_needed(repository: Path) -> None:
    lines = command_lines(repository)
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line.text) for line in lines)] == []


def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assets are made, and trials are trained, in this process."""
    for user in ("api.supervise", "api.worker", "engines.local.engine"):
        monkeypatch.setattr(f"igkd_hpo.{user}.LocalEngine", lambda server=None: InProcessEngine())
    monkeypatch.setattr("igkd_hpo.api.init.Measuring", MeasuringHere)
    monkeypatch.setattr(ForkServer, "keep_running", lambda server: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # a second thread has nothing to do on such images


@pytest.fixture
def folder(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder: the files that the documents let them write, with tiny studies."""
    studies = {}
    for name in ("digits", "cifar10"):
        studies[name] = tmp_path / "builtin" / f"{name}.yaml"
        studies[name].parent.mkdir(exist_ok=True)
        studies[name].write_text(f"name: {name}\n{TINY}")
    monkeypatch.setattr("igkd_hpo.api.source.builtin_studies", lambda: studies)
    (tmp_path / "my-study.yaml").write_text(f"name: my-study\n{TINY}")

    (flowers,) = [text for _, text in blocks(repository, "yaml") if "name: flowers" in text]
    for pattern, small in {
        r"image_size: \d+": "image_size: 8, validation_fraction: 0.3",
        r"epochs: \d+": "epochs: 1",
        r"(teacher:.*)width: [\d.]+, epochs: \d+": r"\1width: 0.1, epochs: 6",
        r"crop_padding: \d+": "crop_padding: 0",
        r"layers_removed: 5": "layers_removed: 17\n  batch_size: 16",
        r"n_trials: \d+": "n_trials: 3",
    }.items():
        flowers, n = re.subn(pattern, small, flowers)
        assert n, pattern
    (tmp_path / "flowers.yaml").write_text(flowers + "attribution: {n_steps: 100}\ncontrols: [student]\n")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for bright, name in enumerate(("daisy", "tulip")):
            (tmp_path / "flowers" / split / name).mkdir(parents=True)
            for number in range(40):
                pixels = generator.integers(150 * bright, 150 * bright + 100, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "flowers" / split / name / f"{number:04}.png")
    (module,) = [text for _, text in blocks(repository, "python") if "my_networks.py" in text]
    (tmp_path / "my_networks.py").write_text(module)
    Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / "five.png")
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_the_shown_network_gives_logits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    logits = import_module("my_networks").small()(torch.zeros(3, 3, 8, 8))
    assert logits.shape == (3, 2)


def run_here(line: Line, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run it to its end, in this process, with exit code 0."""
    with patch.object(sys, "argv", ["igkd-hpo", *arguments]), pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, f"{line.page}: {line.text}: exit code {ended.value.code}\n{said.out}\n{said.err}"


@pytest.mark.timeout(600)  # some thirty commands
def test_every_command_shown_runs(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_processes(monkeypatch)
    done: set[str] = set()
    for line in command_lines(repository):
        if reason_not_to_run(line) is not None:
            continue
        text = " ".join(line.words)
        assert text.startswith("igkd-hpo "), f"{line.page}: say how to run it, or why not: {line.text}"
        for pattern, small in SMALLER.items():
            text = re.sub(pattern, small, text)
        if text in done:  # shown twice, run once
            continue
        run_here(line, text.split()[1:], capsys)
        done.add(text)
    assert {text.split()[1] for text in done} | {"dashboard"} == set(COMMANDS)
    for made in ("best.yaml", "report.html", "digits-bundle/model.onnx"):
        assert (folder / made).is_file(), made
    assert os.listdir(folder / "storage")


def test_the_python_of_the_guide_runs(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_processes(monkeypatch)
    names: dict[str, Any] = {}
    shown = [text for page, text in blocks(repository, "python") if page.endswith("guide/python.md")]
    assert len(shown) > 5
    python = "\n".join(shown)
    for number, small in SMALLER_IN_PYTHON.items():
        assert number in python
        python = python.replace(number, small)
    exec(compile(python, "python.md", "exec"), names)
    said = capsys.readouterr().out
    assert "3 of 3 trials finished" in said
    assert "confirmed with " in said
    assert "no study or folder named 'digit' (did you mean digits?)" in said
    for made in ("best.yaml", "report.html"):
        assert (folder / made).is_file(), made
