"""The study files that come with the package are what the guide says they are."""

from pathlib import Path

import pytest

from igkd_hpo.config.builtin import DEFAULT, builtin_folder, builtin_studies
from igkd_hpo.config.hyperparameters import Hyperparameters
from igkd_hpo.config.reading import read_study
from igkd_hpo.config.space import Value
from igkd_hpo.config.study import Study


def builtin(name: str) -> Study:
    return read_study(builtin_studies()[name])


def test_there_are_three_and_the_default_is_one_of_them() -> None:
    assert set(builtin_studies()) == {"cifar10", "cifar10-paper", "digits"}
    assert DEFAULT == "digits"


@pytest.mark.parametrize("path", sorted(builtin_folder().rglob("*.y*ml")), ids=lambda path: path.stem)
def test_every_file_below_studies_is_a_valid_study_named_like_itself(path: Path) -> None:
    assert read_study(path).name == path.stem
    assert path.parent == builtin_folder(), "a file in a subfolder cannot be launched by name"


def ranges(study: Study) -> dict[str, tuple[float, ...]]:
    return {name: setting.corners() for name, setting in study.hyperparameters.searched().items()}


def written(hyperparameters: Hyperparameters) -> dict[str, Value]:
    """The plain values that the file itself gives, without the defaults."""
    return {key: value for key, value in hyperparameters.fixed().items() if key in hyperparameters.model_fields_set}


def test_digits() -> None:
    study = builtin("digits")
    assert (study.dataset.name, study.dataset.validation_fraction, study.dataset.test_fraction) == ("digits", 0.2, 0.2)
    assert (study.teacher.width, study.teacher.epochs, study.teacher.logits) == (0.5, 15, "auto")
    assert (study.attribution.n_steps, study.attribution.target) == (16, "label")
    assert (study.augmentation.crop_padding, study.augmentation.horizontal_flip) == (1, False)
    assert (study.training.epochs, study.training.optimizer, study.training.schedule) == (12, "sgd", "one_cycle")
    assert ranges(study) == {
        "temperature": (1.0, 8.0),
        "alpha": (0.0, 1.0),
        "overlay_probability": (0.0, 0.5),
        "overlay_strength": (0.05, 0.95),
        "learning_rate": (1e-3, 1.0),
    }
    assert written(study.hyperparameters) == {
        "weight_decay": 5e-4,
        "batch_size": 128,
        "layers_removed": 5,
        "width": 0.5,
    }
    assert study.pruner.model_dump() == {"name": "successive_halving", "grace_period": 4, "reduction_factor": 3}
    assert (study.n_trials, study.controls) == (24, ("student", "kd", "ig", "kd_ig"))
    assert (study.max_retries, study.max_failures) == (3, 5)


def test_cifar10() -> None:
    study = builtin("cifar10")
    assert (study.dataset.name, study.training.epochs, study.n_trials) == ("cifar10", 100, 100)
    assert (study.augmentation.crop_padding, study.augmentation.horizontal_flip) == (4, True)
    assert written(study.hyperparameters) == {
        "weight_decay": 5e-4,
        "batch_size": 128,
        "layers_removed": 5,
        "width": 1.0,
    }
    assert study.controls == ("student", "kd", "ig", "kd_ig", "paper")


def test_cifar10_paper_is_the_published_recipe_and_searches_nothing() -> None:
    study = builtin("cifar10-paper")
    assert not study.is_search
    assert written(study.hyperparameters) == {
        "temperature": 2.5, "alpha": 0.01, "overlay_probability": 0.1, "overlay_strength": 0.5,
        "learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 64, "layers_removed": 5, "width": 1.0,
    }  # fmt: skip
    assert (study.training.optimizer, study.training.schedule) == ("adam", "constant")
    assert (study.attribution.n_steps, study.student.normalize) == (50, "none")
    assert (study.controls, study.pruner.name) == ((), "none")
