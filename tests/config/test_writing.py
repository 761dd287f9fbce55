"""What is written is what is read, to the last bit, and a reader never sees half a file."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.config.reading import parse_study, read_study
from igkd_hpo.config.study import LARGEST_SEED, Study
from igkd_hpo.config.writing import to_yaml
from igkd_hpo.files import write_text

seeds = st.integers(0, LARGEST_SEED)
text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
fractions = st.floats(0.01, 0.99)


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with any of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def float_settings(draw: st.DrawFn, low: float, high: float) -> Any:
    values = st.floats(low, high, allow_subnormal=False)
    match draw(st.sampled_from(["value", "float", "int", "categorical"])):
        case "float" if low < high:
            first, last = sorted((draw(values), draw(values)))
            shape = draw(st.sampled_from(["plain", "log", "step"]))
            extra: dict[str, Any] = {"log": True} if shape == "log" and first > 0 else {}
            if shape == "step" and last - first > 1e-6:
                extra = {"step": (last - first) / draw(st.integers(1, 10))}
            return {"type": "float", "low": first, "high": last, **extra}
        case "int":
            return {"type": "int", "low": int(low) + 1, "high": int(high)} if int(low) < int(high) else draw(values)
        case "categorical":
            return {"type": "categorical", "choices": draw(st.lists(values, min_size=1, max_size=4, unique=True))}
    return draw(values)


architectures = st.sampled_from(["mobilenet_v2", "resnet18", "torchvision/resnet18", "timm/lcnet_050", "mine.net:make"])


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """Any valid study."""
    triple = st.lists(fractions, min_size=3, max_size=3)
    normalize = st.sampled_from(["dataset", "none"]) | st.tuples(triple, triple)
    kind = draw(st.sampled_from(["digits", "cifar10", "cifar100", "folder"]))
    dataset = {"name": kind, **draw(optional(validation_fraction=fractions, test_fraction=fractions, split_seed=seeds))}
    if kind != "digits":
        dataset["root"] = draw(text)
    if kind == "folder":
        dataset["image_size"] = draw(st.none() | st.integers(8, 1024))
        if dataset["image_size"] is not None:
            dataset["fit"] = draw(st.sampled_from(["squeeze", "crop", "pad"]))
        dataset["bits"], dataset["follow_links"] = draw(st.none() | st.integers(8, 16)), draw(st.booleans())
    grace = {"grace_period": draw(st.integers(1, 50))}
    factor = {"reduction_factor": draw(st.integers(2, 5))}
    patience = {"patience": draw(st.integers(0, 5))}
    document: dict[str, Any] = {
        "name": draw(names),
        "dataset": dataset,
        "hyperparameters": {
            "temperature": draw(float_settings(0.5, 100)),
            "alpha": draw(float_settings(0, 1)),
            "overlay_probability": draw(float_settings(0, 1)),
            "overlay_strength": draw(float_settings(0, 1)),
            "learning_rate": draw(float_settings(1e-6, 100)),
            "weight_decay": draw(float_settings(0, 1)),
            "batch_size": draw(
                st.integers(2, 65536)
                | st.just({"type": "int", "low": 16, "high": 256, "log": True})
                | st.just({"type": "categorical", "choices": [32, 64]})
            ),
        },
        "pruner": draw(
            st.sampled_from(
                [
                    {"name": "percentile", "keep": 33.3, **grace, **patience},
                    {"name": "median", **grace, **patience},
                    {"name": "successive_halving", **grace, **factor},
                    {"name": "hyperband", **grace, **factor},
                    {"name": "none"},
                ]
            )
        ),
        **draw(
            optional(
                teacher=optional(
                    architecture=architectures,
                    checkpoint=st.none() | text,
                    normalize=normalize,
                    epochs=st.integers(1, 999),
                ),
                student=optional(normalize=normalize),
                training=optional(seed=seeds, precision=st.sampled_from(["auto", "float16"])),
                n_trials=st.integers(5, 1000),
                controls=st.lists(st.sampled_from(["student", "kd", "ig", "kd_ig", "paper"]), unique=True),
                provenance=st.fixed_dictionaries(
                    {"study": text, "trial": st.integers(0, 99), "validation_accuracy": st.floats(0, 1)},
                    optional={"note": text, "controls": st.dictionaries(names, fractions, max_size=2)},
                ),
            )
        ),
    }
    return Study.model_validate_json(json.dumps(document))


@given(study=studies())
def test_a_study_survives_yaml_to_the_last_bit(study: Study) -> None:
    again = parse_study(to_yaml(study), source="-")
    assert again == study
    assert repr(again) == repr(study)  # 1 == 1.0, but a whole number must stay whole


def test_defaults_are_written_out_and_an_absent_provenance_is_not(tmp_path: Path) -> None:
    minimal = (
        "name: mine\ndataset: {name: digits}\nhyperparameters: {temperature: 4, alpha: 0.9, overlay_probability: 0.1, "
        "overlay_strength: 0.5, learning_rate: 0.1}\n"
    )
    written = to_yaml(parse_study(minimal, source="-"))
    assert "reduction_factor: 3" in written
    assert "provenance" not in written
    write_text(tmp_path / "mine.yaml", written)
    assert read_study(tmp_path / "mine.yaml") == parse_study(minimal, source="-")
