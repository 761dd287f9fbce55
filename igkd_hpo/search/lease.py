"""Decide who may work on which trial, by a protocol that neither loses one nor lets two workers write into it.

Each step is one transaction under the study's lock, Optuna's writes included. A process that dies between any two
statements leaves the database as it was before the step.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from igkd_hpo.config.cost import STRATUM
from igkd_hpo.config.space import Value
from igkd_hpo.config.strata import Stratum
from igkd_hpo.distillation.recipe import without_effect
from igkd_hpo.errors import StorageError
from igkd_hpo.search.counts import count, is_infeasible
from igkd_hpo.search.enqueued import enqueued_trials, remark_on
from igkd_hpo.search.given_trials import EXCESS
from igkd_hpo.search.heartbeat_watch import HeartbeatWatch
from igkd_hpo.search.identity import ProcessIdentity, is_dead, kill
from igkd_hpo.search.lease_table import (
    BEAT,
    IS_HELD,
    REACH,
    START,
    Lease,
    Reaped,
    drop_lease,
    read_leases,
    write_lease,
)
from igkd_hpo.search.optuna_internals import ENDED, id_of
from igkd_hpo.search.pruner import why_pruned
from igkd_hpo.search.stopping import hands_back, stop_where_due, stratum_to_draw_for
from igkd_hpo.search.strata import drawn_for
from igkd_hpo.search.study import ENDED_AFTER, SearchStudy, unclaimed
from igkd_hpo.search.suggest import UnusableTrial, suggest
from igkd_hpo.search.view import compared_with


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A claimer of trials: a name for people, and the process that its leases stand and fall with."""

    name: str
    process: ProcessIdentity


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one attempt at a trial, as long as the lease stands.

    Args:
        number: of the trial in its study, from 0.
        attempt: from 1; a new one for every claim.
        hyperparameters: all of them, as the trial trains.
        seed: of everything random in the training.
        control: name of the control or of the confirmation's arm; neither is pruned. None for a searched trial.
        reported_epochs: epochs (from 1) that the database has an accuracy for.
        out_of_memory: how many attempts ran out of memory.
        stratum: that it was drawn for; None of others.
    """

    study: str
    trial_id: int
    number: int
    attempt: int
    hyperparameters: dict[str, Value]
    seed: int
    control: str | None
    reported_epochs: frozenset[int]
    out_of_memory: int = 0
    stratum: Stratum | None = None


class Verdict(StrEnum):
    """An answer to a reported epoch or a heartbeat: what the attempt has to do."""

    GO_ON = "go_on"
    PRUNE = "prune"
    STOP = "stop"  # release the trial: the study was stopped with all that runs
    LOST = "lost"  # somebody else has the trial, or it has ended; nothing was written


class Idle(StrEnum):
    """A reason why there is nothing to claim."""

    WAIT = "wait"  # others hold the last trials; one of them may come back
    FINISHED = "finished"
    STOPPED = "stopped"


class Leases:
    """The leases of one study.

    Every method raises StorageError when the database is away, having written nothing, and can be called again.

    Args:
        lease_seconds: how old a heartbeat may get, also on this host, where a holder may be stopped or stuck.
        clock: seconds, monotonic; no other clock is ever compared with it.
    """

    def __init__(
        self, study: SearchStudy, *, lease_seconds: float = 60, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._study = study
        self._storage = study.storage
        self._study_id = study.study_id
        self._lease_seconds = lease_seconds
        self._heartbeats = HeartbeatWatch(clock, longest_gap=lease_seconds / 2)
        self._reaped: list[Reaped] = []

    def claim(self, worker: Worker) -> Claim | Idle:
        """Take the next trial for one attempt: an orphan, else one that waits, else a new one."""
        self._study.read_ended()  # before others have to wait for it
        with self._step() as connection:
            reaped = self._reap(connection)
            claim = self._next(connection, worker)
        self._reaped += reaped
        return claim

    def start(self, claim: Claim, process: ProcessIdentity, device: str) -> bool:
        """Record what trains and where. Return False where the lease is lost."""
        values = {"pid": process.pid, "start": process.start_time, "on": device}
        with self._step() as connection:
            held = connection.execute(START, self._of(claim) | values).rowcount > 0
            if held:
                self._storage.set_trial_user_attrs(claim.trial_id, {"device": device})
            return held

    def heartbeat(self, claim: Claim, *, last_epoch: int) -> Verdict:
        """Write a heartbeat, free what the dead hold, and return GO_ON, STOP or LOST."""
        with self._step() as connection:
            if connection.execute(BEAT, self._of(claim) | {"epoch": last_epoch}).rowcount == 0:
                return Verdict.LOST
            reaped = self._reap(connection)  # all who live may be training, and claim nothing for days
            stop = hands_back(self._study, connection)
        self._reaped += reaped
        return Verdict.STOP if stop else Verdict.GO_ON

    def report(self, claim: Claim, *, epoch: int, accuracy: float) -> Verdict:
        """Write the validation accuracy (a fraction) after an epoch (from 1), once, and return GO_ON, PRUNE or LOST.

        The pruner is asked about the newest epoch only, and neither about controls nor after the last epoch.
        """
        with self._step() as connection:
            strata = self._study.config.strata  # which a trial's size decides on
            trial = self._fenced(connection, claim, to_judge=strata is None)
            if trial is None:
                return Verdict.LOST
            if epoch not in trial.intermediate_values:
                self._storage.add_intermediate_value(claim.trial_id, epoch, accuracy)
                trial.intermediate_values[epoch] = accuracy
                connection.execute(REACH, self._of(claim) | {"epoch": epoch})
            asked = epoch == max(trial.intermediate_values) and epoch < self._study.config.training.epochs
            if claim.control is None and asked and self._study.pruner.prune(compared_with(self._study, trial), trial):
                return Verdict.PRUNE
            return Verdict.GO_ON

    def why_pruned(self, claim: Claim) -> str:
        """Return the accuracy and the bar it missed, in one sentence, after the answer PRUNE."""
        trials = self._study.trials()
        config = self._study.config
        return why_pruned(config.pruner, trials[claim.number], trials, config.strata)

    def annotate(self, claim: Claim, attributes: Mapping[str, Any], *, excess: Mapping[str, float] = {}) -> bool:
        """Write user attributes, and each limit's excess relative to it. Return False where the lease is lost."""
        with self.holding(claim) as held:
            if held:
                self._storage.set_trial_user_attrs(claim.trial_id, attributes)
                for limit, over in excess.items():
                    self._storage.set_trial_system_attr(claim.trial_id, f"constraints:{limit}", over)
            return held

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[bool]:
        """Run one transaction during which nobody can take the trial away; yield False where the lease is lost."""
        with self._step() as connection:
            yield self._fenced(connection, claim) is not None

    def complete(self, claim: Claim, accuracy: float, attributes: Mapping[str, Any]) -> bool:
        """End the trial as COMPLETE with its validation accuracy. Return False where the lease is lost."""
        return self._end(claim, TrialState.COMPLETE, dict(attributes), accuracy)

    def prune(self, claim: Claim, reason: str, attributes: Mapping[str, Any]) -> bool:
        """End the trial as PRUNED with its last accuracy, 0.0 without one, none beyond a limit. False: a lost lease."""
        return self._end(claim, TrialState.PRUNED, {"reason": reason} | dict(attributes))

    def fail(self, claim: Claim, reason: str, attributes: Mapping[str, Any]) -> bool:
        """End the trial as FAIL. Return False where the lease is lost."""
        return self._end(claim, TrialState.FAIL, {"reason": reason} | dict(attributes))

    def release(self, claim: Claim, reason: str, *, counted: bool, epochs_gained: bool) -> bool:
        """Let the trial wait for another attempt. Return False where the lease is lost.

        Attempts that are `counted`, for they were not simply stopped, end the trial as FAIL after too many in a row of
        which none gained an epoch.
        """
        with self._step() as connection:
            trial = self._fenced(connection, claim, ended_as=TrialState.WAITING)
            if trial is not None and trial.state is TrialState.RUNNING:
                self._requeue(connection, trial, reason, counted=counted, epochs_gained=epochs_gained)
            return trial is not None

    def reap(self) -> list[Reaped]:
        """Free what the dead hold: at once on this host, else after `lease_seconds` without a heartbeat."""
        with self._step() as connection:
            reaped = self._reap(connection)
            if reaped and not read_leases(connection, self._study_id):
                self._end_excess(self._study.trials())
            return reaped

    def take_reaped(self) -> list[Reaped]:
        """Return what claims and heartbeats have freed since the last call."""
        reaped, self._reaped = self._reaped, []
        return reaped

    def drop_worker(self, worker: Worker) -> None:
        """Release, uncounted, the trials of a worker that was ended on purpose."""
        with self._step() as connection:
            for lease in read_leases(connection, self._study_id):
                if lease.process == worker.process:
                    self._free(connection, lease, f"worker {worker.name} was stopped", counted=False)

    def held(self) -> list[Lease]:
        """Return the leases as they are, without waiting for anybody."""
        with self._storage.reading() as connection:
            return read_leases(connection, self._study_id)

    @contextmanager
    def _step(self) -> Iterator[Connection]:
        try:
            with self._study.transaction() as connection:
                yield connection
        except StorageError:
            self._heartbeats.restart()
            raise

    def _of(self, claim: Claim) -> dict[str, int]:
        return {"trial": claim.trial_id, "study": self._study_id, "held": claim.attempt}

    def _fenced(
        self, connection: Connection, claim: Claim, *, ended_as: TrialState | None = None, to_judge: bool = False
    ) -> FrozenTrial | None:
        """Return the trial if this attempt holds it, or ended it as `ended_as` in a call whose answer got lost."""
        read = self._storage.get_trial_to_judge if to_judge else self._storage.get_trial
        trial = read(claim.trial_id)
        held = connection.execute(IS_HELD, self._of(claim)).first() is not None
        if held and trial.state is TrialState.RUNNING:
            return trial
        if held:  # somebody ended it with other tools, a dashboard for example
            drop_lease(connection, claim.trial_id)
        elif trial.state is ended_as and trial.user_attrs.get("attempts") == claim.attempt:
            return trial
        late = self._study.read().attributes.get("late_results", 0)
        self._storage.set_study_user_attr(self._study_id, "late_results", late + 1)
        return None

    def _end(self, claim: Claim, state: TrialState, attributes: dict[str, Any], accuracy: float | None = None) -> bool:
        with self._step() as connection:
            trial = self._fenced(connection, claim, ended_as=state)
            if trial is None:
                return False
            if trial.state is not TrialState.RUNNING:
                return accuracy is None or trial.value == accuracy
            if state is TrialState.PRUNED and not is_infeasible(trial):
                if not trial.intermediate_values:  # samplers rank pruned trials by their last
                    self._storage.set_trial_intermediate_value(claim.trial_id, 1, 0.0)
                accuracy = trial.intermediate_values.get(max(trial.intermediate_values, default=1), 0.0)
            elif state is TrialState.COMPLETE and "reason" in trial.user_attrs:
                attributes = attributes | {"reason": None}  # why an earlier attempt was released
            self._write(claim.trial_id, state, attributes, accuracy)
            drop_lease(connection, claim.trial_id)
            return True

    def _requeue(
        self, connection: Connection, trial: FrozenTrial, reason: str, *, counted: bool, epochs_gained: bool
    ) -> TrialState:
        """Put a RUNNING trial back into the queue, or end it after too many attempts without progress."""
        attempts = 0 if epochs_gained else trial.user_attrs.get("attempts_without_progress", 0) + counted
        state = TrialState.WAITING
        if attempts > self._study.config.max_retries:
            state = TrialState.FAIL
            reason = f"{attempts} attempts in a row ended without one more finished epoch; the last: {reason}"
        self._write(id_of(trial), state, {"reason": reason, "attempts_without_progress": attempts})
        drop_lease(connection, id_of(trial))
        return state

    def _write(self, trial_id: int, state: TrialState, attributes: dict[str, Any], value: float | None = None) -> None:
        """Write attributes and a state, and with an end its place among the study's ends: hosts' clocks differ."""
        place = {ENDED_AFTER: self._storage.get_n_trials(self._study_id, ENDED)} if state.is_finished() else {}
        self._storage.set_trial_user_attrs(trial_id, attributes | place)
        self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def _free(self, connection: Connection, lease: Lease, reason: str, *, counted: bool) -> Reaped:
        if lease.trial_process is not None and kill(lease.trial_process) is None:
            reason += "; the process that trained is another user's, and was left alone"
        self._study.trials()  # from here on a damaged trial counts as one that has ended
        trial = self._storage.get_trial(lease.trial_id)
        host, state = lease.process.host, trial.state
        if state is TrialState.RUNNING:
            gained = lease.last_epoch > lease.first_epoch
            state = self._requeue(connection, trial, reason, counted=counted, epochs_gained=gained)
        else:
            drop_lease(connection, lease.trial_id)
        return Reaped(number=trial.number, attempt=lease.attempt, worker=lease.worker, host=host, state=state)

    def _reap(self, connection: Connection) -> list[Reaped]:
        leases = read_leases(connection, self._study_id)
        reaped = []
        for lease, stale_seconds in zip(leases, self._heartbeats.stale_seconds(leases), strict=True):
            dead = is_dead(lease.process)
            if dead or stale_seconds >= self._lease_seconds:
                how = "ended" if dead else f"gave no sign of life for {self._lease_seconds:g} s"
                why = f"worker {lease.worker} on {lease.process.host} {how}"
                reaped.append(self._free(connection, lease, why, counted=True))
        return reaped

    def _end_excess(self, trials: list[FrozenTrial]) -> None:
        enough = count(trials).finished >= self._study.read().n_trials
        for trial in trials:
            if enough and not trial.state.is_finished() and not enqueued_trials([trial]):
                self._write(id_of(trial), TrialState.FAIL, {"reason": EXCESS})

    def _next(self, connection: Connection, worker: Worker) -> Claim | Idle:
        attributes = self._study.read().attributes
        if attributes.get("stopped") is not None:
            return Idle.STOPPED
        trials = self._study.trials()
        leased = {lease.trial_id for lease in read_leases(connection, self._study_id)}
        taken = (finished := count(trials).finished) + len(leased)
        waiting = unclaimed(trials, leased)
        if taken >= attributes["n_trials"]:
            waiting = enqueued_trials(waiting)  # they run all the same
        if finished >= attributes["n_trials"] and not waiting:
            if not leased:
                self._end_excess(trials)
            return Idle.FINISHED
        if stop_where_due(self._study, connection, trials):
            return Idle.STOPPED
        for trial in waiting:
            try:
                claim = self._begin(connection, worker, trial, trials)
            except UnusableTrial as error:
                self._write(id_of(trial), TrialState.FAIL, {"reason": str(error)})
                continue
            if taken >= attributes["n_trials"]:
                self._storage.set_study_user_attr(self._study_id, "n_trials", taken + 1)
            return claim
        if taken >= attributes["n_trials"]:
            return Idle.WAIT  # the next look finds it finished, if it is
        if "confirms" in attributes:
            return Idle.WAIT if leased else Idle.FINISHED  # its arms and seeds are given: nothing is suggested
        trial_id = self._storage.create_new_trial(self._study_id)
        if (stratum := stratum_to_draw_for(self._study, trials)) is not None:
            self._storage.set_trial_user_attrs(trial_id, {STRATUM: stratum.end})
        return self._begin(connection, worker, self._storage.get_trial(trial_id), trials)

    def _begin(self, connection: Connection, worker: Worker, trial: FrozenTrial, trials: list[FrozenTrial]) -> Claim:
        trial_id, attributes = id_of(trial), trial.user_attrs
        stratum = drawn_for(self._study.config.strata, trial)
        if trial.state is TrialState.WAITING:
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        claim = Claim(
            study=self._study.name,
            trial_id=trial_id,
            number=trial.number,
            attempt=attributes.get("attempts", 0) + 1,
            hyperparameters=suggest(self._study, trial, trials, stratum),
            seed=attributes.get("seed", self._study.config.training.seed + trial.number),
            control=attributes.get("control", attributes.get("arm_name")),
            reported_epochs=frozenset(trial.intermediate_values),
            out_of_memory=attributes.get("out_of_memory", 0),
            stratum=stratum,
        )
        values = {"hyperparameters": claim.hyperparameters, "seed": claim.seed, "attempts": claim.attempt}
        values |= {"worker": worker.name, "host": worker.process.host}
        idle = set(without_effect(claim.hyperparameters)) & self._study.config.hyperparameters.searched().keys()
        values |= {"without_effect": sorted(idle)} if idle else {}
        if enqueued_trials([trial]) and (remark := remark_on(trial, self._study.config.hyperparameters)) is not None:
            values["enqueued"] = remark
        self._storage.set_trial_user_attrs(trial_id, values)
        epoch = max(trial.intermediate_values, default=0)
        lease = Lease(
            trial_id=trial_id,
            attempt=claim.attempt,
            worker=worker.name,
            process=worker.process,
            first_epoch=epoch,
            last_epoch=epoch,
        )
        write_lease(connection, self._study_id, lease)
        return claim
