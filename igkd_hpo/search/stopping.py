"""Decide whether a study stops before its total: its time is over, or what it tried last came to nothing."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from igkd_hpo.config.strata import Strata, Stratum
from igkd_hpo.search.counts import is_infeasible
from igkd_hpo.search.deadline import database_time, in_words
from igkd_hpo.search.strata import next_stratum, unreached
from igkd_hpo.search.study import SearchStudy, StudyRecord, ended_since

MOST_INFEASIBLE = 200
"""Configurations in a row beyond a limit before a study is given up; each costs half a second."""


def stop_where_due(study: SearchStudy, connection: Connection, trials: list[FrozenTrial]) -> bool:
    """Stop the study where its time is over or its newest trials came to nothing, and tell whether it is stopped."""
    record = study.read()
    if _end_with_time(study, connection, record) or record.stopped is not None:
        return True
    ended = ended_since(trials, record.attributes["ended_before_launch"])
    reason = why_stopping(ended, study.config.max_failures, study.config.strata)
    if reason is not None:
        study.storage.set_study_user_attr(study.study_id, "stopped", reason)
    return reason is not None


def hands_back(study: SearchStudy, connection: Connection) -> bool:
    """Tell whether trials that run are to be released: somebody ordered it, or the study's time is over."""
    record = study.read()
    return bool(record.attributes.get("stopped_now")) or _end_with_time(study, connection, record)


def stratum_to_draw_for(study: SearchStudy, trials: list[FrozenTrial]) -> Stratum | None:
    """Return the stratum that a new trial is drawn for; None without strata.

    One whose newest trials since the launch were all beyond a limit has had its chance, and leaves the rest to others.
    """
    if (strata := study.config.strata) is None:
        return None
    ended = ended_since(trials, study.read().attributes["ended_before_launch"])
    return next_stratum(strata, trials, unreached(strata, ended, MOST_INFEASIBLE))


def why_stopping(ended: Sequence[FrozenTrial], max_failures: int, strata: Strata | None = None) -> str | None:
    """Return the reason to stop a study in which the newest trials all failed, or were all beyond a limit; else None.

    The newest are the last `max_failures`, untrained ones left out; the last 200 of all, or of each stratum.

    Args:
        ended: trials since the launch, in the order of their ends.
    """
    last = [trial for trial in ended if not is_infeasible(trial)][-max_failures:]
    if len(last) == max_failures and all(trial.state is TrialState.FAIL for trial in last):
        reason = last[-1].user_attrs.get("reason", "no reason")
        return f"the last {max_failures} trials all failed; trial {last[-1].number}: {reason}"
    if len(ended) < MOST_INFEASIBLE or not is_infeasible(ended[-1]):
        return None
    if strata is None:
        hopeless, which = all(map(is_infeasible, ended[-MOST_INFEASIBLE:])), ""
    else:
        hopeless, which = len(unreached(strata, ended, MOST_INFEASIBLE)) == len(strata.at), " drawn for each stratum"
    if not hopeless:
        return None
    return (
        f"the last {MOST_INFEASIBLE} configurations{which} were all beyond the limits; trial {ended[-1].number}: "
        f"{ended[-1].user_attrs.get('reason')}; raise the limits, or search smaller students, under a new name"
    )


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
