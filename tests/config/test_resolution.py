"""What `auto` came to: written out, all of it, and taken back where another kind of device has to choose."""

from typing import Any

import pytest

from igkd_hpo.config.provenance import Execution, Provenance
from igkd_hpo.config.resolution import recorded_execution, resolve_autos, training_on
from igkd_hpo.config.study import Study

ON_GPU = Execution(
    device="cuda",
    threads=2,
    precision="bfloat16",
    memory_format="channels_last",
    compile="cuda_graph",
    torch="2.14.1",
    logits="cached",
    n_steps=16,
    map_points=64,
    map_precision="float32",
)


def study(**sections: Any) -> Study:
    values = {
        "temperature": 2.0,
        "alpha": 0.5,
        "overlay_probability": 0.1,
        "overlay_strength": 0.5,
        "learning_rate": 0.1,
    }
    document = {"name": "one", "dataset": {"name": "digits"}, "hyperparameters": values, **sections}
    return Study.model_validate(document, strict=False)


def autos(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in autos(part, f"{path}.{key}")]
    return [path] if value == "auto" else []


def test_every_auto_of_the_format_is_written_out() -> None:
    """Also one that a later version adds: the defaults are walked, not listed."""
    assert len(autos(study().model_dump())) >= 4
    assert autos(resolve_autos(study(), ON_GPU).model_dump()) == []


def test_what_was_asked_for_stays_and_what_was_not_recorded_is_not_made_up() -> None:
    asked = study(teacher={"logits": "online"}, attribution={"n_steps": 8}, training={"precision": "float32"})
    found = resolve_autos(asked, ON_GPU)
    assert (found.teacher.logits, found.attribution.n_steps, found.training.precision) == ("online", 8, "float32")
    old = ON_GPU.model_copy(update={"logits": None, "n_steps": None})
    assert resolve_autos(study(), old).teacher.logits == "auto"
    assert resolve_autos(study(), None) == study()


@pytest.mark.parametrize(
    ("device", "compile_", "precision"), [("cuda", "cuda_graph", "bfloat16"), ("cpu", "auto", "auto")]
)
def test_another_kind_of_device_chooses_for_itself(device: str, compile_: str, precision: str) -> None:
    provenance = Provenance(study="one", trial=0, validation_accuracy=0.9, execution=ON_GPU)
    exported = resolve_autos(study(), ON_GPU).model_copy(update={"provenance": provenance})
    training = training_on(exported, device)
    assert (training.compile, training.precision) == (compile_, precision)
    assert recorded_execution(exported, device) == (ON_GPU if device == "cuda" else None)
    wish = study(training={"compile": "cuda_graph"})
    assert training_on(wish, "cpu") == wish.training, "what a person wrote is a wish, and may be refused"
