"""The studies of a database, what is running and how far."""

from igkd_hpo.api.source import settings_here
from igkd_hpo.search.status import StudyStatus
from igkd_hpo.search.status import status as read_status
from igkd_hpo.search.storage import open_storage


def status(*, storage: str | None = None) -> list[StudyStatus]:
    """Every study, the last launched last, each followed by its confirmation.

    Args:
        storage: SQLAlchemy URL of the database; else IGKD_HPO_STORAGE, OPTUNA_STORAGE, or storage/igkd_hpo.db here.

    Raises:
        UsageError: there is no database yet.
        StorageError: the database is out of reach.
    """
    return read_status(open_storage(settings_here(storage).storage_url, create=False))
