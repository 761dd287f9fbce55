"""Delete and rename studies in the database, by their names alone: also those that this version cannot read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text, update

from igkd_hpo.config.study import NAME
from igkd_hpo.errors import UsageError, near_or_all
from igkd_hpo.names import plain_name
from igkd_hpo.search.identity import is_dead
from igkd_hpo.search.lease_table import drop_leases_of_study, read_leases
from igkd_hpo.search.lock import CREATION
from igkd_hpo.search.optuna_internals import models
from igkd_hpo.search.storage import SharedStorage, storage_errors
from igkd_hpo.search.study import study_names
from igkd_hpo.search.study_folder import name_by_folder, own_folder

_ARTIFACTS = (
    "SELECT a.key FROM trial_system_attributes a JOIN trials t ON t.trial_id = a.trial_id "
    "WHERE t.study_id = :study_id AND a.key LIKE 'artifacts:%' UNION ALL "
    "SELECT key FROM study_system_attributes WHERE study_id = :study_id AND key LIKE 'artifacts:%'"
)


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study of this project as it lies in the database.

    Args:
        called: study, confirmation or ladder.
        folder: of its weights and logs.
        trials: how many it has, in whatever state.
        artifacts: names of the files of its pictures.
    """

    name: str
    called: str
    study_id: int
    folder: str
    trials: int
    artifacts: frozenset[str]


def stored_study(storage: SharedStorage, name: str) -> StoredStudy:
    """Find a study of this project. Raises UsageError that names the near ones."""
    study_id, attributes = _find(storage, name)
    with storage.reading() as connection:
        count = connection.execute(text("SELECT COUNT(*) FROM trials WHERE study_id = :id"), {"id": study_id})
        keys = connection.execute(text(_ARTIFACTS), {"study_id": study_id})
        return StoredStudy(
            name=name,
            called=_called(attributes),
            study_id=study_id,
            folder=own_folder(storage, attributes, name),
            trials=count.scalar_one(),
            artifacts=frozenset(key.removeprefix("artifacts:") for (key,) in keys),
        )


def with_linked(storage: SharedStorage, name: str) -> list[StoredStudy]:
    """Find a study, and before it those that are linked to it: its confirmation and its ladder. Raises UsageError."""
    study = stored_study(storage, name)
    with storage_errors(storage.url):
        linked = [
            other.study_name
            for other in storage.get_all_studies()
            if "fingerprint" in other.user_attrs
            and isinstance(key := other.user_attrs.get("confirms"), str)
            and name_by_folder(storage, key) == name
        ]
    return [*(stored_study(storage, other) for other in linked if other != name), study]


def check_idle(connection: Connection, study: StoredStudy, then: str) -> None:
    """Raise UsageError where a worker holds a trial of the study, on whatever host; `then` is what to do after it."""
    for lease in read_leases(connection, study.study_id):
        if not is_dead(lease.process):
            raise UsageError(
                f"a trial of study {study.name} runs on {lease.process.host}; wait for its end, or "
                f"`igkd-hpo stop {study.name} --now`, then {then}"
            )


def delete_study(storage: SharedStorage, study: StoredStudy) -> None:
    """Delete a study with its trials. Raises UsageError where it runs, or is gone."""
    with storage.transaction(study.study_id) as connection:
        check_idle(connection, study, "delete")
        if _find(storage, study.name)[0] != study.study_id:
            raise UsageError(f"study {study.name} was replaced by another one meanwhile; look at `igkd-hpo status`")
        drop_leases_of_study(connection, study.study_id)
        storage.delete_study(study.study_id)


def rename_study(storage: SharedStorage, old: str, new: str) -> None:
    """Give a study another name; its folders, trials, confirmation and ladder stay with it.

    Raises UsageError where it runs, is a confirmation or a ladder, or the name is taken or cannot be one.
    """
    if re.fullmatch(NAME, new) is None:
        such = f", such as {plain}" if (plain := plain_name(new)) else ""
        rule = "write letters, digits, dots, dashes and underscores"
        raise UsageError(f"{new!r} cannot be the name of a study: {rule}{such}")
    study = stored_study(storage, old)
    with storage.transaction(CREATION) as connection:
        check_idle(connection, study, "rename")
        study_id, attributes = _find(storage, old)
        if isinstance(parent := attributes.get("confirms"), str):
            confirmed = name_by_folder(storage, parent)
            called = _called(attributes)
            raise UsageError(f"{old} is the {called} of {confirmed}, and is found by its name; rename {confirmed}")
        if new in {other.study_name for other in storage.get_all_studies()}:
            raise UsageError(f"there is a study {new!r} already; choose another name, or delete that one")
        # Where the study goes on looking for its weights, whatever it is called.
        storage.set_study_user_attr(study_id, "folder", own_folder(storage, attributes, old))
        table = models.StudyModel
        connection.execute(update(table).where(table.study_id == study_id).values(study_name=new))


def _called(attributes: Mapping[str, Any]) -> str:
    if not isinstance(attributes.get("confirms"), str):
        return "study"
    return "ladder" if attributes.get("purpose") == "ladder" else "confirmation"


def _find(storage: SharedStorage, name: str) -> tuple[int, Mapping[str, Any]]:
    with storage_errors(storage.url):
        try:
            study_id = storage.get_study_id_from_name(name)
            attributes = storage.get_study_user_attrs(study_id)
        except (KeyError, UnicodeEncodeError):  # bytes of a command line that are not UTF-8 name no study
            near = near_or_all(name, study_names(storage))
            raise UsageError(
                f"no study {name!r} in {storage.place}{near}; `igkd-hpo status` shows what is there"
            ) from None
    if "fingerprint" not in attributes:
        raise UsageError(f"study {name!r} in {storage.place} was not made by igkd-hpo; use the tool that made it")
    return study_id, attributes
