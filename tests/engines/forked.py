"""What the tests let a fork server's children do."""

import os
import pickle
import sys
from multiprocessing.connection import Connection


def call_there(asked: tuple[str, dict[str, str], bytes], pipe: Connection) -> None:
    """Do what a request asks for in this folder, with this environment."""
    folder, environment, request = asked
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    function, argument = pickle.loads(request)
    function(argument, pipe)


def leave(code: int, pipe: Connection) -> None:
    """End with this exit code."""
    sys.exit(code)


def answer(argument: object, pipe: Connection) -> None:
    """Send the argument back and a variable of the environment."""
    pipe.send((argument, os.environ.get("OPENBLAS_NUM_THREADS")))


def wait_for_end(_: None, pipe: Connection) -> None:
    """Wait until the other end of the pipe is closed, and nothing less."""
    try:
        pipe.recv_bytes()
    except EOFError:
        return


def loaded(module: str, pipe: Connection) -> None:
    """Say whether the module was there already."""
    pipe.send(module in sys.modules)
