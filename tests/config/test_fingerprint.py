"""The fingerprint sees every key that decides what a trial is, and no other."""

from typing import Any

import pytest

from igkd_hpo.config.fingerprint import difference, fingerprint
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.provenance import Execution, Provenance
from igkd_hpo.config.reading import flatten
from igkd_hpo.config.space import Frozen
from igkd_hpo.config.study import Study

BASE: dict[str, Any] = {
    "version": 1,
    "name": "base",
    "dataset": {
        "name": "folder", "root": "images", "image_size": 16, "fit": "crop", "bits": 12, "follow_links": True,
        "store": "jpeg",
        "validation_fraction": 0.2, "test_fraction": 0.2, "split_seed": 0,
    },
    "teacher": {
        "architecture": "mobilenet_v2", "width": 1.0, "checkpoint": None, "normalize": "dataset", "input_size": None,
        "epochs": 10, "logits": "auto",
    },
    "metric": "macro_f1",
    "hyperparameters": {
        "temperature": {"type": "float", "low": 1.0, "high": 8.0, "step": 1.0},
        "alpha": 0.5,
        "overlay_probability": {"type": "categorical", "choices": [0.1, 0.2]},
        "overlay_strength": 0.5,
        "learning_rate": 0.1,
        "batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
        "objective": {"type": "categorical", "choices": ["kd", "dist"]},
        "class_weights": "balanced", "mixup": 0.1, "cutmix": 0.1, "color_jitter": 0.1, "rand_augment": 2,
        "overparameterize": "branches", "powerprop_alpha": 2.0, "sparsity": 0.5,
    },
    "limits": {"peak_ram_kb": 512.0},
    "n_trials": 24,
    "timeout": "1h",
    "known_good": [{"temperature": 3.0}],
    "controls": ["student"],
    "provenance": {"study": "older", "trial": 3, "validation_accuracy": 0.5},
}  # fmt: skip
PRUNERS = [
    {"name": "percentile", "keep": 50, "grace_period": 3, "patience": 0},
    {"name": "median", "grace_period": 3, "patience": 0},
    {"name": "successive_halving", "grace_period": 1, "reduction_factor": 3},
    {"name": "hyperband", "grace_period": 1, "reduction_factor": 3},
    {"name": "none"},
]
COLUMNS = {
    "name": "huggingface/me/animals",
    "image_column": "photo",
    "label_column": "kind",
    "validation_fraction": 0.2,
}
BASES = {pruner["name"]: {**BASE, "pruner": pruner} for pruner in PRUNERS}
SAMPLERS: list[dict[str, Any]] = [
    {"name": "gp", "n_startup_trials": 5, "deterministic_objective": True},
    {"name": "qmc", "qmc_type": "halton", "scramble": True},
    {"name": "random"},
    {"name": "grid"},
]
BASES["strata"] = {**BASE, "pruner": PRUNERS[0], "strata": {"of": "macs", "at": [1e6, 2e6]}}
for sampler in SAMPLERS:
    BASES[sampler["name"]] = {**BASE, "pruner": PRUNERS[0], "sampler": sampler}
