"""The choice of a first study, in tables: from facts to a study file."""

import itertools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from igkd_hpo.assets import map_plan
from igkd_hpo.assets.splits import split_rows
from igkd_hpo.config.pruner import SuccessiveHalvingPruner
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.space import IntRange
from igkd_hpo.config.study import Limits, Study
from igkd_hpo.doctor.check import CheckVerdict
from igkd_hpo.doctor.study_file import check_study_file
from igkd_hpo.errors import DataError, IgkdError, UsageError
from igkd_hpo.sources import Images
from igkd_hpo.starting import budget
from igkd_hpo.starting.budget import SECONDS
from igkd_hpo.starting.networks import Survey, students_of
from igkd_hpo.starting.size import sizes_to_try
from igkd_hpo.starting.students import fitting_students
from igkd_hpo.starting.teacher import Wanted
from igkd_hpo.starting.text import write_choice
from igkd_hpo.starting.weights import Place
from igkd_hpo.words import rough_duration
from tests.starting.conftest import CPU, GPU, LITE0, PRETRAINED, choose, cost_of, photographs

SMALL = {"short": 28, "long": 28, "smallest": 28, "largest": 28, "same_square": 28, "elongated": 0.0}
TWO = {"validation": (0, 0), "test": (0, 0)}
UNEVEN: dict[str, Any] = {"class_names": ("crack", "fine"), "train": (30, 570), **TWO}
FEW: dict[str, Any] = {"class_names": ("crack", "fine"), "train": (30, 30), "grey": 1.0, **TWO}
MANY: dict[str, Any] = {"train": (5000,) * 4}


@pytest.mark.parametrize(
    ("changes", "machine", "side"),
    [
        ({}, CPU, 96),
        ({}, GPU, 160),
        ({"short": 90, "long": 120}, CPU, 64),
        ({"short": 64, "long": 64, "smallest": 64, "largest": 64, "same_square": 64}, CPU, 64),
        ({"short": 40, "long": 50}, CPU, 32),
        ({"short": 5, "long": 6, "smallest": 5}, CPU, 8),
        (SMALL, CPU, 28),
        ({"short": 40, "long": 400}, CPU, 96),  # padded, its long side counts
    ],
)
def test_the_size_is_that_of_half_of_the_images_up_to_what_the_machine_can_do(
    changes: dict[str, Any], machine: Any, side: int
) -> None:
    assert choose(photographs(**changes), machine).study.dataset.image_size == side


@pytest.mark.parametrize(
    ("changes", "fit", "views", "padding"),
    [
        ({}, "crop", 16, 0),
        ({"short": 100, "long": 300}, "pad", 16, 0),
        ({"ink": 0.9}, "pad", None, 8),
        (SMALL, "crop", None, 3),
        (SMALL | {"ink": 0.9}, "crop", None, 2),
    ],
)
def test_photographs_are_cut_and_small_or_drawn_images_are_shifted(
    changes: dict[str, Any], fit: str, views: int | None, padding: int
) -> None:
    study = choose(photographs(**changes)).study
    assert study.dataset.fit == fit
    assert (study.augmentation.views, study.augmentation.crop_padding) == (views, padding)


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("ash", "birch", "elm", "oak"), True),
        (("0", "1", "2", "3"), False),
        (("A", "b", "C", "none"), False),
        (("digit_0", "digit_1", "digit_2", "digit_3"), False),
        (("hand left", "hand right", "foot", "none"), False),
        (("bright", "leftover", "elm", "oak"), True),
        (("n01", "n02", "n03", "n04"), True),
    ],
)
def test_images_whose_mirror_image_is_another_are_not_mirrored(names: tuple[str, ...], flip: bool) -> None:
    assert choose(photographs(class_names=names)).study.augmentation.horizontal_flip is flip


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ((30, 570), "balanced_accuracy"),
        ((70, 600), "accuracy"),
        ((60, 600), "balanced_accuracy"),
        ((30, 30), "accuracy"),
    ],
)
def test_uneven_classes_are_judged_and_weighed_alike(counts: tuple[int, ...], metric: str) -> None:
    study = choose(photographs(class_names=("crack", "fine"), train=counts, **TWO)).study
    assert study.metric == metric
    weights = "none" if metric == "accuracy" else "balanced"
    assert (study.hyperparameters.class_weights, study.teacher.class_weights) == (weights, weights)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("counts", "fraction"),
    [((500,) * 4, 0.1), ((150,) * 4, 0.25), ((15,) * 4, 0.25), ((7, 7, 7, 7), 0.3), ((30, 30), 0.4), ((60, 60), 0.25)],
)
def test_of_few_images_more_are_for_validation(counts: tuple[int, ...], fraction: float) -> None:
    names, none = tuple("wxyz"[: len(counts)]), (0,) * len(counts)
    images = photographs(class_names=names, train=counts, validation=none, test=none)
    assert choose(images).study.dataset.validation_fraction == fraction


