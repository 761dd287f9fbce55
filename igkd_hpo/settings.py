"""Resolve where things are on this machine: the storage URL, the data folder, and every name below `storage/`."""

import math
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from igkd_hpo.errors import UsageError, near_or_all
from igkd_hpo.files import user_path

LEASE_SECONDS = 60.0
_HEARTBEAT_SECONDS = 4.0  # `stop --now` ends what runs within this time and a moment
_HEARTBEATS_PER_LEASE = 6  # at least: five heartbeats may be missed
_SHORTEST_LEASE = 1.0  # seconds, in which a worker writes six heartbeats
_STORAGE_VARIABLES = ("IGKD_HPO_STORAGE", "OPTUNA_STORAGE")  # the first that is set counts
VARIABLES = {
    "IGKD_HPO_ALLOW_IMPORT",
    "IGKD_HPO_DASHBOARD_TOKEN",
    "IGKD_HPO_DATA",
    "IGKD_HPO_DEBUG",
    "IGKD_HPO_HOST",
    "IGKD_HPO_KEEP_CHECKPOINTS",
    "IGKD_HPO_LEASE_SECONDS",
    "IGKD_HPO_REMOTE",
    "IGKD_HPO_STORAGE",
    # docker-compose.yml's own; a shell may hold what its .env holds
    "IGKD_HPO_DASHBOARD_PORT",
    "IGKD_HPO_DATABASE_PASSWORD",
    "IGKD_HPO_DATA_FOLDER",
    "IGKD_HPO_READER_PASSWORD",
    "IGKD_HPO_THREADS",
}
"""Every environment variable of ours: a misspelt one would be passed over, and a search would go elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Paths:
    """The names of all files that a run leaves behind below `root`, the `storage` folder; nothing else builds one."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "igkd_hpo.db"

    @property
    def assets(self) -> Path:
        return self.root / "assets"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def device_locks(self) -> Path:
        return self.root / "devices"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def trained(self, study_name: str, fingerprint: str, seed: int) -> Path:
        return self.root / "trained" / f"{study_name}-{fingerprint[:8]}-seed-{seed}"

    @property
    def test_split_log(self) -> Path:
        return self.logs / "test-split.log"

    @property
    def slurm_jobs(self) -> Path:
        return self.logs / "slurm-jobs.jsonl"

    def slurm_log(self, folder: str) -> Path:
        return self.logs / folder / "slurm-%A_%a.out"

    def trial_checkpoints(self, folder: str, trial_number: int) -> Path:
        return self.checkpoints / folder / f"trial-{trial_number:05d}"

    def checkpoint(self, folder: str, trial_number: int, attempt: int) -> Path:
        return self.trial_checkpoints(folder, trial_number) / f"attempt-{attempt:03d}.pt"

    def trial_log(self, folder: str, trial_number: int, attempt: int) -> Path:
        return self.logs / folder / f"trial-{trial_number:05d}-attempt-{attempt:03d}.log"

    def worker_log(self, folder: str, worker: str) -> Path:
        return self.logs / folder / f"worker-{worker}.log"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The places to run in, from flags, else environment variables, else defaults.

    Args:
        paths: names below `storage/` in the current directory.
        storage_url: SQLAlchemy URL of the database.
        storage_from: the variable that it comes from; empty where it comes from a flag, a call or the default.
        data_root: folder that relative dataset and checkpoint paths start at.
        allow_import: top-level modules whose code a study file may name.
        keep_checkpoints: of all trials that complete; else of the best few, within whatever limits.
        lease_seconds: longest time without a heartbeat of a trial's holder; the same on all hosts of a study.
        remote: URL of a folder that all hosts of a study reach, see `Remote`; None where there is none.
    """

    paths: Paths
    storage_url: str = field(repr=False)  # may hold a password
    data_root: Path
    allow_import: frozenset[str]
    lease_seconds: float = LEASE_SECONDS
    storage_from: str = ""
    keep_checkpoints: bool = False
    remote: str | None = field(default=None, repr=False)  # may hold a password

    @property
    def heartbeat_seconds(self) -> float:
        """The most seconds between two heartbeats of a holder, and between two looks at the leases of others."""
        return min(_HEARTBEAT_SECONDS, self.lease_seconds / _HEARTBEATS_PER_LEASE)

    @classmethod
    def resolve(cls, *, storage_url: str | None = None, allow_import: tuple[str, ...] = ()) -> "Settings":
        """Read the settings of the current directory and environment; arguments win over variables.

        Raises:
            UsageError: IGKD_HPO_LEASE_SECONDS is not a number of seconds, or a variable IGKD_HPO_* is none of ours.
        """
        for name in sorted(os.environ.keys() - VARIABLES):
            if name.startswith("IGKD_HPO_"):
                raise UsageError(
                    f"{name} is no variable of igkd-hpo{near_or_all(name, sorted(VARIABLES))}; rename or unset it"
                )
        cwd = Path.cwd()
        paths = Paths(root=cwd / "storage")
        variables = [] if storage_url else [name for name in _STORAGE_VARIABLES if os.environ.get(name)]
        url = storage_url or (os.environ[variables[0]] if variables else sqlite_url(paths.database))
        allowed = os.environ.get("IGKD_HPO_ALLOW_IMPORT", "").replace(",", " ").split()
        return cls(
            paths=paths,
            storage_url=url,
            storage_from=next(iter(variables), ""),
            data_root=cwd / user_path(os.environ.get("IGKD_HPO_DATA", "")),
            allow_import=frozenset((*allow_import, *allowed)),
            lease_seconds=_lease_seconds(),
            keep_checkpoints=_keep_checkpoints(),
            remote=os.environ.get("IGKD_HPO_REMOTE") or None,
        )

    def data_path(self, path: str) -> Path:
        """Resolve a path from a study file: absolute as it is, relative from `data_root`."""
        return self.data_root / user_path(path)


def sqlite_url(path: Path) -> str:
    """Return the SQLAlchemy URL of a SQLite file, whatever characters its path has.

    As `sqlalchemy.URL.create` writes it, whose import takes 0.3 s, too long for a shell that completes a word.
    Raises UsageError: the path is not UTF-8, in which URLs are written.
    """
    try:
        return f"sqlite:///{quote(str(path), safe=' /')}"
    except UnicodeEncodeError:
        raise UsageError(f"{path!r} is not UTF-8, and no URL can name it; work in another folder") from None


def host_name() -> str:
    """Return the name of this host: IGKD_HPO_HOST, else its own name."""
    return os.environ.get("IGKD_HPO_HOST") or socket.gethostname()


def _keep_checkpoints() -> bool:
    text = os.environ.get("IGKD_HPO_KEEP_CHECKPOINTS") or "best"
    if text not in ("all", "best"):
        raise UsageError(f"IGKD_HPO_KEEP_CHECKPOINTS is {text!r}; give all or best, or leave it out")
    return text == "all"


def _lease_seconds() -> float:
    text = os.environ.get("IGKD_HPO_LEASE_SECONDS")
    if not text:
        return LEASE_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST_LEASE <= seconds < math.inf:
        raise UsageError(
            f"IGKD_HPO_LEASE_SECONDS is {text!r}; give seconds, {_SHORTEST_LEASE:g} or more, or leave it out"
        )
    return seconds