BASES["tpe"] = {**BASE, "pruner": PRUNERS[0], "sampler": {
    "n_startup_trials": 5, "n_ei_candidates": 8, "multivariate": False, "constant_liar": False,
}}  # fmt: skip
BASES["huggingface"] = {**BASE, "dataset": COLUMNS, "pruner": {"name": "none"}}
ONCE = {name: value for name, value in BASE["hyperparameters"].items() if name not in ("mixup", "cutmix")}
BASES["mixed"] = {
    **BASE,
    "pruner": PRUNERS[0],
    "augmentation": {"views": 4, "mixed": 0.5},
    "hyperparameters": ONCE,  # which are mixed for good, not in each step
}
BASES["boxes"] = {**BASE, "pruner": PRUNERS[0], "augmentation": {"views": 4}}
# Keys of features and weights of the teacher, of which there must be one, with the blocks of its students.
FEATURED = {
    **BASE,
    "hyperparameters": {
        **BASE["hyperparameters"],
        "objective": {"type": "categorical", "choices": ["kd", "foster"]}, "foster_beta": 0.9, "labels_alone": 0.2,
        "init": "teacher_prefix", "frozen_blocks": 2,
        "rtk_weight": 0.5, "rtk_keys": 2, "skt_intra_weight": 0.5, "skt_inter_weight": 0.5,
        "osakd_weight": 0.5, "osakd_neighbors": 8,
    },
}  # fmt: skip
FEATURED_OTHER: dict[str, Any] = {
    "hyperparameters.foster_beta": 0.8,
    "hyperparameters.frozen_blocks": 3,
    "hyperparameters.labels_alone": 0.3,
    "hyperparameters.osakd_neighbors": 9,
    "hyperparameters.osakd_weight": 1.0,
    "hyperparameters.rtk_keys": 1,
    "hyperparameters.rtk_weight": 1.0,
    "hyperparameters.skt_inter_weight": 1.0,
    "hyperparameters.skt_intra_weight": 1.0,
}
WEIGHTED = {**BASE, "teacher": {**BASE["teacher"], "class_weights": "balanced"}}  # which no given teacher can be
IGNORED = {
    "name", "n_trials", "timeout", "max_retries", "max_failures", "dataset.root", "dataset.follow_links",
    "known_good", "teacher.checkpoint", "teacher.checkpoint_key", "teacher.weights",
    "student.architecture", "student.weights",
}  # fmt: skip
# For each key of the format another valid value, or (another key, its value) where one cannot change alone.
OTHER: dict[str, Any] = {
    "name": "other",
    "dataset.name": ("dataset", {"name": "digits"}),
    "dataset.root": "elsewhere",
    "dataset.image_size": 32,
    "dataset.fit": "pad",
    "dataset.bits": 10,
    "dataset.follow_links": False,
    "dataset.image_column": "mask",
    "dataset.label_column": "breed",
    "dataset.store": "arrays",
    "dataset.validation_fraction": 0.3,
    "dataset.test_fraction": 0.3,
    "dataset.split_seed": 1,
    "teacher.architecture": "resnet18",
    "teacher.width": 2.0,
    "teacher.checkpoint": "teacher.pt",
    "teacher.checkpoint_key": ("teacher", {**BASE["teacher"], "checkpoint": "teacher.pt", "checkpoint_key": "ema"}),
    "teacher.weights": "teacher.pt",
    "teacher.normalize": "none",
    "teacher.input_size": 64,
    "teacher.epochs": 11,
    "teacher.learning_rate": 0.02,
    "teacher.members": 3,
    "teacher.folds": 5,
    "teacher.logits": "online",
    "student.architecture": ("student", {"architecture": "mobilenet_v2"}),
    "student.weights": {"timm/resnet18": "resnet18.safetensors"},
    "student.normalize": [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]],
    "attribution.n_steps": 17,
    "attribution.target": "prediction",
    "augmentation.crop_padding": ("augmentation", {"crop_padding": 3}),
    "augmentation.horizontal_flip": False,
    "augmentation.views": ("augmentation", {"views": 8}),
    "augmentation.scale": ("augmentation", {"views": 8, "scale": [0.5, 1.0]}),
    "augmentation.mixed": ("augmentation", {"views": 8, "mixed": 0.5}),
    "training.epochs": 99,
    "training.optimizer": "adam",
    "training.schedule": "cosine",
    "training.precision": "float32",
    "training.compile": "none",
    "training.seed": 1,
    "metric": "balanced_accuracy",
    "hyperparameters.temperature.type": ("hyperparameters.temperature", {"type": "int", "low": 1, "high": 8}),
    "hyperparameters.temperature.low": 2.0,
    "hyperparameters.temperature.high": 7.0,
    "hyperparameters.temperature.log": ("hyperparameters.temperature",
        {"type": "int", "low": 1, "high": 8, "log": True}),
    "hyperparameters.temperature.step": 2.0,
    "hyperparameters.alpha": 0.6,
    "hyperparameters.overlay_probability.type": ("hyperparameters.overlay_probability", 0.1),
    "hyperparameters.overlay_probability.choices": [0.1, 0.3],
    "hyperparameters.overlay_strength": 0.6,
    "hyperparameters.learning_rate": 0.2,
    "hyperparameters.weight_decay": 0.0,
    "hyperparameters.batch_size.type": ("hyperparameters.batch_size", 32),
    "hyperparameters.batch_size.low": 32,
    "hyperparameters.batch_size.high": 48,
    "hyperparameters.batch_size.log": ("hyperparameters.batch_size",
        {"type": "int", "low": 16, "high": 64, "log": True}),
    "hyperparameters.batch_size.step": 8,
    "hyperparameters.layers_removed": 4,
    "hyperparameters.width": 0.5,
    "hyperparameters.objective.type": ("hyperparameters.objective", "kd"),
    "hyperparameters.objective.choices": ["kd", "dkd"],
    "hyperparameters.dkd_beta": 1.0,
    "hyperparameters.attention_weight": 1.0,
    "hyperparameters.attention_depths": "stages",
    "hyperparameters.hint_weight": 1.0,
    "hyperparameters.teacher_tail_weight": 1.0,
    "hyperparameters.attribution_weight": 1.0,
    "hyperparameters.init": "teacher_prefix",
    "hyperparameters.overlay_mode": "multiply",
    "hyperparameters.alignment": "mean_map",
    "hyperparameters.ema_decay": 0.9,
    "hyperparameters.label_smoothing": 0.1,
    "hyperparameters.cutout": 2,
    "hyperparameters.flip": "alternating",
    "hyperparameters.decay": "weights",
    "hyperparameters.architecture": "timm/lcnet_050",
    "hyperparameters.stages_removed": 1,
    "hyperparameters.body_rate": 0.1,
    "hyperparameters.mixup": 0.5,
    "hyperparameters.cutmix": 0.5,
    "hyperparameters.color_jitter": 0.4,
    "hyperparameters.rand_augment": 5,
    "hyperparameters.class_weights": "none",
    "hyperparameters.overparameterize": "mpo",
    "hyperparameters.powerprop_alpha": 1.5,
    "hyperparameters.sparsity": 0.6,
    "limits.parameters": 500_000,
    "limits.macs": 60.0e6,
    "limits.size_kb": 512.0,
    "limits.peak_ram_kb": 256.0,
    "limits.latency_ms": 5.0,
    "sampler.name": None,  # so are these
    "sampler.seed": 1,
    "sampler.n_startup_trials": 6,
    "sampler.n_ei_candidates": 9,
    "sampler.multivariate": True,
    "sampler.constant_liar": True,
    "sampler.deterministic_objective": False,
    "sampler.qmc_type": "sobol",
    "sampler.scramble": False,
    "strata.of": "parameters",
    "strata.at": [1e6, 3e6],
    "pruner.name": None,  # every pair is compared by test_pruners_differ
    "pruner.keep": 40,
    "pruner.grace_period": 4,
    "pruner.patience": 1,
    "pruner.reduction_factor": 2,
    "n_trials": 25,
    "timeout": "8h",
    "known_good": [{"temperature": 5.0}],
    "controls": ["student", "kd"],
    "max_retries": 4,
    "max_failures": 6,
}  # fmt: skip
ONE_VALUE = {"version", "student.architecture"}


