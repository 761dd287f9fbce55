"""Where things are on this machine: the storage URL, the data folder, and every name below `storage/`."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Every file name that a run leaves behind. Nothing else in the project builds one of these by hand.

    Args:
        root: the `storage` folder; one per working directory.
    """

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
    def logs(self) -> Path:
        return self.root / "logs"

    def trained(self, study_name: str, seed: int) -> Path:
        return self.root / "trained" / f"{study_name}-seed-{seed}"

    @property
    def test_split_log(self) -> Path:
        return self.logs / "test-split.log"

    def trial_checkpoints(self, study_name: str, trial_number: int) -> Path:
        return self.checkpoints / study_name / f"trial-{trial_number:05d}"

    def checkpoint(self, study_name: str, trial_number: int, attempt: int) -> Path:
        return self.trial_checkpoints(study_name, trial_number) / f"attempt-{attempt:03d}.pt"

    def trial_log(self, study_name: str, trial_number: int, attempt: int) -> Path:
        return self.logs / study_name / f"trial-{trial_number:05d}-attempt-{attempt:03d}.log"

    def worker_log(self, study_name: str, worker: str) -> Path:
        return self.logs / study_name / f"worker-{worker}.log"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to run, as flags and environment variables say it (flag, then variable, then default).

    Args:
        paths: names below `storage/` in the current directory.
        storage_url: SQLAlchemy URL of the database.
        data_root: what relative dataset and checkpoint paths start at.
        allow_import: top-level modules whose code a study file may name as a teacher.
    """

    paths: Paths
    storage_url: str = field(repr=False)  # may hold a password
    data_root: Path
    allow_import: frozenset[str]

    @classmethod
    def resolve(cls, *, storage_url: str | None = None, allow_import: tuple[str, ...] = ()) -> "Settings":
        """Settings of the current directory and environment; arguments win over variables."""
        cwd = Path.cwd()
        paths = Paths(root=cwd / "storage")
        url = (
            storage_url
            or os.environ.get("IGKD_HPO_STORAGE")
            or os.environ.get("OPTUNA_STORAGE")
            or f"sqlite:///{paths.database}"
        )
        named = (*allow_import, *os.environ.get("IGKD_HPO_ALLOW_IMPORT", "").replace(",", " ").split())
        return cls(
            paths=paths,
            storage_url=url,
            data_root=Path(os.environ.get("IGKD_HPO_DATA") or cwd),
            allow_import=frozenset(named),
        )

    def data_path(self, path: str) -> Path:
        """A path from a study file: absolute as it is, relative from `data_root`."""
        return self.data_root / Path(path).expanduser()
