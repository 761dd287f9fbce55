"""The driver's process: `python -m igkd_hpo.engines.ray.driver_main`, with questions on standard input.

It alone imports Ray. A process that is connected with a cluster is ended by Ray a minute after the cluster is gone,
hears Ray's signal handlers, and writes state dumps to standard error: none of this may reach a launch, which goes on.
Standard input ends when the launch does, however it ends; the workers are then ended in order.
"""

import os
import sys
from multiprocessing.connection import Connection

from igkd_hpo.engines.ray.messages import Connect, Launch, Probe, Stop
from igkd_hpo.errors import IgkdError, UsageError, first_line


def main() -> int:
    """Answer questions until there is nobody who asks."""
    questions = Connection(os.dup(sys.stdin.fileno()), writable=False)
    answers = Connection(os.dup(sys.stdout.fileno()), readable=False)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints goes into the log
    try:
        answers.send(_connect(questions.recv()))
        while True:
            match questions.recv():
                case Probe() as probe:
                    from igkd_hpo.engines.ray.slots import probe_nodes

                    answers.send(probe_nodes(probe))
                case Launch() as launch:
                    _run(launch, questions, answers)
                    return 0
    except (EOFError, BrokenPipeError):
        return 0


def _connect(asked: Connect) -> object:
    import ray
    from ray.exceptions import AuthenticationError

    from igkd_hpo.engines.ray.slots import cluster_reached

    try:
        ray.init(address=asked.address, log_to_driver=False, configure_logging=False)
        return cluster_reached()
    except AuthenticationError:
        return missing_token(asked.address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())
        if "Version mismatch" in what:
            what += "; launch from an environment with the cluster's own versions"
        return UsageError(f"no Ray cluster can be used at --address {asked.address}: {what}")
    except Exception as error:
        return IgkdError(f"Ray at --address {asked.address}: {type(error).__name__}: {first_line(error)}")


def missing_token(address: str) -> UsageError:
    """Return what to say to who has not the token of a cluster."""
    return UsageError(
        f"the Ray cluster at --address {address} takes nobody without its token; copy the file ~/.ray/auth_token of "
        "its head node to the same place here, mode 0600, or set RAY_AUTH_TOKEN"
    )


def _run(launch: Launch, questions: Connection, answers: Connection) -> None:
    from igkd_hpo.engines.ray.slots import Slots

    slots = Slots(launch, answers.send)
    asked: object = None
    try:
        while not isinstance(asked, Stop):
            slots.look()
            if questions.poll():
                asked = questions.recv()
    finally:
        answers.send(slots.stop())


if __name__ == "__main__":
    sys.exit(main())
