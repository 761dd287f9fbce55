"""Who is on a device: many beside each other, or one alone, and whoever wants to be alone gets there."""

import subprocess
import sys
import threading
from pathlib import Path

from igkd_hpo.trial.device_share import hold_device

HOLDER = """
import sys
from pathlib import Path
from igkd_hpo.trial.device_share import hold_device

held = hold_device(Path(sys.argv[1]), "cpu", alone=True, on_wait=lambda: None)
print("held", flush=True)
sys.stdin.read()
"""


class Asking:
    """A thread that asks for the device, and whether it waits or has got it."""

    def __init__(self, folder: Path, *, alone: bool, device: str = "cpu") -> None:
        self.waits = threading.Event()
        self.given_up = threading.Event()
        self.has_it = threading.Event()
        self._arguments = (folder, device, alone)
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        folder, device, alone = self._arguments
        with hold_device(folder, device, alone=alone, on_wait=self.waits.set):
            self.has_it.set()
            self.given_up.wait(60)

    def leave(self) -> None:
        self.given_up.set()
        self._thread.join(60)


def test_trials_share_a_device_until_one_asks_to_be_alone(tmp_path: Path) -> None:
    first, second = Asking(tmp_path, alone=False), Asking(tmp_path, alone=False)
    assert first.has_it.wait(60)
    assert second.has_it.wait(60)
    quiet = Asking(tmp_path, alone=True)
    assert quiet.waits.wait(60)
    late = Asking(tmp_path, alone=False)
    assert late.waits.wait(60), "a trial that begins now would keep the device busy for ever"
    elsewhere = Asking(tmp_path, alone=True, device="gpu-1")
    assert elsewhere.has_it.wait(60)
    first.leave()
    assert not quiet.has_it.is_set()
    second.leave()
    assert quiet.has_it.wait(60)
    assert not late.has_it.is_set()
    quiet.leave()
    assert late.has_it.wait(60)
    late.leave()
    elsewhere.leave()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    asking = Asking(tmp_path, alone=False)
    assert asking.waits.wait(60)
    holder.kill()
    holder.communicate()
    assert asking.has_it.wait(60)
    asking.leave()
