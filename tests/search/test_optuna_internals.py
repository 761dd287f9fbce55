"""Optuna's names that are not public: where a version has others, things still work."""

import subprocess
import sys
from pathlib import Path

import pytest

LOADED = (
    "import optuna.storages._rdb.storage as s, optuna.storages._rdb.models as m; s.models.BaseModel; "  # for Optuna
)
MODELS = LOADED + "del sys.modules['optuna.storages._rdb'].models; sys.modules[m.__name__] = None"
TABLE = LOADED + "del m.TrialValueModel"
CACHED = "import optuna; del optuna.storages._CachedStorage"
STUDY_INFO = LOADED + "import optuna.storages._cached_storage as c; c.info = c._StudyInfo; del c._StudyInfo"
INIT = """
from optuna.storages import RDBStorage
made = RDBStorage.__init__
def make(self, *arguments, **options):
    made(self, *arguments, **options)
    self.more = 1
RDBStorage.__init__ = make
"""

WORK = """
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Leases, Verdict, Worker
from igkd_hpo.search.status import status
from igkd_hpo.search.storage import open_storage
from igkd_hpo.search.study import create_or_open

storage = open_storage(sys.argv[1], create=True)
digits = read_study(builtin_studies()["digits"]).model_dump()
study = create_or_open(storage, Study.model_validate(digits | {"n_trials": 4}), n_trials=None, pins=None)
leases, worker = Leases(study), Worker(name="w", process=this_process())
for number in range(3):
    claim = leases.claim(worker)
    assert leases.annotate(claim, {"parameters": 7, "device": "cpu"})
    assert leases.report(claim, epoch=1, accuracy=0.5) is Verdict.GO_ON
    assert leases.heartbeat(claim, last_epoch=1) is Verdict.GO_ON
    assert leases.complete(claim, 0.5 + number / 10, {}) if number else leases.prune(claim, "slow", {})
try:
    with study.transaction():
        storage.create_new_trial(study.study_id)
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
leases.claim(worker)
again = open_storage(sys.argv[1], create=False)
assert vars(again._backend).keys() == vars(storage._backend).keys()
(only,) = status(again)
assert (only.best_accuracy, only.counts.complete, only.counts.pruned, only.counts.running) == (0.7, 2, 1, 1), only
assert [trial.number for trial in study.trials()] == [0, 1, 2, 3]
"""


@pytest.mark.parametrize(
    "other", [MODELS, CACHED, STUDY_INFO, TABLE, INIT], ids=["models", "cached", "info", "table", "init"]
)
def test_a_version_with_other_private_names_still_works(tmp_path: Path, other: str) -> None:
    script = f"import sys\n{other}\n{WORK}"
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{tmp_path}/study.db"], check=True)
