"""The fork server's own process: it has imported torch, and forks a child for each request.

It opens no connection, starts no thread and makes no CUDA call, for a fork survives none of them. It leaves when
nobody is left who could ask, and ends its children then, for whom they worked is gone.
"""

import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

_MOST_REQUEST_BYTES = 2**20
_MOST_DESCRIPTORS = 8
# With torch, and all that its children need: each would import a thousand modules, in 1.2 to 1.8 s, for its network and
# for its first step, which torch looks at through Dynamo's eyes though it compiles nothing.
_NEEDED = ("igkd_hpo.trial.attempt", "igkd_hpo.trial.preparation", "torch._dynamo", "torchvision.models")


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A running child.

    Args:
        handle: readable when it has ended.
        reply: to whom it was forked for.
    """

    pid: int
    handle: int
    reply: socket.socket


def main() -> None:
    """Run the server: `python -m igkd_hpo.engines.local.fork_server_main DESCRIPTOR`."""
    gc.disable()  # a sixth of the time: what is imported stays, and is looked through again and again
    for module in _NEEDED:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # else a collection in a child touches, and so copies, every page that it shares with the others
    gc.enable()
    _serve(socket.socket(fileno=int(sys.argv[1])))


def _serve(requests: socket.socket) -> None:
    children: dict[int, _Child] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in children:
                poll.unregister(descriptor)
                _bury(children.pop(descriptor))
                continue
            request, given, *_ = socket.recv_fds(requests, _MOST_REQUEST_BYTES, _MOST_DESCRIPTORS)
            if request and not given:
                _import_too(request.decode())
                continue
            if not request:
                for child in children.values():
                    os.kill(child.pid, signal.SIGKILL)
                return
            reply, *theirs = given
            pid = os.fork()
            if pid == 0:
                requests.close()
                os.close(reply)
                for child in children.values():
                    child.reply.close()
                    os.close(child.handle)
                _become(request, theirs[0])
            for copy in theirs:
                os.close(copy)
            child = _Child(pid=pid, handle=os.pidfd_open(pid), reply=socket.socket(fileno=reply))
            children[child.handle] = child
            poll.register(child.handle, select.POLLIN)
            try:
                socket.send_fds(child.reply, [str(pid).encode()], [child.handle])
            except OSError:  # whoever asked has gone
                os.kill(pid, signal.SIGKILL)


def _import_too(module: str) -> None:
    """Import a module that all later children need; one that cannot be had is theirs to complain of."""
    try:
        importlib.import_module(module)
    except Exception:
        traceback.print_exc()
    gc.freeze()


def _bury(child: _Child) -> None:
    _, status = os.waitpid(child.pid, 0)
    try:
        child.reply.send(str(os.waitstatus_to_exitcode(status)).encode())
    except OSError:
        pass  # whoever asked has gone
    finally:
        child.reply.close()
        os.close(child.handle)


def _become(request: bytes, descriptor: int) -> None:
    """Call in the child the function that was asked for; never return, for below on the stack is the server."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function, argument = pickle.loads(request)
        function(argument, Connection(descriptor))
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


if __name__ == "__main__":
    main()
