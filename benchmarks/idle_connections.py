"""The dashboard under connections that send nothing, or half a request: what they hold, and whether it still answers.

    python benchmarks/idle_connections.py --connections 1200 --check

The dashboard is started as a person starts it, in a process of its own, on an empty database. Ends when the last idle
connection was closed, or after two minutes.
"""

import argparse
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from http.client import HTTPConnection

import psutil

from igkd_hpo.dashboard.server import IDLE_SECONDS, THREADS
from igkd_hpo.search.storage import open_storage

HALVES = (b"", b"GET /api/studies HTTP/1.1\r\nHost: localhost\r\nX-", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
MOST_SECONDS = 5  # in which all that came before it are accepted, one by one
MOST_MIB = 32  # more than without them


def main() -> int:
    """Measure, print, and return 1 under --check where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/studies.db"
        open_storage(url, create=True).engine.dispose()
        command = [sys.executable, "-m", "igkd_hpo", "dashboard", "--storage", url, "--port", "0"]
        server = stack.enter_context(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stderr is not None
        port = int(server.stderr.readline().split("/dashboard")[0].rsplit(":", 1)[1])
        found = measure(psutil.Process(server.pid), port, options.connections, stack)
    goals = {
        f"a request behind them is answered within {MOST_SECONDS} s": found["answered in, s"] < MOST_SECONDS,
        "they take no threads": found["threads"] <= THREADS + found["threads before"],
        f"they take at most {MOST_MIB} MiB": found["MiB more"] <= MOST_MIB,
        "all are closed": found["left open"] == 0 and found["closed after, s"] < 2 * IDLE_SECONDS,
    }
    if options.json:
        print(json.dumps(found | {"goals": goals}, indent=2))
    else:
        for key, value in found.items():
            print(f"{key:20} {value}")
        for goal, reached in goals.items():
            print(f"{'reached' if reached else 'MISSED ':20} {goal}")
    return int(options.check and not all(goals.values()))


def measure(server: psutil.Process, port: int, connections: int, stack: ExitStack) -> dict[str, float]:
    """Open the idle connections, ask beside them, and wait until the server has closed them."""
    ask(port)
    threads, resident = server.num_threads(), server.memory_info().rss
    begun = time.monotonic()
    idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
    for number, connection in enumerate(idle):
        connection.sendall(HALVES[number % len(HALVES)])
    opened = time.monotonic() - begun
    answered, again = ask(port), ask(port)
    found = {
        "connections": connections,
        "opened in, s": round(opened, 2),
        "answered in, s": round(answered, 3),
        "the next in, s": round(again, 3),
        "threads before": threads,
        "threads": server.num_threads(),
        "MiB more": round((server.memory_info().rss - resident) / 2**20, 1),
    }
    with selectors.DefaultSelector() as selector:
        for connection in idle:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() - begun < 120:
            for key, _ in selector.select(1):
                selector.unregister(key.fileobj)
        return found | {"left open": len(selector.get_map()), "closed after, s": round(time.monotonic() - begun)}


def ask(port: int) -> float:
    """Ask for the list of studies; return the seconds until the answer was there."""
    begun = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/studies")
    assert connection.getresponse().read()
    connection.close()
    return time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
