"""What a card says of the weights that a teacher has, whose terms whoever learned from it has to keep."""

from typing import Any

import pytest

from igkd_hpo.assets.teacher_network import origin_facts
from igkd_hpo.config.reading import parse_study
from igkd_hpo.distillation.architectures import Request
from tests.fixtures.bundles import a_card

STUDY = """
name: digits
dataset: {name: digits}
teacher: TEACHER
hyperparameters: {temperature: 2, alpha: 0.5, overlay_probability: 0, overlay_strength: 0.5, learning_rate: 0.1}
controls: []
"""
NAME = "timm/convnextv2_atto.fcmae_ft_in1k"


@pytest.mark.parametrize(
    ("teacher", "wanted"),
    [
        (f"{{architecture: {NAME}}}", "its own weights, `fcmae_ft_in1k`, licence cc-by-nc-4.0"),
        (f"{{architecture: {NAME}, weights: pretrained}}", "trained for 100 epochs, from the weights `fcmae_ft_in1k`"),
        (f"{{architecture: {NAME}, checkpoint: mine.pt}}", "`mine.pt`"),
    ],
)
def test_the_weights_that_a_teacher_has_or_began_with_are_named(teacher: str, wanted: str) -> None:
    study = parse_study(STUDY.replace("TEACHER", teacher), source="-")
    facts: dict[str, Any] = {} if study.teacher.checkpoints else origin_facts(_request(NAME))
    (line,) = (line for line in a_card(study, "c", facts).splitlines() if line.startswith("- teacher: "))
    assert wanted in line
    if facts:
        assert "https://huggingface.co/timm/convnextv2" in line
        assert "licence cc" in line


def test_what_it_looks_at_has_a_section_where_that_was_measured() -> None:
    study = parse_study(STUDY.replace("TEACHER", "{}"), source="-")
    assert "What it looks at" not in a_card(study, "c")
    card = a_card(study, "c", reasons=["IG keeps <b> more.", "The floor is 0.1."])
    section = card.partition("\n## What it looks at\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("- ")] == [
        "- IG keeps &lt;b&gt; more.", "- The floor is 0.1.",
    ]  # fmt: skip
    assert "\n\n## Data and teacher" in card


def test_code_of_ones_own_has_no_published_weights() -> None:
    assert origin_facts(_request("mine:net")) == origin_facts(_request("mobilenet_v2")) == {}


def _request(name: str) -> Request:
    return Request(name=name, num_classes=10, image_size=(8, 8))
