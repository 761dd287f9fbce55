"""The guide to the study file says what the format says."""

import json
from pathlib import Path

from pydantic_core import PydanticUndefined

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.space import Choices, FloatRange, Frozen, IntRange
from igkd_hpo.config.study import (
    Attribution,
    Augmentation,
    Dataset,
    HyperbandPruner,
    Limits,
    MedianPruner,
    PercentilePruner,
    Sampler,
    Student,
    Study,
    SuccessiveHalvingPruner,
    Teacher,
    Training,
)

SECTIONS = [
    Study, Dataset, Teacher, Student, Attribution, Augmentation, Training, Hyperparameters, Limits, FloatRange,
    IntRange, Choices, Sampler, PercentilePruner, MedianPruner, SuccessiveHalvingPruner, HyperbandPruner,
]  # fmt: skip


def rows(section: type[Frozen]) -> list[str]:
    """The section's keys as rows of a Markdown table: key, default, help."""
    found = []
    for name, field in section.model_fields.items():
        if field.description is None:  # a section, or the word that names the kind
            continue
        if field.default is PydanticUndefined:
            default = "needed"
        else:
            default = f"`{json.dumps(field.default).replace(chr(34), '')}`"
        found.append(f"| `{name}` | {default} | {field.description} |")
    return found


def test_every_key_is_in_the_guide_with_its_default_and_help(repository: Path) -> None:
    page = (repository / "docs" / "guide" / "study-file.md").read_text(encoding="utf-8").splitlines()
    missing = [row for section in SECTIONS for row in rows(section) if row not in page]
    assert missing == [], "\n".join(["docs/guide/study-file.md lacks", *missing])


def test_the_examples_of_the_guide_and_the_readme_are_valid_studies(repository: Path) -> None:
    examples = 0
    for page in [repository / "README.md", *sorted((repository / "docs" / "guide").glob("*.md"))]:
        for block in page.read_text(encoding="utf-8").split("```yaml\n")[1:]:
            text = block.partition("```")[0]
            if text.startswith("version: 1"):
                examples += 1
                if page.name == "README.md":  # shortened there
                    text = text.replace("hyperparameters:\n", "hyperparameters:\n  alpha: 0.5\n  overlay_probability: 0.1\n  overlay_strength: 0.5\n")  # fmt: skip  # noqa: E501
                parse_study(text, source=page.name)
    assert examples == 2
