"""Delete and rename studies, and what of their files is theirs alone."""

from dataclasses import dataclass

from igkd_hpo.api.clean import remove_files_of
from igkd_hpo.api.source import looks_like_path, settings_here, study_to_run
from igkd_hpo.search.removal import StoredStudy, check_idle, delete_study, rename_study, with_linked
from igkd_hpo.search.storage import SharedStorage, open_storage_here
from igkd_hpo.settings import Settings
from igkd_hpo.words import counted


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Studies that can be deleted: a confirmation and a ladder before the study that they belong to."""

    storage: SharedStorage
    settings: Settings
    studies: tuple[StoredStudy, ...]

    @property
    def about(self) -> str:
        """Say in words what would be gone."""
        *linked, study = self.studies
        parts = [f"{study.name} ({counted(study.trials, 'trial')})"]
        parts += [f"its {one.called} {one.name} ({counted(one.trials, 'trial')})" for one in linked]
        return f"{', '.join(parts)}, with weights, logs and pictures"


def plan_removal(name: str, *, storage: str | None = None) -> Removal:
    """Find a study by its name or file, and what is linked to it; nothing is deleted.

    Raises:
        UsageError: there is no such study, or a worker holds a trial of it.
        StorageError: the database is out of reach.
    """
    settings = settings_here(storage)
    opened = open_storage_here(settings, create=False)
    studies = with_linked(opened, _name(name, settings))
    with opened.reading() as connection:
        for study in studies:
            check_idle(connection, study, "delete")
    return Removal(storage=opened, settings=settings, studies=tuple(studies))


def remove(removal: Removal) -> int:
    """Delete studies with their trials, weights, logs and pictures; return how many bytes the files took.

    Images, teachers, logits and maps stay: other studies may share them, and `clean` knows.

    Raises:
        UsageError: a worker took a trial meanwhile.
        StorageError: the database is out of reach.
        OSError: a file cannot be removed; the study is gone all the same, and `clean` finds its files.
    """
    size = 0
    for study in removal.studies:
        delete_study(removal.storage, study)
        size += remove_files_of(study, removal.settings)
    return size


def rename(old: str, new: str, *, storage: str | None = None) -> None:
    """Give a study another name; its trials, weights, logs, confirmation and ladder stay with it.

    Raises:
        UsageError: there is no such study, it runs or belongs to another one, or the new name is taken or no name.
        StorageError: the database is out of reach.
    """
    settings = settings_here(storage)
    rename_study(open_storage_here(settings, create=False), _name(old, settings), new)


def _name(given: str, settings: Settings) -> str:
    return study_to_run(given, settings).name if looks_like_path(given) else given
