"""`launch --engine slurm`, with programs in the place of Slurm's; tests/engines/slurm/test_cluster.py has it real."""

import signal
import subprocess
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sqlalchemy import make_url

import igkd_hpo
from igkd_hpo.api.supervise import open_engine
from igkd_hpo.engines.local.fork_server import ForkServer
from tests.cli.conftest import Workspace, json_of, wait_until
from tests.cli.test_search import first_epochs, longer
from tests.fixtures.forking import COMMAND

PASSWORD = "s3cret-word"
SBATCH = """\
#!/bin/bash
printf '%s\\n' "$@" > sbatch-arguments
cat > sbatch-script
env -0 > sbatch-environment
case "$*" in
  *--partition=none*) echo 'sbatch: error: invalid partition specified: none' >&2; exit 1;;
  *--test-only*) echo 'sbatch: Job 7 to start at noon' >&2;;
  *) echo '7;cluster';;
esac
"""
SQUEUE = "#!/bin/bash\nprintf '7 Resources\\n7 Resources\\n'\n"
SCONTROL = '#!/bin/bash\necho "$@" > requeued\nkill -TERM $PPID\n'


@pytest.fixture
def user(workspace: Workspace, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A user of a cluster whose database has a password."""
    url = make_url(postgresql_url).set(password=PASSWORD)
    workspace.database = url.render_as_string(hide_password=False)
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL}.items():
        (workspace.folder / "bin").mkdir(exist_ok=True)
        (workspace.folder / "bin" / name).write_text(text)
        (workspace.folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(workspace.folder / "bin"), prepend=":")
    return workspace


def start_task(user: Workspace, server: ForkServer) -> subprocess.Popen[str]:
    """Run the submitted script as Slurm would, with a worker that forks its trials from a server that is there."""
    script = (user.folder / "sbatch-script").read_text()
    there = dict(pair.split("=", 1) for pair in (user.folder / "sbatch-environment").read_text().split("\0") if pair)
    there |= {"SLURM_JOB_ID": "17", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "n1"}
    server.keep_running()
    (user.folder / "command.py").write_text(COMMAND)
    script = script.replace(" -P -m igkd_hpo", f" {user.folder}/command.py {server.descriptor}")
    task = subprocess.Popen(
        ["bash", "-c", script],
        env=there,
        cwd="/",
        pass_fds=[server.descriptor],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    user.started.append(task)
    return task


def test_a_study_is_submitted_and_its_tasks_hand_back_what_they_hold(
    user: Workspace, one_fork_server: ForkServer
) -> None:
    user.write(longer())
    flags = ("--engine", "slurm", "--workers", "3", "--sbatch=--partition=gpu '--comment=two words'")
    said = user.here("launch", "study.yaml", *flags)
    assert "submitted as job 7" in said.stderr
    assert "scancel 7" in said.stderr
    arguments = (user.folder / "sbatch-arguments").read_text().splitlines()
    assert {"--array=0-2", "--comment=two words", "--export=ALL"} <= set(arguments)
    (log,) = [Path(value.removeprefix("--output=")) for value in arguments if value.startswith("--output=")]
    assert (user.folder / log).parent.is_dir()
    notes = (user.folder / "storage" / "logs" / "slurm-jobs.jsonl").read_text()
    for told in (said.stdout, said.stderr, *arguments, (user.folder / "sbatch-script").read_text(), notes):
        assert PASSWORD not in told
    assert user.states()[TrialState.RUNNING] == 0

    (status,) = json_of(user.here("status", "--json"))
    assert status["queued"] == {"Resources": 2}
    assert "2 for Resources" in user.here("status").stdout

    for number, requeued in ((signal.SIGTERM, False), (signal.SIGUSR1, True)):
        task = start_task(user, one_fork_server)
        wait_until(lambda: first_epochs(user), "a trial with an epoch")
        (lease,) = user.leases()
        assert lease["host"] == "n1"
        task.send_signal(number)
        talk, _ = task.communicate(timeout=60)
        assert task.returncode == (-signal.SIGTERM if requeued else 143), talk
        assert (user.folder / "requeued").exists() is requeued
        assert user.leases() == []
    (trial,) = (trial for trial in user.trials() if trial.intermediate_values)
    assert (trial.user_attrs["attempts"], trial.user_attrs["attempts_without_progress"]) == (2, 0)


def test_a_dry_run_is_a_script_with_what_slurm_says_of_it(user: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = "postgresql+psycopg://somebody:word@elsewhere/studies"
    flags = ("study.yaml", "--engine", "slurm", "--dry-run", "--storage", elsewhere, "--allow-import", "mine")
    script = user.here("launch", *flags, "--workers", "2", "--sbatch=--time=04:00:00").stdout
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert "#SBATCH --time=04:00:00\n" in script
    assert script.endswith("\n# sbatch: Job 7 to start at noon\n")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "--test-only" in (user.folder / "sbatch-arguments").read_text().splitlines()
    told = (user.folder / "sbatch-environment").read_text().split("\0")
    assert {f"IGKD_HPO_STORAGE={elsewhere}", "IGKD_HPO_ALLOW_IMPORT=mine"} <= set(told)

    assert "invalid partition" in user.refused_here("launch", *flags, "--sbatch=--partition=none", code=1)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sbatch" in user.refused_here("launch", *flags, code=2)
    assert user.trials() == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--engine", "slurm"), "sqlite"),
        (("--engine", "slurm", "--workers", "auto"), "auto"),
        (("--engine", "slurm", "--workers", "0"), "0"),
        (("--engine", "slurm", "--sbatch=--array=1"), "--array=1"),
        (("--sbatch=--partition=gpu",), "--engine slurm"),
        (("--engine", "slrm"), "slrm"),
    ],
)
def test_what_cannot_be_submitted_is_refused(workspace: Workspace, flags: tuple[str, ...], named: str) -> None:
    assert named in workspace.refused_here("launch", "study.yaml", *flags, code=2)
    assert not (workspace.folder / "storage" / "igkd_hpo.db").exists()


def test_a_folder_whose_logs_slurm_would_lose_is_refused(user: Workspace) -> None:
    folder = user.folder / "100%A"
    folder.mkdir()
    (folder / "study.yaml").write_text(longer())
    user.folder = folder
    assert "100%A" in user.refused_here("launch", "study.yaml", "--engine", "slurm", code=2)


def test_confirm_does_not_run_here_what_was_meant_for_slurm() -> None:
    with pytest.raises(igkd_hpo.UsageError):
        open_engine(igkd_hpo.Slurm())
