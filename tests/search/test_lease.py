"""Claims, fences, ends and the recovery of what the dead held, on both databases."""

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Claim, Idle, Leases, Verdict, Worker
from igkd_hpo.search.study import SearchStudy

MakeStudy = Callable[..., SearchStudy]


def claimed(leases: Leases, worker: Worker) -> Claim:
    claim = leases.claim(worker)
    assert isinstance(claim, Claim), claim
    return claim


def test_a_trial_from_claim_to_complete(make_study: MakeStudy, worker: Worker) -> None:
    study = make_study()
    leases = Leases(study)
    claim = claimed(leases, worker)
    assert (claim.number, claim.attempt, claim.seed, claim.control) == (0, 1, 0, None)
    assert list(claim.hyperparameters) == list(type(study.config.hyperparameters).model_fields)
    assert leases.started(claim, this_process(), "cpu")
    assert leases.beat(claim, last_epoch=1)
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    assert leases.annotate(claim, {"parameters": 543_498})
    (lease,) = leases.held()
    assert (lease.worker, lease.trial_process, lease.device, lease.beat, lease.last_epoch) == (
        "here", this_process(), "cpu", 1, 1)  # fmt: skip
    assert leases.complete(claim, 0.75, {"validation_loss": 0.25})
    (trial,) = study.trials()
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 0.75
    assert trial.intermediate_values == {1: 0.5}
    searched = study.config.hyperparameters.searched()
    assert trial.params == {name: claim.hyperparameters[name] for name in searched}
    assert trial.user_attrs == {
        "hyperparameters": claim.hyperparameters, "seed": 0, "attempts": 1, "worker": "here",
        "host": worker.process.host, "device": "cpu", "parameters": 543_498, "validation_loss": 0.25,
    }  # fmt: skip
    assert leases.held() == []
