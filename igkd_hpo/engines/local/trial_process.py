"""A trial in a process of its own, as its worker sees it."""

from igkd_hpo.engines.local.child import Child
from igkd_hpo.engines.local.fork_server import ForkServer
from igkd_hpo.engines.local.trial_main import run_trial
from igkd_hpo.trial.task import AttemptTask


def start_trial(server: ForkServer, task: AttemptTask) -> Child:
    """Start a process that trains. Raises IgkdError: none can be forked."""
    return Child(server, run_trial, task)
