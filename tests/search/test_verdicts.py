"""What a report answers is what Optuna's own study would answer, whoever reports and whatever else goes on."""

import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from igkd_hpo.search.lease import Claim, Leases, Verdict, Worker
from igkd_hpo.search.pruner import make_pruner
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import SearchStudy, open_study

PRUNERS: list[dict[str, Any]] = [
    {"name": "percentile", "keep": 40, "grace_period": 1},
    {"name": "median", "grace_period": 0, "patience": 1},
    {"name": "successive_halving", "grace_period": 1, "reduction_factor": 2},
    {"name": "hyperband", "grace_period": 1, "reduction_factor": 2},
]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["name"])
def test_verdicts_are_those_of_optuna(
    make_study: Callable[..., SearchStudy], database_url: str, worker: Worker, pruner: dict[str, Any]
) -> None:
    here = make_study(pruner=pruner, n_trials=24)
    epochs = here.config.training.epochs
    elsewhere = open_study(open_storage(database_url, create=False), here.name)
    sides = [Leases(here), Leases(elsewhere)]
    stock = optuna.create_study(
        study_name=here.name, direction="maximize", pruner=make_pruner(here.config.pruner, epochs)
    )
    draw = random.Random(7)
    running: list[tuple[Claim, optuna.Trial, int]] = []
    verdicts = []
    while True:
        side = draw.choice(sides)
        while len(running) < 4 and isinstance(claim := side.claim(worker), Claim):
            running.append((claim, stock.ask(), 0))
        if not running:
            break
        claim, theirs, done = running.pop(draw.randrange(len(running)))
        assert claim.number == theirs.number
        epoch, accuracy = done + 1, round(draw.random(), 3)
        verdict = side.report(claim, epoch=epoch, accuracy=accuracy)
        theirs.report(accuracy, epoch)
        if epoch == epochs:
            assert side.complete(claim, accuracy, {})
            stock.tell(theirs, accuracy)
            continue
        verdicts.append(verdict)
        assert (verdict is Verdict.PRUNE) == theirs.should_prune(), (claim.number, epoch)
        if verdict is Verdict.PRUNE:
            assert side.prune(claim, "pruned", {})
            stock.tell(theirs, state=TrialState.PRUNED)
        else:
            running.append((claim, theirs, epoch))
    elsewhere.storage.engine.dispose()
    assert {*verdicts} == {Verdict.GO_ON, Verdict.PRUNE}
    ended = {trial.number: (trial.state, dict(trial.intermediate_values)) for trial in here.trials()}
    assert ended == {trial.number: (trial.state, dict(trial.intermediate_values)) for trial in stock.trials}
