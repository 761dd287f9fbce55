"""The students of rungs: by cutting, by widths, of other architectures, and what no knob reaches."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.compression.rung import PAPER_RUNGS, Rung, check_factors, is_near, read_factors, student_in_words
from igkd_hpo.compression.students import find_students
from igkd_hpo.config.reading import parse_study
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Paths, Settings
from tests.fixtures.studies import STUDY

PAPER_TEACHER, SMALL_TEACHER = 2_236_682, 250_922
SMALL = {"teacher": SMALL_TEACHER}


def find(
    *factors: float, teacher: int = PAPER_TEACHER, taken: tuple[Rung, ...] = (), add: str = "", **values: Any
) -> list[Rung]:
    """Find students of a study for 32x32 images of 10 classes."""
    study = parse_study(STUDY.replace("batch_size:", f"{add}\n  batch_size:"), source="study.yaml")
    settings = Settings(paths=Paths(root=Path("/nowhere")), storage_url="", data_root=Path("/nowhere"),
                        allow_import=frozenset())  # fmt: skip
    dataset = SimpleNamespace(num_classes=10, image_size=(32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    assets = Assets(
        study=study,
        settings=settings,
        dataset=cast("Any", dataset),
        teacher_sha256="e" * 64,
        teacher_parameters=teacher,
        teacher_threads=None,
        logits=None,
        attention=None,
        maps=None,
        weights={},
    )
    statistics = dataset.mean, dataset.std
    network = Network(mobilenet_v2(num_classes=10, width=0.25), *statistics)
    vars(assets)["teachers"] = SimpleNamespace(members=[SimpleNamespace(network=network)])
    state = torch.random.get_rng_state()
    found = find_students(assets, study.hyperparameters.middle() | values, factors, taken, SilentProgress())
    assert torch.equal(torch.random.get_rng_state(), state), "the training's randomness is left alone"
    return found


def test_the_papers_chain_is_cut_from_the_end_at_full_width() -> None:
    found = find(*PAPER_RUNGS)
    assert [rung.student["layers_removed"] for rung in found] == [3, 5, 7, 9, 11, 13, 15, 17]
    assert {rung.student["width"] for rung in found} == {1.0}
    # The table of arXiv 2503.13008: parameters and factors.
    assert [rung.parameters for rung in found] == [1019402, 543498, 306954, 185738, 77194, 40970, 16042, 1994]
    factors = [2.194, 4.115, 7.287, 12.042, 28.975, 54.593, 139.427, 1121.706]
    assert [rung.reached for rung in found] == pytest.approx(factors, abs=6e-4)


def test_a_width_is_turned_only_where_no_cut_comes_near() -> None:
    cut, turned = find(5.0, 330.0, width=0.25, **SMALL)
    assert cut.student == {"architecture": "mobilenet_v2", "layers_removed": 5, "width": 0.25}
    assert turned.student["width"] != 0.25
    assert turned.reached == pytest.approx(330, rel=0.15)


def test_given_weights_keep_their_width() -> None:
    (rung,) = find(330.0, init="teacher_prefix", width=0.25, **SMALL)
    assert rung.student == {}
    assert rung.reached is None
    assert "of one width" in str(rung.left_out)


def test_what_no_knob_reaches_is_left_out_with_the_nearest() -> None:
    near, far = find(13.0, 1e6, width=0.25, **SMALL)
    assert near.left_out is None
    assert far.student == {}
    assert "within 15 % " in str(far.left_out)
    assert "layers_removed 17, width" in str(far.left_out)


def test_a_student_is_on_one_rung() -> None:
    first, second = find(13.0, 14.0, width=0.25, **SMALL)
    assert first.left_out is None
    assert "13 times" in str(second.left_out)
    (again,) = find(14.0, taken=(first,), width=0.25, **SMALL)
    assert again == second


def test_other_architectures_of_the_study_take_what_the_own_cannot_reach() -> None:
    choices = "architecture: {type: categorical, choices: [torchvision/shufflenet_v2_x0_5, mobilenet_v2]}"
    # shufflenet_v2_x0_5 has 352,042 parameters for 10 classes, and cuts of it fewer.
    own, other = find(6.353, 1.67, add=choices, architecture="torchvision/shufflenet_v2_x0_5")
    assert own.student == {"architecture": "torchvision/shufflenet_v2_x0_5", "stages_removed": 0}
    assert other.student["architecture"] == "mobilenet_v2"
    assert student_in_words(own.student) == "torchvision/shufflenet_v2_x0_5, stages_removed 0"


def test_a_student_that_cannot_begin_as_the_settings_ask_is_left_out() -> None:
    (rung,) = find(SMALL_TEACHER / 874, init="teacher_prefix", width=0.5, **SMALL)
    assert rung.student == {}
    assert "layers_removed 17, width 0.5 cannot be trained with these settings: block 0 " in str(rung.left_out)


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        ((), "empty"),
        ((4.1, 1.0), "1 "),
        ((0.5,), "0.5 "),
        ((float("nan"),), "nan"),
        ((12.0, 4.1, 12.0), "12 is there twice"),
    ],
)
def test_wrong_factors_are_refused(factors: tuple[float, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        check_factors(factors)


def test_factors_are_read_and_ordered() -> None:
    assert check_factors(read_factors("12, 4.1")) == (4.1, 12.0)
    with pytest.raises(UsageError, match="'four'"):
        read_factors("four,12")
    assert is_near(115.0, 100.0)
    assert not is_near(115.2, 100.0)
