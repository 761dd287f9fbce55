"""Studies and workers for the tests of search/."""

from collections.abc import Callable, Iterator

import pytest

from igkd_hpo.assets.pins import AssetPins
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.study import Study
from igkd_hpo.search.identity import ProcessIdentity, this_process
from igkd_hpo.search.lease import Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy, create_or_open

PINS = AssetPins(dataset_sha256="d" * 64, teacher_sha256="e" * 64)


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float, look: Callable[[], object]) -> None:
        """Let time go by for a watcher who looks now and then, though not at its end."""
        for _ in range(3):
            self.now += seconds / 4
            look()
        self.now += seconds / 4


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def study_file() -> Study:
    """The quickstart, cut to 8 trials of 6 epochs, no controls, nothing pruned."""
    digits = read_study(builtin_studies()["digits"])
    training = digits.training.model_copy(update={"epochs": 6})
    return Study.model_validate(
        digits.model_dump() | {"training": training, "n_trials": 8, "controls": (), "pruner": {"name": "none"}}
    )


@pytest.fixture
def storage(database_url: str) -> Iterator[SharedStorage]:
    opened = open_storage(database_url, create=True)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def make_study(storage: SharedStorage, study_file: Study) -> Callable[..., SearchStudy]:
    """Makes the study, with changes to its file."""

    def make(**changes: object) -> SearchStudy:
        changed = Study.model_validate(study_file.model_dump() | changes)
        return create_or_open(storage, changed, n_trials=None, pins=PINS)

    return make


@pytest.fixture
def worker() -> Worker:
    """A worker that is this process."""
    return Worker(name="here", process=this_process())


@pytest.fixture
def elsewhere() -> Callable[[str], Worker]:
    """Makes workers of other hosts, of which nothing but their beats can be seen from here."""

    def make(name: str) -> Worker:
        identity = ProcessIdentity(host=f"host-{name}", boot_id=f"boot-{name}", pid=1, start_time=1.0)
        return Worker(name=name, process=identity)

    return make


@pytest.fixture
def make_postgresql_study(postgresql_url: str, study_file: Study) -> Iterator[Callable[[], SearchStudy]]:
    """Makes the study in PostgreSQL alone."""
    opened = open_storage(postgresql_url, create=True)
    yield lambda: create_or_open(opened, study_file, n_trials=None, pins=PINS)
    opened.engine.dispose()
