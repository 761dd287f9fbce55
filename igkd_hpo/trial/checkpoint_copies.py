"""Copies of a trial's checkpoints in the remote folder, for attempts on hosts that do not see this one's files.

checkpoints/<study>/trial-00003/attempt-001.<sha256>.pt, with its content's hash in its name: a damaged one is known
as such, and a newer one never takes the place of an older one before all of it is there.
"""

import logging
import re
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from igkd_hpo.errors import IgkdError
from igkd_hpo.files import make_folder, write_bytes
from igkd_hpo.remote import Remote

PAUSE_SECONDS = 10.0  # epochs may take a tenth of a second, and a bucket counts requests
_COPY = re.compile(r"(attempt-\d{3,})\.([0-9a-f]{64})\.pt")
_log = logging.getLogger(__name__)


class CheckpointCopies:
    """Sends the newest checkpoint of an attempt from a thread of its own: training waits for no network.

    Args:
        url: of the remote folder.
        checkpoint: the attempt's file here, beside those of other attempts.
    """

    def __init__(self, url: str, checkpoint: Path) -> None:
        self._url = url
        self._checkpoint = checkpoint
        self._newest: bytes | None = None
        self._changed = threading.Condition()

    def fetch(self) -> None:
        """Write here what earlier attempts left there, where it is whole; a folder out of reach is told in the log."""
        try:
            remote, folder = Remote(self._url), _folder(self._checkpoint)
            for name in remote.names(folder):
                copy = _COPY.fullmatch(name)
                if copy is None or self._checkpoint.with_name(f"{copy[1]}.pt").exists():
                    continue
                content = b"".join(remote.read(f"{folder}/{name}"))
                if sha256(content).hexdigest() != copy[2]:
                    _log.warning("%s/%s at %s is damaged; it is not used", folder, name, remote.shown)
                    continue
                make_folder(self._checkpoint.parent)
                write_bytes(self._checkpoint.with_name(name), content)
                _log.info("fetched %s/%s", folder, name)
        except (IgkdError, OSError) as error:
            _log.warning("%s; the trial goes on from what is here", error)

    def start(self) -> None:
        """Begin to send what `offer` is given."""
        threading.Thread(target=self._send, daemon=True).start()

    def offer(self, content: bytes) -> None:
        """Let this be sent, instead of what still waits."""
        with self._changed:
            self._newest = content
            self._changed.notify()

    def _send(self) -> None:
        remote, sent = None, ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None)
                content, self._newest = self._newest or b"", None
            name = f"{_folder(self._checkpoint)}/{self._checkpoint.stem}.{sha256(content).hexdigest()}.pt"
            try:
                remote = remote or Remote(self._url)  # which may be out of reach at first
                remote.write(name, [content])
                if sent and sent != name:
                    remote.remove(sent)
                sent = name
            except IgkdError as error:
                _log.warning("%s; that of a later epoch goes there", error)
            time.sleep(PAUSE_SECONDS)


def remove_copies(url: str, checkpoint: Path) -> None:
    """Remove the copies of all attempts at a trial that has ended; what cannot be removed stays."""
    with suppress(IgkdError):
        Remote(url).remove(_folder(checkpoint))


def _folder(checkpoint: Path) -> str:
    return f"checkpoints/{checkpoint.parent.parent.name}/{checkpoint.parent.name}"
