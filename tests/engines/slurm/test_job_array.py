"""The batch script, run by a real bash: what it starts, and what it does when a signal comes."""

import os
import shlex
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.engines.slurm.job_array import JobArray, sbatch_options
from igkd_hpo.errors import UsageError

# What means something to a shell, to Slurm or to a reader of lines.
PRINTABLE = st.text("""a-é'"\\$`!#;&|<>*?[]{}()~%=""", max_size=12)
WORDS = st.text("""a-é'"\\$`!#;&|<>*?[]{}()~%= \n\t\r\x1b\u2028""", max_size=12)
ECHO = """\
#!/bin/bash
{ pwd; printf '%s\\0' "$IGKD_HPO_HOST" "$@"; } > "$SAID"
"""
# It waits for TERM, and ends with the code that it is told.
WORKER = """\
#!/bin/bash
trap 'kill $!; exit '"$CODE" TERM
sleep 300 &
echo ready
wait
"""
# Slurm ends the batch script of a job that is requeued.
SCONTROL = """\
#!/bin/bash
echo "$@"
kill -TERM $PPID
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def array(tmp_path: Path) -> JobArray:
    return JobArray(
        study="digits",
        tasks=3,
        folder=tmp_path,
        log=Path("storage/logs/digits/slurm-%A_%a.out"),
        python=str(program(tmp_path / "worker", WORKER)),
        device="auto",
    )


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("echo") / 'say it\'s "so"', ECHO)


@given(study=WORDS, folder=WORDS, device=WORDS, comment=PRINTABLE)
def test_whatever_the_names_the_worker_gets_them_as_they_are(
    echo: Path, study: str, folder: str, device: str, comment: str
) -> None:
    place = echo.parent / f"-{folder}"
    place.mkdir(exist_ok=True)
    array = JobArray(
        study=study, tasks=1, folder=place, log=Path("logs/x"), python=str(echo), device=device, sbatch=(comment,)
    )
    said = echo.with_name("said")
    there = {"SLURM_CPUS_ON_NODE": "2", "SLURMD_NODENAME": "n1", "SAID": str(said), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-s"], input=array.script().encode(), env=there, check=True)
    lines, *words = said.read_bytes().decode().split("\0")[:-1]
    assert lines == f"{place}\nn1"
    assert words[:4] == ["-P", "-m", "igkd_hpo", "worker"]
    assert words[4:] == ["--device", device, "--threads", "2", "--", study]
    said.unlink()
    directives = array.script().split("\n\n")[0].split("\n")[1:]
    assert [shlex.split(line.removeprefix("#SBATCH ")) for line in directives] == [[o] for o in array.options]


@pytest.mark.parametrize(
    ("signals", "code", "requeued"),
    [
        ("USR1", 143, True),
        ("USR1", 0, False),  # the study was finished just then
        ("USR1", 1, False),  # or stopped
        ("TERM", 143, False),
        ("USR1 TERM", 143, False),  # scancel of a task whose time is nearly up
    ],
)
def test_time_that_is_up_requeues_and_scancel_does_not(
    array: JobArray, tmp_path: Path, signals: str, code: int, requeued: bool
) -> None:
    program(tmp_path / "scontrol", SCONTROL)
    path = f"{tmp_path}:{os.environ['PATH']}"
    there = os.environ | {"PATH": path, "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "1", "CODE": str(code)}
    with subprocess.Popen(
        ["bash", "-c", array.script()], env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as task:
        assert task.stdout is not None
        assert task.stdout.readline() == "ready\n"
        for name in signals.split():
            task.send_signal(signal.Signals[f"SIG{name}"])
        said, complaints = task.communicate(timeout=60)
    assert said == ("requeue 17\n" if requeued else "")
    assert task.returncode == (-signal.SIGTERM if requeued else code)
    assert complaints == ""


def test_a_folder_that_a_node_does_not_see_ends_the_task(array: JobArray, tmp_path: Path) -> None:
    script = replace(array, folder=tmp_path / "elsewhere", python="true").script()
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "elsewhere" in done.stderr


def test_the_options_of_the_user_stand_before_those_that_must_hold(array: JobArray) -> None:
    options = list(replace(array, sbatch=("--job-name=mine", "--output=x")).options)
    assert options.index("--job-name=igkd-hpo-digits") < options.index("--job-name=mine")
    assert options.index("--output=x") < options.index("--array=0-2") < len(options)


@pytest.mark.parametrize(
    "text",
    ["--array=0-3", "--arr 0-3", "-a0-3", "--signal=USR2@10", "--no-req", "--export=NONE", "-D/tmp", "--wrap=ls"],
)
def test_an_option_that_would_undo_the_launch_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="leave it out"):
        sbatch_options(text)


@pytest.mark.parametrize("text", ["job.sh", "-p gpu", "--exclusive job.sh", "--", "-", "'--comment=a\nb'", "--x='"])
def test_what_is_no_option_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        sbatch_options(text)


def test_options_are_split_as_by_a_shell() -> None:
    wanted = ("--partition=gpu", "-t04:00:00", "--comment=it's two", "--error=e.txt", "--exclusive")
    assert sbatch_options(shlex.join(wanted)) == wanted
    assert sbatch_options("") == ()
