"""A worker that serves every open study: one that cannot be used ends nothing but itself, and is told of once."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from igkd_hpo.engines.events import Event
from igkd_hpo.engines.open_studies import OpenStudies
from igkd_hpo.engines.running_trial import Slot
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.engines.worker import Job, OneStudy, Source, work
from igkd_hpo.errors import DataError, UsageError
from igkd_hpo.search.identity import this_process
from igkd_hpo.search.lease import Idle, Worker
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Settings
from tests.engines.made_up import MadeUpTrial
from tests.search.conftest import make_study, storage, study_file

__all__ = ["make_study", "storage", "study_file"]

Make = Callable[..., SearchStudy]
WORKER = Worker(name="worker", process=this_process())


@pytest.fixture
def elsewhere(storage: SharedStorage, database_url: str) -> Iterator[SharedStorage]:
    """The same database, as another program has it."""
    opened = open_storage(database_url, create=False)
    yield opened
    opened.engine.dispose()


def delete(elsewhere: SharedStorage, name: str) -> None:
    elsewhere.delete_study(elsewhere.get_study_id_from_name(name))


def damage(elsewhere: SharedStorage, name: str) -> None:
    elsewhere.set_study_user_attr(elsewhere.get_study_id_from_name(name), "n_trials", "many")


def launch_again(elsewhere: SharedStorage, name: str) -> None:
    elsewhere.set_study_user_attr(elsewhere.get_study_id_from_name(name), "launched", "2099-01-01T00:00:00+00:00")


class Bench:
    """A worker whose first trial spoils its study; it is stopped when it trains another."""

    def __init__(self, elsewhere: SharedStorage, spoil: Callable[[SharedStorage, str], None]) -> None:
        url = elsewhere.url.render_as_string(hide_password=False)
        self.settings = replace(Settings.resolve(storage_url=url), lease_seconds=0.6)
        self.trials: dict[str, MadeUpTrial] = {}
        self.said: list[str] = []
        self._spoil = lambda name: spoil(elsewhere, name)

    def work(self, source: Source) -> Idle | None:
        with StopSignal() as stop:

            def start(task: Any) -> MadeUpTrial:
                name = task.trial.study.name
                left = [self._spoil] if not self.trials else [lambda _: stop.set(signal.SIGTERM)]
                self.trials[name] = MadeUpTrial((), then=lambda: left.pop()(name) if left else None)
                self.trials[name].process = None
                return self.trials[name]

            slot = Slot(number=0, device="cpu", threads=1)
            return work(source, self.settings, slot, start=start, stop=stop, on_event=self._hear)

    @staticmethod
    def _hear(study: str, event: Event) -> None:
        pass


def serve(
    storage: SharedStorage, said: list[str], prepare: Callable[[SearchStudy], None] = lambda study: None
) -> OpenStudies:
    settings = Settings.resolve(storage_url=storage.url.render_as_string(hide_password=False))
    return OpenStudies(storage, settings, WORKER, prepare=prepare, on_message=said.append)


@pytest.mark.parametrize("spoil", [delete, damage])
def test_a_study_that_is_spoilt_in_the_middle_of_a_trial_is_passed_over(
    make_study: Make, storage: SharedStorage, elsewhere: SharedStorage, spoil: Callable[[SharedStorage, str], None]
) -> None:
    make_study(name="other")
    make_study(name="spoilt")
    bench = Bench(elsewhere, spoil)
    assert bench.work(serve(storage, bench.said)) is None
    assert list(bench.trials) == ["spoilt", "other"], "the one launched last comes first"
    assert all(trial.closed for trial in bench.trials.values())
    assert [text.split()[1] for text in bench.said] == ["spoilt"]


@pytest.mark.parametrize("spoil", [delete, damage])
def test_a_worker_of_a_study_that_is_spoilt_in_the_middle_of_a_trial_ends_with_an_error(
    make_study: Make, elsewhere: SharedStorage, spoil: Callable[[SharedStorage, str], None]
) -> None:
    study, bench = make_study(name="spoilt"), Bench(elsewhere, spoil)
    with pytest.raises(UsageError, match="spoilt"):
        bench.work(OneStudy(study=study, settings=bench.settings, worker=WORKER))
    assert bench.trials["spoilt"].closed


def test_a_study_that_cannot_be_used_is_told_of_once_for_each_launch(
    make_study: Make, storage: SharedStorage, elsewhere: SharedStorage
) -> None:
    n_trials = make_study().config.n_trials
    damage(elsewhere, "digits")
    said: list[str] = []
    source = serve(storage, said)
    for _ in range(3):
        assert source.claim() is Idle.WAIT
    told = [text for text in said if "digits" in text]
    assert len(told) == 1
    launch_again(elsewhere, "digits")
    for _ in range(3):
        assert source.claim() is Idle.WAIT
    assert [text for text in said if "digits" in text] == 2 * told
    elsewhere.set_study_user_attr(elsewhere.get_study_id_from_name("digits"), "n_trials", n_trials)
    assert source.claim() is Idle.WAIT, "mended, and not launched again"
    make_study()
    assert isinstance(source.claim(), Job)


def test_a_study_that_cannot_be_used_any_more_is_told_of_when_it_is_launched_again(
    make_study: Make, storage: SharedStorage, elsewhere: SharedStorage
) -> None:
    make_study(n_trials=1)
    said: list[str] = []
    source = serve(storage, said)
    assert isinstance(source.claim(), Job)
    damage(elsewhere, "digits")
    launch_again(elsewhere, "digits")
    for _ in range(2):
        assert source.claim() is Idle.WAIT
    assert len([text for text in said if "digits" in text]) == 1


def test_a_study_that_cannot_be_prepared_is_tried_once_for_each_launch(
    make_study: Make, storage: SharedStorage, elsewhere: SharedStorage
) -> None:
    make_study()
    tried: list[str] = []

    def refuse(study: SearchStudy) -> None:
        tried.append(study.name)
        raise DataError("no such images")

    said: list[str] = []
    source = serve(storage, said, refuse)
    for attempts in (1, 2):
        for _ in range(2):
            assert source.claim() is Idle.WAIT
        assert len(tried) == len([text for text in said if "no such images" in text]) == attempts
        launch_again(elsewhere, "digits")
