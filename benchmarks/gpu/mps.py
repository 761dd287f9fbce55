"""NVIDIA's Multi-Process Service for as long as a block lasts, if it works here. `mps.py` alone: whether it does.

The service is a program of one user; no setting of the card is touched. MPS=0 leaves it out.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = "nvidia-cuda-mps-control"
_TOUCH = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
device, context, block = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
for name, *arguments in (
    ("cuInit", 0), ("cuDeviceGet", ctypes.byref(device), 0),
    ("cuDevicePrimaryCtxRetain", ctypes.byref(context), device),
    ("cuCtxSetCurrent", context), ("cuMemAlloc_v2", ctypes.byref(block), ctypes.c_size_t(1 << 20)),
):
    if code := getattr(cuda, name)(*arguments):
        raise SystemExit(f"{name} answers {code}")
"""


def _ask(word: str, variables: dict[str, str]) -> str:
    asked = subprocess.run(
        [_CONTROL],
        input=f"{word}\n",
        text=True,
        capture_output=True,
        env=os.environ | variables,
        check=True,
        timeout=20,
    )
    return asked.stdout.strip()


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """What the environment of its clients needs; nothing where there is no service, which is said."""
    if os.environ.get("MPS") == "0" or shutil.which(_CONTROL) is None:
        print(f"MPS: {'left out' if os.environ.get('MPS') == '0' else 'not installed'}; plain processes", flush=True)
        yield {}
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in variables.values():
            os.mkdir(path)
        started = works = False
        try:
            try:
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                subprocess.run([_CONTROL, "-d"], env=os.environ | variables, check=True, timeout=30, **quiet)
                started = True
                touched = subprocess.run(
                    [sys.executable, "-c", _TOUCH],
                    check=False,
                    env=os.environ | variables,
                    timeout=40,
                    capture_output=True,
                    text=True,
                )
                if touched.returncode:
                    raise OSError(touched.stderr.strip().splitlines()[-1])
                # A program that finds no service goes on without one, so the service is asked whether it serves.
                if not _ask("get_server_list", variables):
                    raise OSError("no server runs")
                works = True
                print("MPS: serves", flush=True)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"MPS: does not work here ({error}); plain processes", flush=True)
            yield variables if works else {}
        finally:
            if started:
                try:
                    _ask("quit", variables)
                except (OSError, subprocess.SubprocessError) as error:
                    print(f"MPS: did not end in order ({error})", flush=True)


def main() -> int:
    """The command: exit code 0 where it works."""
    with service() as variables:
        return int(not variables)


if __name__ == "__main__":
    sys.exit(main())
