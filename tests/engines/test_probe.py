"""How many workers pay, from what was measured."""

from collections.abc import Mapping

import pytest

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.engines.engine import Host
from igkd_hpo.engines.local.engine import LocalEngine
from igkd_hpo.engines.probe import Probe, find_worthwhile
from igkd_hpo.engines.signals import StopSignal
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings

GIB = 1 << 30


class Measured:
    """A device on which so many trials together reach so many images per second; more do not fit into its memory."""

    def __init__(self, rates: Mapping[int, float], *, free: int = 100 * GIB, each: int = GIB) -> None:
        self._rates = rates
        self.free_bytes = free
        self.trial_bytes = each
        self.asked: list[int] = []

    def measure(self, trials: int) -> float | None:
        self.asked.append(trials)
        return self._rates.get(trials)


def found(field: Measured, devices: tuple[str, ...] = ("cuda:0",), cores: int = 64) -> Probe:
    return find_worthwhile(field, devices, cores)


def test_workers_are_doubled_until_twice_as_many_add_less_than_a_twentieth() -> None:
    field = Measured({1: 100.0, 2: 190.0, 4: 300.0, 8: 314.0, 16: 1000.0})
    probe = found(field, ("cuda:0", "cuda:1"))
    assert field.asked == [1, 2, 4, 8]
    assert (probe.per_device, probe.workers) == (4, 8)
    assert probe.gain == 3.0
    assert str(probe) == (
        "workers: 8 (4 on each of 2 GPUs); measured side by side on cuda:0: 1 trained 100 images/s, "
        "2 trained 190 images/s, 4 trained 300 images/s, 8 trained 314 images/s; 8 are not worth it; "
        "a trial takes 1.0 GiB of 100.0 GiB"
    )


def test_a_slower_pair_leaves_one() -> None:
    assert found(Measured({1: 100.0, 2: 80.0})).workers == 1


def test_memory_bounds_what_is_tried_and_what_is_chosen() -> None:
    fitting = Measured({1: 100.0, 2: 200.0, 3: 300.0, 4: 400.0}, free=10 * GIB, each=3 * GIB)
    probe = found(fitting)
    assert fitting.asked == [1, 2, 3], "three of 3 GiB fit into 9 of 10 GiB"
    assert (probe.workers, probe.why) == (3, "there is no memory for more")
    probe = found(Measured({1: 100.0, 2: 200.0}))
    assert (probe.workers, probe.why) == (2, "4 ran out of memory")
    with pytest.raises(UsageError, match="not even one trial fits"):
        found(Measured({}))


def test_no_more_trials_than_cores() -> None:
    rates = {count: 100.0 * count for count in range(1, 9)}
    assert found(Measured(rates), ("cpu",), cores=6).workers == 6
    assert found(Measured(rates), ("cuda:0", "cuda:1"), cores=6).workers == 6
    assert found(Measured(rates), ("cuda:0", "cuda:1", "cuda:2"), cores=2).workers == 3, "one on each GPU at least"


def test_without_the_studys_images_there_is_nothing_to_measure() -> None:
    study = read_study(builtin_studies()["digits"])
    with (
        StopSignal() as stop,
        LocalEngine() as engine,
        pytest.raises(UsageError, match=r"--workers auto .*`igkd-hpo prepare`"),
    ):
        engine.measure(study, Host(settings=Settings.resolve(), device="cpu", stop=stop))
