"""Networks that others wrote are tried before hours are spent: what a few training steps find, and what follows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from igkd_hpo.errors import UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.step import Step, StepFailed, StepTask, keep_step, known_step, memory_format, take_steps
from tests.fixtures.networks import NETWORKS, dataset_of, network_settings, study_of

CPU = torch.device("cpu")
settings = network_settings


def steps_of(name: str, settings: Settings, layout: Any = "channels_last", **hyperparameters: Any) -> Step:
    study = study_of(name, **hyperparameters)
    dataset_of(study, settings)
    return take_steps(StepTask(study=study, settings=settings, device="cpu", architecture=name, memory_format=layout))


def test_a_network_that_trains_says_how_long_a_step_takes_and_how_small_its_maps_are(settings: Settings) -> None:
    step = steps_of("nets:plain", settings, attribution_weight=1.0, ema_decay=0.9)
    assert (step.memory_format, step.smallest_side, step.why) == ("channels_last", 2, None)
    assert step.seconds > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nets:silent", ("NoneType", "(2, 2)")),
        ("nets:thousand", ("(2, 1000)", "(2, 2)")),
        ("nets:detached", ("depend",)),
        ("nets:infinite", ("finite",)),
        ("nets:sure", ("softmax",)),
        ("nets:late", ("late.bias",)),
        ("nets:crowd", ("BatchNorm",)),
        ("nets:guessing", ("each time",)),
        ("nets:paired", ("tuple", "in training")),
        ("nets:same", ("the same network",)),
        ("torchvision/resnet19", ("did you mean resnet18",)),
        ("torchvision/vgg11", ("stages_removed is 1",)),
        ("timm/efficientformer_l1", ("stages_removed is 1", "cannot be cut")),
    ],
)
def test_what_no_layout_of_memory_mends_is_told_at_once(settings: Settings, name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as told:
        steps_of(name, settings, stages_removed={"type": "int", "low": 0, "high": 1})
    assert all(word in str(told.value) for word in (name, *words)), told.value


@pytest.mark.parametrize(
    ("name", "weight", "refused"), [("hard", 1.0, True), ("hard", 0.0, False), ("attending", 1.0, False)]
)
def test_a_second_derivative_is_asked_for_by_attribution_matching_alone(
    settings: Settings, name: str, weight: float, refused: bool
) -> None:
    """Fused attention has none, but the plain kernel does, which is taken then."""
    if not refused:
        assert steps_of(f"nets:{name}", settings, attribution_weight=weight).seconds > 0
        return
    with pytest.raises(UsageError, match=r"nets:hard .*hardsigmoid.*attribution_weight: 0"):
        steps_of(f"nets:{name}", settings, attribution_weight=weight)


def test_terms_on_features_are_tried_with_a_teacher_that_knows_nothing_yet(settings: Settings) -> None:
    assert steps_of("timm/lcnet_050", settings, teacher="mobilenet_v2", hint_weight=1.0).seconds > 0
    with pytest.raises(UsageError, match="nets:good"):  # whose features have no place
        steps_of("nets:good", settings, teacher="mobilenet_v2", hint_weight=1.0)


def test_a_network_may_need_contiguous_memory(settings: Settings) -> None:
    with pytest.raises(StepFailed, match=r"RuntimeError: view"):
        steps_of("nets:viewing", settings)
    assert steps_of("nets:viewing", settings, "contiguous").memory_format == "contiguous"


def test_what_code_of_ones_own_prints_lies_not_between_our_data(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    steps_of("nets:talking", settings)
    written = capsys.readouterr()
    assert (written.out, "hello" in written.err) == ("", True)


def test_what_is_deployed_was_built_anew(settings: Settings) -> None:
    assert steps_of("nets:rewriting", settings).seconds > 0


@pytest.mark.parametrize("name", ["flagged", "merging"])
def test_an_attribute_deploy_need_not_be_a_method_nor_give_a_network(settings: Settings, name: str) -> None:
    assert steps_of(f"nets:{name}", settings).seconds > 0


def test_what_was_found_is_of_that_code_and_these_terms(settings: Settings, tmp_path: Path) -> None:
    study = study_of("nets:plain")
    dataset = dataset_of(study, settings)
    assert known_step(study, "nets:plain", dataset, settings, CPU) is None
    assert memory_format(study, "nets:plain", dataset, settings, CPU) == "channels_last"
    step = Step(memory_format="contiguous", seconds=0.5, why="raises RuntimeError", smallest_side=2)
    keep_step(step, study, "nets:plain", dataset, settings, CPU)
    assert known_step(study, "nets:plain", dataset, settings, CPU) == step
    assert memory_format(study, "nets:plain", dataset, settings, CPU) == "contiguous"
    assert memory_format(study, "mobilenet_v2", dataset, settings, CPU) == "channels_last"
    other_terms = study_of("nets:plain", attribution_weight={"type": "float", "low": 0.0, "high": 1.0})
    assert known_step(other_terms, "nets:plain", dataset, settings, CPU) is None
    (tmp_path / "nets.py").write_text(NETWORKS + "\n")
    assert known_step(study, "nets:plain", dataset, settings, CPU) is None