def build(document: dict[str, Any]) -> Study:
    return Study.model_validate(document, strict=False)


def with_value(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**document, head: with_value(document.get(head, {}), rest, value) if rest else value}


def paths(study: Study) -> set[str]:
    return {path for path in flatten(study.model_dump(mode="json")) if not path.startswith("provenance")}


def test_every_key_of_the_format_is_in_the_table() -> None:
    of_all = set().union(*(paths(build(base)) for base in [*BASES.values(), WEIGHTED, FEATURED]))
    assert of_all == OTHER.keys() | FEATURED_OTHER.keys() | ONE_VALUE | {"teacher.class_weights"}


def test_the_bases_hold_every_section_of_the_format() -> None:
    def sections(value: Any) -> set[type]:
        if not isinstance(value, Frozen):
            return set()
        return {type(value)}.union(*(sections(getattr(value, name)) for name in type(value).model_fields))

    held = set().union(*(sections(build(base)) for base in BASES.values()))
    of_the_format = {
        section for section in Frozen.__subclasses__() if section.__module__.startswith("igkd_hpo.config.")
    }
    of_the_format = of_the_format - set(Hyperparameters.__bases__) | {Hyperparameters}
    assert held | {Execution} == of_the_format


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_each_key_changes_the_fingerprint_unless_it_is_ignored(base: dict[str, Any]) -> None:
    study = build(base)
    for path in sorted(paths(study) - ONE_VALUE - {"pruner.name", "sampler.name"}):
        target, value = OTHER[path] if isinstance(OTHER[path], tuple) else (path, OTHER[path])
        other = build(with_value(base, target, value))
        assert other != study, path
        assert (fingerprint(other) == fingerprint(study)) == (path in IGNORED), path
        assert (difference(study, other) == []) == (path in IGNORED), path