def test_splits_that_the_images_bring_are_not_cut_again() -> None:
    choice = choose(photographs(validation=(50,) * 4, test=(50,) * 4))
    assert {"validation_fraction", "test_fraction"}.isdisjoint(choice.document["dataset"])


def test_where_no_network_could_be_timed_nothing_is_chosen() -> None:
    with pytest.raises(IgkdError):
        choose(photographs(), seconds=None)


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.1])
def test_no_trial_is_stopped_in_the_first_third_of_its_epochs(seconds: float) -> None:
    study = choose(photographs(), seconds=seconds).study
    assert study.pruner == SuccessiveHalvingPruner(grace_period=study.training.epochs // 3)


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(DataError, match="'birch' has 1 image"):
        choose(photographs(train=(500, 1, 500, 500)))


@pytest.mark.parametrize(
    ("changes", "machine", "places", "architecture", "weights", "input_size"),
    [
        ({}, CPU, LITE0, "timm/tf_efficientnet_lite0", "/w/lite0.pth", 128),
        ({"short": 100, "long": 110}, CPU, LITE0, "timm/tf_efficientnet_lite0", "/w/lite0.pth", None),
        ({}, GPU, LITE0, "timm/tf_efficientnet_lite0", "/w/lite0.pth", 224),
        (
            {},
            GPU,
            LITE0 | {"torchvision/resnet50": Place(None, "in a cache")},
            "torchvision/resnet50",
            "pretrained",
            224,
        ),
        ({}, CPU, {}, "mobilenet_v2", None, None),
        (SMALL, CPU, LITE0, "mobilenet_v2", None, None),
    ],
)
def test_the_teacher_begins_with_weights_where_they_can_be_had_and_the_images_are_large_enough(
    changes: dict[str, Any],
    machine: Any,
    places: dict[str, Place],
    architecture: str,
    weights: str | None,
    input_size: int | None,
) -> None:
    teacher = choose(photographs(**changes), machine, places=places, seconds=1e-5).study.teacher
    assert (teacher.architecture, teacher.weights, teacher.input_size) == (architecture, weights, input_size)
    assert teacher.normalize == ("dataset" if weights is None else "weights")


def test_the_teacher_that_is_asked_for_is_taken() -> None:
    wanted = Wanted(architecture="torchvision/mobilenet_v2", weights="mine.pth")
    teacher = choose(photographs(), wanted=wanted).study.teacher
    assert (teacher.architecture, teacher.weights) == ("torchvision/mobilenet_v2", "mine.pth")


@pytest.mark.parametrize(
    ("limits", "first", "removed"),
    [
        (Limits(), "timm/lcnet_050", 0),
        (Limits(parameters=500_000), "timm/starnet_s050", 0),
        (Limits(parameters=2_000_000), "timm/mobilenetv3_small_100", 0),
        (Limits(parameters=100_000), "timm/starnet_s050", 1),
    ],
)
def test_students_keep_the_limits(limits: Limits, first: str, removed: int) -> None:
    choice = choose(photographs(), limits=limits)
    assert choice.study.hyperparameters.words("architecture")[0] == first
    assert choice.study.hyperparameters.searched()["stages_removed"] == IntRange(type="int", low=removed, high=2)
    assert choice.study.limits == limits


def test_a_limit_that_nothing_keeps_is_answered_with_the_nearest_student() -> None:
    with pytest.raises(UsageError, match="shufflenet_v2_x0_5, stages_removed 2, has 13,600 parameters"):
        choose(photographs(), limits=Limits(parameters=1000))


def test_without_a_limit_students_may_be_as_large_as_many_classes_make_them() -> None:
    networks = students_of(96)
    for more in (900_000, 25_000_000):
        costs = {one: replace(cost_of(one), parameters=cost_of(one).parameters + more) for one in networks}
        chosen = fitting_students(networks, Survey(costs=costs), Limits(), below=None)
        assert chosen[0] == networks[0]
    with pytest.raises(UsageError):
        fitting_students(networks, Survey(costs=costs), Limits(parameters=1_000_000), below=None)


def test_students_begin_with_weights_where_they_can_be_had() -> None:
    study = choose(photographs(), places=PRETRAINED).study
    assert study.hyperparameters.words("architecture") == ("torchvision/shufflenet_v2_x0_5",)
    assert study.hyperparameters.words("init") == ("pretrained",)
    assert study.student.normalize == "weights"
    assert "stages_removed" not in study.hyperparameters.searched()


@pytest.mark.parametrize("seconds", [1e-6, 1e-3, 1e-2, 2e-2])
def test_the_budget_is_about_two_hours_and_leaves_trials_for_each_network(seconds: float) -> None:
    choice = choose(photographs(), seconds=seconds)
    assert choice.budget.total <= SECONDS
    assert (choice.study.training.epochs, choice.study.n_trials) == (choice.budget.epochs, choice.budget.n_trials)
    names = choice.study.hyperparameters.words("architecture")
    assert choice.study.n_trials >= 20 * len(names) or len(names) == 1


def test_a_slower_machine_does_less_and_says_when_it_is_too_slow() -> None:
    plans = [choose(photographs(), seconds=seconds) for seconds in (1e-4, 1e-2, 3e-2, 1.0)]
    work = [plan.budget.epochs * plan.budget.n_trials for plan in plans]
    assert work == sorted(work, reverse=True)
    assert work[0] > work[1] > work[2]
    assert plans[0].budget.maps
    assert not plans[2].budget.maps
    assert plans[2].study.controls == ("student", "kd")
    assert not plans[3].budget.fits


def test_the_plan_counts_the_maps_that_are_made_to_choose_their_steps() -> None:
    few, many = (choose(photographs(train=(count,) * 4)).budget.seconds for count in (50, 500))
    trying = "trying how many steps its maps need"
    assert few[trying] == many[trying] > few["its maps"] / 2
    tried = [steps for steps in map_plan._STEPS if steps <= budget._MAP_STEPS]
    assert map_plan._MANY_STEPS + sum(tried) == budget._TRIED_STEPS
    assert budget._TRIED_IMAGES == map_plan._PROBED


def test_a_busy_machine_is_told_of_in_the_file() -> None:
    choice = choose(photographs())
    idle, busy = (write_choice(choice, photographs(), replace(CPU, load=load)) for load in (0.9, 3.5))
    assert "with others on it" in busy
    assert "with others on it" not in idle
    assert f"About {rough_duration(choice.budget.total)} on" in idle


def test_beside_a_teacher_with_published_weights_trials_are_long_before_they_are_many() -> None:
    given, own = (choose(photographs(), places=places, seconds=1e-2).study for places in (LITE0, {}))
    assert given.training.epochs == 60 > own.training.epochs
    assert given.n_trials < own.n_trials


@pytest.mark.parametrize(
    ("places", "seconds", "mixed"), [(LITE0, 1e-3, 0.6), (LITE0, 3e-2, None), (PRETRAINED, 1e-3, None)]
)
def test_photographs_are_mixed_where_there_are_epochs_for_it(
    places: dict[str, Place], seconds: float, mixed: float | None
) -> None:
    assert choose(photographs(), places=places, seconds=seconds).study.augmentation.mixed == mixed


@pytest.mark.parametrize(
    "changes",
    [
        {"train": (61, 60, 59, 58)},
        {"train": (61, 60, 59, 58), "validation": (7, 8, 9, 9)},
        {"train": (61, 60, 59, 58), "test": (5, 4, 3, 3)},
        {"train": (501, 33, 499, 47)},
    ],
)
def test_the_numbers_told_are_those_of_the_splits(changes: dict[str, tuple[int, ...]]) -> None:
    facts = photographs(**changes)
    chosen, splits = choose(facts), (facts.train, facts.validation, facts.test)
    labels = np.concatenate([np.repeat(range(4), of_split) for of_split in splits])
    images = Images(
        images=np.empty((len(labels), 3, 0, 0), np.uint8),
        labels=labels,
        n_train=sum(facts.train),
        n_validation=sum(facts.validation),
        class_names=facts.class_names,
    )
    split = split_rows(images, chosen.study.dataset)
    numbers = [int(word) for word in re.findall(r"\d+", chosen.reasons["dataset"])]
    assert numbers == [len(split.train), len(split.validation), len(split.test), 4]
    assert f"{len(split.train)} images to train on" in chosen.reasons["hyperparameters.batch_size"]


def test_a_teacher_of_few_images_is_trained_for_more_epochs() -> None:
    epochs = [choose(photographs(train=(count,) * 4)).budget.teacher_epochs for count in (15, 150, 500)]
    assert epochs == [200, 22, 15]


def test_smaller_sizes_follow_and_images_beyond_the_memory_are_refused() -> None:
    assert [sizing.side for sizing in sizes_to_try(photographs(), CPU)] == [96, 64]
    large = photographs(train=(25_000,) * 4)
    assert [sizing.side for sizing in sizes_to_try(large, CPU)] == [64]
    with pytest.raises(DataError, match="4,000,000 images of 64 pixels take"):
        sizes_to_try(photographs(train=(1_000_000,) * 4), CPU)


def faults(study: Study) -> list[str]:
    return [check.found for check in check_study_file(study) if check.verdict is not CheckVerdict.OK]


@pytest.mark.parametrize(
    ("changes", "machine", "places", "seconds"),
    list(itertools.product([{}, SMALL, UNEVEN, FEW, MANY, {"bits": 12}], [CPU, GPU], [{}, LITE0], [1e-5, 1e-3, 1.0])),
)
def test_the_file_says_the_same_study_with_a_reason_on_each_line(
    changes: dict[str, Any], machine: Any, places: dict[str, Place], seconds: float
) -> None:
    images = photographs(**changes)
    choice = choose(images, machine, places=places, seconds=seconds)
    text = write_choice(choice, images, machine)
    assert parse_study(text, source="text") == choice.study
    assert [line for line in text.splitlines() if len(line.partition("#")[2].strip()) < 5] == []
    assert faults(choice.study) == []


@pytest.mark.parametrize("name", ["a: b # c", "no\nnext: 1", "\u202e", "{x}", "'\"", "on", "12"])
def test_any_name_of_a_folder_or_a_class_stays_what_it_is(name: str) -> None:
    images = photographs(root=name, class_names=(name, "fine"), train=(30, 570), **TWO)
    choice = choose(images)
    assert parse_study(write_choice(choice, images, CPU), source="text") == choice.study
    assert choice.study.dataset.root == name


def test_of_twenty_thousand_classes_there_is_a_study_too() -> None:
    names = tuple(f"class {number}" for number in range(20_000))
    images = photographs(class_names=names, train=(20,) * 20_000, validation=(0,) * 20_000, test=(0,) * 20_000)
    choice = choose(images, GPU, seconds=1e-6)
    assert len(write_choice(choice, images, GPU)) < 8000
