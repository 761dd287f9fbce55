"""A job array of Slurm whose tasks are workers of a study: its options and its batch script, from plain facts."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from igkd_hpo.errors import UsageError

NOTICE_SECONDS = 120  # from USR1 to the end of the time; Slurm sends it up to 60 s sooner, and a worker needs 0 to 4

# Why an option of sbatch is none of the user's, by its name; sbatch takes names that are cut short as well.
_OURS = {
    "array": "--workers says how many tasks there are",
    "chdir": "tasks run in the folder of the launch",
    "clusters": "tasks are submitted to the cluster of this host",
    "export": "tasks get the address of the database in their environment",
    "no-requeue": "tasks go on after their time limit and after a dead node",
    "ntasks": "a task is one worker",
    "open-mode": "a task that goes on also goes on with its log",
    "parsable": "the number of the job is read",
    "requeue": "tasks go on after their time limit and after a dead node",
    "signal": "the script hands the trial back on USR1",
    "test-only": "--dry-run asks that",
    "wait": "launch submits and leaves",
    "wrap": "the script is igkd-hpo's",
}
_SHORT = {"a": "array", "D": "chdir", "M": "clusters", "n": "ntasks", "W": "wait"}

_SCRIPT = r"""
cd {folder} || exit
export IGKD_HPO_HOST="$SLURMD_NODENAME"  # `status` names nodes as sinfo does

told= again= worker=
hand_back() {{ told=1; [ -z "$worker" ] || kill -TERM "$worker"; }}
trap 'again=1; hand_back' USR1  # the time is nearly up: wait in the queue again
trap 'again=; hand_back' TERM  # scancel
{worker} --threads "${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}" -- {study} &
worker=$!
[ -z "$told" ] || hand_back
while wait "$worker"; code=$?; [ "$told" ]; do told=; done  # a signal ends `wait`, not the worker
trap - USR1 TERM
if [ "$again" ] && [ "$code" = 143 ]; then  # other codes: the study is finished, or stopped
  scontrol requeue "$SLURM_JOB_ID" && sleep 60  # Slurm ends the script meanwhile
fi
exit "$code"
"""


def sbatch_options(text: str) -> tuple[str, ...]:
    """Split what a user gives sbatch, as a shell does. Raises UsageError: it is not to be had here."""
    try:
        options = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--sbatch {text!r} cannot be split into words: {error}; close the quotation") from None
    for option in options:
        # What is no option would be the name of a script to sbatch, which would run it in the place of ours.
        if option in ("-", "--") or not option.startswith("-") or not option.isprintable():
            advice = "write each with its value in one word, such as --partition=gpu or -pgpu"
            raise UsageError(f"--sbatch holds {option!r}, which is no option of sbatch; {advice}")
        if option.startswith("--"):
            name = next((name for name in _OURS if name.startswith(option[2:].partition("=")[0])), None)
        else:
            name = _SHORT.get(option[1])
        if name is not None:
            raise UsageError(f"--sbatch holds {option!r}, but {_OURS[name]}; leave it out")
    return options


@dataclass(frozen=True, kw_only=True)
class JobArray:
    """The facts that a job array of workers is made of.

    Args:
        study: its name in the database.
        tasks: how many workers.
        folder: the absolute one to run in, which all nodes see.
        log: of each task, relative to `folder`, in Slurm's pattern; in a folder that is there.
        python: the interpreter, on all nodes.
        device: auto, cpu, cuda or cuda:N, of those that Slurm gives the task.
        sbatch: the user's options, see `sbatch_options`.
    """

    study: str
    tasks: int
    folder: Path
    log: Path
    python: str
    device: str
    sbatch: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The options for sbatch; of two of a kind the later counts."""
        return (
            f"--job-name=igkd-hpo-{self.log.parent.name}",
            f"--output={self.log}",
            *self.sbatch,
            f"--array=0-{self.tasks - 1}",
            "--ntasks=1",
            f"--signal=B:USR1@{NOTICE_SECONDS}",
            "--requeue",
            "--open-mode=append",
            "--export=ALL",
        )

    def script(self) -> str:
        """Write the batch script. It holds no address of a database: that is in the environment of `sbatch`."""
        directives = "\n".join(f"#SBATCH {shlex.quote(option)}" for option in self.options)
        worker = shlex.join([self.python, "-P", "-m", "igkd_hpo", "worker", "--device", self.device])
        body = _SCRIPT.format(folder=shlex.quote(str(self.folder)), worker=worker, study=shlex.quote(self.study))
        return f"#!/bin/bash\n{directives}\n{body}"
