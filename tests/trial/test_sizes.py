"""Whether each stratum holds a student of the search space, which is known before anything is trained."""

from typing import Any

from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.strata import Strata
from igkd_hpo.config.study import Study
from igkd_hpo.trial.sizes import Sizes, find_sizes


def sizes_of(at: tuple[float, ...], of: Any = "parameters", **settings: object) -> Sizes:
    digits = read_study(builtin_studies()["digits"]).model_dump()
    del digits["student"]  # which names one architecture
    study = Study.model_validate(digits | {"hyperparameters": digits["hyperparameters"] | settings})
    return find_sizes(study, Strata(of=of, at=at), num_classes=10, image_size=(8, 8), allow_import=frozenset())


DEPTH = {"type": "int", "low": 12, "high": 17}


def test_the_smallest_and_the_largest_student_are_found() -> None:
    found = sizes_of((1_000.0, 10_000.0, 100_000.0), layers_removed=DEPTH, width=1.0)
    assert (found.smallest, found.largest) == (1_994, 55_818)
    assert [one.end for one in found.empty] == [1_000.0]
    assert found.fault is not None
    assert "from 0 parameters to 1,000 parameters" in found.fault
    assert "1,994 parameters to 55,818 parameters" in found.fault


def test_a_gap_between_sizes_is_found() -> None:
    # 17 blocks removed leave 1,994 parameters, and 490 of a quarter of the width; 12 leave 55,818 and 7,530.
    widths = {"type": "categorical", "choices": (0.25, 1.0)}
    depths = {"type": "categorical", "choices": (12, 17)}
    found = sizes_of((490.0, 1_993.0, 2_000.0, 7_529.0, 7_530.0, 60_000.0), layers_removed=depths, width=widths)
    assert [one.end for one in found.empty] == [1_993.0, 7_529.0]
    assert sizes_of((490.0, 2_000.0, 7_530.0), layers_removed=depths, width=widths).fault is None


def test_a_narrow_stratum_of_a_continuous_knob_is_reached() -> None:
    width = {"type": "float", "low": 0.25, "high": 1.0}
    # Channels go in steps of 8: 7,530 parameters, 14,282, 20,170 …
    assert sizes_of((8_000.0, 14_300.0, 55_818.0), layers_removed=12, width=width).empty == ()
    assert len(sizes_of((8_000.0, 14_000.0, 55_818.0), layers_removed=12, width=width).empty) == 1


def test_other_costs_and_networks_are_counted() -> None:
    found = sizes_of((1.0, 1e9), of="macs", layers_removed=DEPTH, width=1.0)
    assert [one.end for one in found.empty] == [1.0]
    assert found.smallest < found.largest
    of_two = sizes_of(
        (100.0, 1e9),
        of="size_kb",
        architecture={"type": "categorical", "choices": ("mobilenet_v2", "torchvision/shufflenet_v2_x0_5")},
        layers_removed=17,
        width=1.0,
    )
    assert of_two.empty == ()
    assert (of_two.smallest, of_two.largest) == (7.8, 1375.2)
