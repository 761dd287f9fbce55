"""A trial's pictures, kept where optuna-dashboard finds them: a file in the artifact folder, a line in the database."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import UpdateFinishedTrialError

from igkd_hpo.search.storage import SharedStorage, storage_errors
from igkd_hpo.settings import Paths


def upload_trial_pictures(storage: SharedStorage, trial_id: int, paths: Paths, pictures: Mapping[str, bytes]) -> None:
    """Attach pictures to a trial, right before its result is told: Optuna takes none once it has ended.

    Uploading the same names again replaces their content and adds nothing, so that the next attempt of a trial whose
    worker died before it told the result, and a call repeated after an outage, leave each picture once. A trial that
    somebody else has ended keeps what it has.

    Args:
        pictures: PNG bytes by file name.

    Raises:
        OSError: the artifact folder cannot be written. The trial itself is unharmed.
        StorageError: the database is away; call again.
    """
    paths.artifacts.mkdir(parents=True, exist_ok=True)
    store = FileSystemArtifactStore(paths.artifacts)
    with (
        storage_errors(storage.url),
        tempfile.TemporaryDirectory(dir=paths.artifacts, prefix=".upload-") as folder,
    ):
        trial = storage.get_trial(trial_id)
        if trial.state.is_finished():
            return
        present = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(trial, storage=storage)}
        for name, content in pictures.items():
            picture = Path(folder, name)
            picture.write_bytes(content)
            if name in present:
                os.replace(picture, paths.artifacts / present[name])
                continue
            try:
                upload_artifact(artifact_store=store, file_path=str(picture), study_or_trial=trial, storage=storage)
            except UpdateFinishedTrialError:
                return