@pytest.mark.parametrize("path", FEATURED_OTHER)
def test_keys_of_features_count(path: str) -> None:
    other = build(with_value(FEATURED, path, FEATURED_OTHER[path]))
    assert fingerprint(other) != fingerprint(build(FEATURED))
    assert [line.partition(":")[0] for line in difference(build(FEATURED), other)] == [path]


def test_pruners_differ() -> None:
    assert len({fingerprint(build(base)) for base in BASES.values()}) == len(BASES)


def test_class_weights_of_the_teacher_count() -> None:
    assert difference(build(BASE), build(WEIGHTED)) == ["teacher.class_weights: absent -> balanced"]
    assert fingerprint(build(WEIGHTED)) != fingerprint(build(BASE))


def test_provenance_is_ignored() -> None:
    provenance = Provenance(study="another", trial=7, validation_accuracy=0.9)
    assert fingerprint(build({**BASE, "provenance": provenance})) == fingerprint(build(BASE))


def test_a_default_written_out_means_the_same() -> None:
    assert fingerprint(build({**BASE, "sampler": {"name": "tpe", "seed": 0}})) == fingerprint(build(BASE))
    assert fingerprint(build(with_value(BASE, "hyperparameters.learning_rate", 1))) == fingerprint(
        build(with_value(BASE, "hyperparameters.learning_rate", 1.0))
    )


def test_keys_that_came_later_leave_earlier_fingerprints_as_they_were() -> None:
    plain = {
        key: value for key, value in BASE["dataset"].items() if key not in ("fit", "bits", "follow_links", "store")
    }
    later = {"fit": "squeeze", "bits": None, "follow_links": False, "image_column": None, "label_column": None}
    written = build({**BASE, "dataset": plain | later | {"store": "arrays"}}).model_dump(mode="json")
    assert written["dataset"] == plain
    later_ones = {"class_weights", "overparameterize", "powerprop_alpha", "sparsity"}
    plain = {key: value for key, value in BASE["hyperparameters"].items() if key not in later_ones}
    study = build({**BASE, "metric": "accuracy", "teacher": {"class_weights": "none"}, "hyperparameters": plain})
    written = study.model_dump(mode="json")
    assert "metric" not in written
    assert "class_weights" not in written["teacher"]
    assert not {path.partition(".")[2] for path in FEATURED_OTHER} & written["hyperparameters"].keys()
    assert not later_ones & written["hyperparameters"].keys()
    assert study.hyperparameters.fixed()["class_weights"] == "none"
    assert "peak_ram_kb" not in build({**BASE, "limits": {"peak_ram_kb": None}}).model_dump(mode="json")["limits"]


def test_the_difference_is_told_key_by_key() -> None:
    new = with_value(BASE, "teacher.logits", "online")
    new = with_value(new, "hyperparameters.temperature", 3.0)
    new = with_value(new, "augmentation.horizontal_flip", False)
    assert difference(build(BASE), build({**new, "n_trials": 99})) == [
        "augmentation.horizontal_flip: true -> false",
        "hyperparameters.temperature: absent -> 3.0",
        "hyperparameters.temperature.high: 8.0 -> absent",
        "hyperparameters.temperature.log: false -> absent",
        "hyperparameters.temperature.low: 1.0 -> absent",
        "hyperparameters.temperature.step: 1.0 -> absent",
        "hyperparameters.temperature.type: float -> absent",
        "teacher.logits: auto -> online",
    ]
