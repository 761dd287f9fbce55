"""Make the assets alone: images, teacher, logits and attribution maps."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.builtin import DEFAULT
from igkd_hpo.engines.local.students import refuse_untrainable
from igkd_hpo.terminal.progress import make_progress

if TYPE_CHECKING:
    from igkd_hpo.assets.study_assets import AssetSummary


def prepare(
    study: StudyLike = DEFAULT,
    *,
    storage: str | None = None,
    device: str = "auto",
    allow_import: str | Iterable[str] = (),
    progress: bool = True,
) -> "AssetSummary":
    """Make what a study needs before its first trial, in this process; what is there already stays.

    A first training step of networks that others wrote is tried in processes of their own.

    Args:
        study, storage, device, allow_import, progress: as for `launch`, which does this too.

    Raises:
        UsageError, StudyFileError, DataError, TeacherError: what was given cannot be used.
        AssetError: an asset is damaged, or cannot be written.
    """
    settings = settings_here(storage, allow_import)
    config = study_to_run(study, settings)

    from igkd_hpo.trial.preparation import prepare_study

    with make_progress(progress) as shown:
        refuse_untrainable(config, settings, device=device, progress=shown)
        return prepare_study(config, settings, device=device, progress=shown)
