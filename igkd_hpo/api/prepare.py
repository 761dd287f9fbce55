"""Make the assets alone: images, teacher, logits and attribution maps."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from igkd_hpo.api.source import StudyLike, settings_here, study_to_run
from igkd_hpo.config.builtin import DEFAULT
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

    Args:
        study, storage, device, allow_import, progress: as for `launch`, which does this too.

    Raises:
        UsageError, StudyFileError, DataError, TeacherError: what was given cannot be used.
        AssetError: an asset is damaged, or cannot be written.
    """
    settings = settings_here(storage, allow_import)
    config = study_to_run(study, settings)

    from igkd_hpo.assets.study_assets import prepare_assets
    from igkd_hpo.distillation.device import choose_device
    from igkd_hpo.doctor.limits import refuse_unfit

    with make_progress(progress) as shown:
        refuse_unfit(config, settings, shown)
        chosen = choose_device(device)
        named = "cuda" if chosen.type == "cuda" and ":" not in device else str(chosen)  # one, or all that there are
        return prepare_assets(config, settings, device=named, progress=shown)
