"""A trial in a process of its own, as its worker sees it."""

from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.trial_main import run_trial
from igkd_hpo.trial.task import AttemptTask


class TrialProcess(Child):
    """A forked process that trains. Raises IgkdError: no process can be forked."""

    def __init__(self, server: ForkServer, task: AttemptTask) -> None:
        super().__init__(server, run_trial, task)

    def describe_end(self, what: str = "the trial process") -> str:
        """Return in words how it ended."""
        return super().describe_end(what)
