"""Keep a trial's pictures where optuna-dashboard looks: a file in the artifact folder, a line in the database."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import UpdateFinishedTrialError

from igkd_hpo.files import make_folder
from igkd_hpo.search.storage import SharedStorage, storage_errors
from igkd_hpo.settings import Paths


@contextmanager
def written_pictures(paths: Paths, pictures: Mapping[str, bytes]) -> Iterator[list[Path]]:
    """Write pictures beside the artifacts, for `attach_pictures` to move; what it does not move is removed.

    Args:
        pictures: PNG bytes by file name.

    Raises OSError where the artifact folder cannot be written.
    """
    make_folder(paths.artifacts)
    with tempfile.TemporaryDirectory(dir=paths.artifacts, prefix=".upload-") as folder:
        for name, content in pictures.items():
            Path(folder, name).write_bytes(content)
        yield [Path(folder, name) for name in pictures]


def attach_pictures(storage: SharedStorage, trial_id: int, paths: Paths, written: list[Path]) -> None:
    """Attach pictures, files by `written_pictures`, to a trial right before it ends: Optuna takes none afterwards.

    Within a transaction, this takes no longer than a rename and a line. Attaching the same names again replaces their
    content and adds nothing, so that the next attempt of a trial whose worker died before it wrote the result, and a
    call repeated after an outage, leave each picture once. A trial that somebody else has ended keeps what it has.

    Raises OSError where the artifact folder cannot be written, and StorageError; the trial itself is unharmed.
    """
    store = _MovingStore(paths.artifacts)
    with storage_errors(storage.url):
        trial = storage.get_trial(trial_id)
        if trial.state.is_finished():
            return
        present = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(trial, storage=storage)}
        with suppress(UpdateFinishedTrialError):
            for picture in written:
                if picture.name in present:
                    os.replace(picture, paths.artifacts / present[picture.name])
                else:
                    upload_artifact(artifact_store=store, file_path=str(picture), study_or_trial=trial, storage=storage)


class _MovingStore(FileSystemArtifactStore):
    """An artifact store that moves files of the same disk into its folder instead of copying them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Move the open file to the place of this artifact."""
        os.replace(content_body.name, self._folder / artifact_id)
