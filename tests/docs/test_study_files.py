"""What the documents show of study files is valid."""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.study import Study
from igkd_hpo.config.writing import to_yaml
from tests.fixtures.documents import blocks

NEEDED = {"temperature": 4.0, "alpha": 0.5, "overlay_probability": 0.1, "overlay_strength": 0.5, "learning_rate": 0.1}


def completed(shown: dict[str, Any]) -> dict[str, Any]:
    """A piece of a study file as a whole one: what it does not say is filled in."""
    if set(shown) <= set(Hyperparameters.model_fields):
        shown = {"hyperparameters": shown}
    whole: dict[str, Any] = {"name": "shown", "dataset": {"name": "digits"}, "controls": []} | shown
    return whole | {"hyperparameters": NEEDED | whole.get("hyperparameters", {})}


def test_every_study_file_and_every_piece_of_one_is_valid(repository: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    whole = 0
    for page, text in blocks(repository, "yaml"):
        shown = yaml.load(text)
        if "version" in shown and page != "README.md":
            whole += 1
            parse_study(text, source=page)
        study = Study.model_validate_json(json.dumps(completed(shown)))
        assert parse_study(to_yaml(study), source=page) == study
    assert whole == 1
