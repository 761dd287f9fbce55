"""Decide whether a study stops before its total: its time is over, or what it tried last came to nothing."""

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.deadline import database_time, in_words
from igkd_hpo.search.study import SearchStudy, StudyRecord, ended_trials

MOST_INFEASIBLE = 200
"""Configurations in a row beyond a limit before a study is given up; each costs half a second."""


def stop_where_due(study: SearchStudy, connection: Connection, trials: list[FrozenTrial]) -> bool:
    """Stop the study where its time is over or its newest trials came to nothing, and tell whether it is stopped."""
    record = study.read()
    if _end_with_time(study, connection, record) or record.stopped is not None:
        return True
    reason = why_stopping(trials, record.attributes["ended_before_launch"], study.config.max_failures)
    if reason is not None:
        study.storage.set_study_user_attr(study.study_id, "stopped", reason)
    return reason is not None


def hands_back(study: SearchStudy, connection: Connection) -> bool:
    """Tell whether trials that run are to be released: somebody ordered it, or the study's time is over."""
    record = study.read()
    return bool(record.attributes.get("stopped_now")) or _end_with_time(study, connection, record)


def why_stopping(trials: list[FrozenTrial], ended_before_launch: int, max_failures: int) -> str | None:
    """Return the reason to stop a study in which the newest trials all failed, or were all beyond a limit; else None.

    The newest are the last `max_failures` to end since the launch, untrained ones left out; the last 200 of all.
    """
    ended = ended_trials(trials)[ended_before_launch:]
    last = [trial for trial in ended if not is_infeasible(trial)][-max_failures:]
    if len(last) == max_failures and all(trial.state is TrialState.FAIL for trial in last):
        reason = last[-1].user_attrs.get("reason", "no reason")
        return f"the last {max_failures} trials all failed; trial {last[-1].number}: {reason}"
    if len(ended) >= MOST_INFEASIBLE and all(map(is_infeasible, ended[-MOST_INFEASIBLE:])):
        return (
            f"the last {MOST_INFEASIBLE} configurations were all beyond the limits; trial {ended[-1].number}: "
            f"{ended[-1].user_attrs.get('reason')}; raise the limits, or search smaller students, under a new name"
        )
    return None


def _end_with_time(study: SearchStudy, connection: Connection, record: StudyRecord) -> bool:
    """Stop the study with all that runs where its time is over, and tell whether it is; a reason from before stays."""
    if record.deadline is None or database_time(connection) < record.deadline:
        return False
    if record.stopped is None:
        why = (
            f"its time was over at {in_words(record.deadline)}; "
            f"`igkd-hpo launch {study.name} --timeout 2h` gives it two hours from then on"
        )
        study.storage.set_study_user_attr(study.study_id, "stopped", why)
        study.storage.set_study_user_attr(study.study_id, "stop_planned", True)
    return True
