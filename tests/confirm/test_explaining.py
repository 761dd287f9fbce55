"""How much of the teacher's reasons students keep: figures of tiny networks, verdicts, and what is said of them."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from igkd_hpo.assets.dataset import Dataset
from igkd_hpo.assets.study_assets import Assets
from igkd_hpo.assets.teacher import Teacher
from igkd_hpo.assets.teachers import Teachers
from igkd_hpo.config.reading import parse_study
from igkd_hpo.config.study import Augmentation
from igkd_hpo.confirmation.confirmation import ConfirmedArm, Measured, read_confirmation
from igkd_hpo.confirmation.explaining import sum_up
from igkd_hpo.confirmation.explanation_sentences import (
    explanations_in_words,
    explanations_table,
    reasons_of_chosen,
    reasons_rows,
    verdict_on_training,
)
from igkd_hpo.confirmation.explanations import ATTRIBUTE, Explanations
from igkd_hpo.confirmation.scene import Scene, agree, another_look, choose_rows, examine, look_as_teacher
from igkd_hpo.confirmation.sentences import confirmation_json, sentences
from igkd_hpo.confirmation.statistics import Estimate
from igkd_hpo.distillation.models import Network
from igkd_hpo.errors import TeacherError
from igkd_hpo.search.damage import study_damage
from igkd_hpo.search.study import SearchStudy
from igkd_hpo.settings import Paths, Settings
from tests.confirm.test_confirmation import EVEN, confirm, test, train

CPU = torch.device("cpu")
SIDE, CLASSES = 6, 3


def network(seed: int) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIDE**2, CLASSES))
    return Network(body, [0.5] * 3, [0.25] * 3).eval()


class PixelByPixel(nn.Module):
    """Each pixel adds its colours to the logits, wherever it is, so a map moves with the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(dim=(2, 3))


def images(count: int, size: int = SIDE) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
    )


def assets(*teachers: Network, labels: torch.Tensor, shown_size: int | None = None, augmentation: str = "{}") -> Assets:
    """What a study has prepared, as far as explanations ask: validation images and teachers."""
    study = parse_study(
        "{name: tiny, dataset: {name: digits}, teacher: {}, controls: [], augmentation: " + augmentation + ", "
        "hyperparameters: {temperature: 2, alpha: 0.5, overlay_probability: 0, overlay_strength: 0.5, "
        "learning_rate: 0.1}}",
        source="-",
    )
    dataset = Dataset(
        train_images=images(1), train_labels=torch.tensor([0]), validation_images=images(len(labels)),
        validation_labels=labels, class_names=("a", "b", "c"), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), sha256="",
        train_digests=np.zeros(1, np.uint64), own_validation=False, remarks=(), folder=Path(),
    )  # fmt: skip
    if shown_size:
        larger = dataset.validation_images.repeat_interleave(shown_size // SIDE, 2)
        larger = larger.repeat_interleave(shown_size // SIDE, 3)
        dataset = replace(dataset, shown_to_teacher=replace(dataset, validation_images=larger))
    settings = Settings(paths=Paths(root=Path()), storage_url="", data_root=Path(), allow_import=frozenset())
    made = Assets(
        study=study, settings=settings, dataset=dataset, teacher_sha256="", teacher_parameters=1, teacher_threads=1,
        logits=None, attention=None, maps=None, weights={},
    )  # fmt: skip
    members = (Teacher(network=one, sha256="", validation_accuracy=1, parameters=1, folder=Path()) for one in teachers)
    vars(made)["teachers"] = Teachers(members=tuple(members), folds=None, sha256="", image_size=(SIDE, SIDE))
    return made


def answers(teacher: Network, count: int) -> torch.Tensor:
    """The labels with which the teacher is right everywhere."""
    with torch.no_grad():
        return teacher(images(count).float() / 255).argmax(dim=1)


def quiet(count: int) -> None:
    """Advance nothing."""


def look(made: Assets, kind: str | None) -> tuple[Scene, Any]:
    rows = torch.arange(len(made.dataset.validation_labels))
    return look_as_teacher(made, rows, kind, CPU, quiet)


def test_a_copy_of_the_teacher_agrees_fully_and_with_the_maps_of_other_images_as_the_floor_does() -> None:
    teacher = network(0)
    scene, ceiling = look(assets(teacher, labels=answers(teacher, 9)), None)
    assert ceiling is None
    found = examine(network(0), scene, quiet)
    torch.testing.assert_close(found["correlation"], torch.ones(9, dtype=torch.float64))
    assert found["overlap"].tolist() == [1] * 9
    assert scene.others is not None
    floor = agree(scene.teacher_maps[scene.others], scene.teacher_maps)
    torch.testing.assert_close(found["shuffled_correlation"], floor["correlation"])
    torch.testing.assert_close(found["shuffled_overlap"], floor["overlap"])
    assert found["shuffled_correlation"].mean() < 0.6
    other = examine(network(1), scene, quiet)
    assert (other["correlation"] < 1).all()


def test_faithfulness_is_that_of_the_students_own_maps() -> None:
    """Its map shows what its answer hangs on, better than chance; the teacher's map does not come into it."""
    teacher = network(0)
    scene, _ = look(assets(teacher, labels=answers(teacher, 9)), None)
    found = examine(teacher, scene, quiet)
    assert found["deletion"].mean() < found["deletion_by_lot"].mean()
    assert found["insertion"].mean() > found["insertion_by_lot"].mean()
    another = examine(teacher, replace(scene, teacher_maps=torch.rand(9, SIDE, SIDE)), quiet)
    for name in ("deletion", "insertion", "sensitivity"):
        assert torch.equal(another[name], found[name])


def test_two_teachers_are_the_ceiling_and_a_student_that_is_one_of_them_reaches_it() -> None:
    first, second = network(0), network(1)
    made = assets(first, second, labels=answers(first, 9))
    scene, ceiling = look(made, another_look(Augmentation(), 2))
    alone, _ = look(assets(first, labels=answers(first, 9)), None)
    expected = examine(second, alone, quiet)
    torch.testing.assert_close(ceiling["correlation"], expected["correlation"])
    torch.testing.assert_close(ceiling["overlap"], expected["overlap"])
    both = examine(first, scene, quiet)["correlation"].mean()
    assert ceiling["correlation"].mean() < both < 1, "the student learns from the mean of both"


@pytest.mark.parametrize("kind", ["mirrored", "shifted"])
@pytest.mark.parametrize("shown_size", [None, 2 * SIDE])
def test_a_teacher_whose_maps_move_with_the_image_has_a_ceiling_of_one(kind: str, shown_size: int | None) -> None:
    teacher = Network(PixelByPixel(), [0.5] * 3, [0.25] * 3).eval()
    made = assets(teacher, labels=answers(teacher, 5), shown_size=shown_size)
    scene, ceiling = look(made, kind)
    assert scene.teacher_maps.shape == (5, SIDE, SIDE)
    torch.testing.assert_close(ceiling["correlation"], torch.ones(5, dtype=torch.float64))
    assert ceiling["overlap"].tolist() == [1] * 5
    rigid = network(0)  # which knows where a pixel is
    _, other = look(assets(rigid, labels=answers(rigid, 5)), kind)
    assert other["correlation"].mean() < 0.9


def test_the_ceiling_is_a_look_that_the_teacher_was_trained_to_know() -> None:
    assert another_look(Augmentation(), 2) == "teachers"
    assert another_look(Augmentation(horizontal_flip=True), 1) == "mirrored"
    assert another_look(Augmentation(horizontal_flip=False, crop_padding=2), 1) == "shifted"
    assert another_look(Augmentation(horizontal_flip=False, views=4), 1) == "shifted"
    assert another_look(Augmentation(horizontal_flip=False, crop_padding=0), 1) is None


def test_only_images_that_the_teacher_gets_right_are_looked_at_each_class_of_them() -> None:
    teacher = network(0)
    labels = answers(teacher, 40)
    alone = int(torch.nonzero(labels == labels.bincount().argmin())[0])  # all others of its class get a wrong label
    wrong = torch.nonzero(labels == labels[alone])[:, 0]
    wrong = wrong[wrong != alone]
    given = labels.clone()
    given[wrong] = (labels[wrong] + 1) % CLASSES
    rows = choose_rows(assets(teacher, labels=given), CPU)
    assert sorted(rows.tolist()) == [row for row in range(40) if row not in wrong.tolist()]
    assert alone in rows
    with pytest.raises(TeacherError, match=r"tiny gets none of 40 "):
        choose_rows(assets(teacher, labels=(labels + 1) % CLASSES), CPU)


def test_one_image_has_no_floor_of_other_images_and_an_interval_that_says_nothing() -> None:
    teacher = network(0)
    scene, ceiling = look(assets(teacher, labels=answers(teacher, 1)), "mirrored")
    assert scene.others is None
    found = [examine(network(seed), scene, quiet) for seed in (0, 1)]
    summed = sum_up(
        [(arm(0), found), (arm(1), found[:1])], subject=0, without=1, untrained=found, ceiling=ceiling,
        ceiling_of="mirrored", rows=torch.tensor([7]),
    )  # fmt: skip
    assert summed.verdict == "unknown"
    assert summed.shuffled is None
    assert [(one.row, one.correlation) for one in summed.examples] == [(7, pytest.approx(found_mean(found)))]
    correlation = summed.arms[0].agreement.correlation
    assert (correlation.low, correlation.high) == (-1, 1)
    assert summed.arms[0].sensitivity is None
    assert "NaN" not in json.dumps(summed.as_json())
    assert "Infinity" not in json.dumps(summed.as_json())


def found_mean(found: list[Any]) -> float:
    return float(np.mean([one["correlation"].item() for one in found]))


def arm(number: int) -> ConfirmedArm:
    none = Measured(accuracies=(0.5, 0.5), mean=Estimate(value=0.5, low=0.5, high=0.5))
    return ConfirmedArm(
        number=number, names=(f"arm {number}",), kinds=("candidate",), trial=number, search_accuracy=0.5,
        hyperparameters={}, cost={}, seeds=(0, 1), trials=(2 * number, 2 * number + 1), diverged=0, validation=none,
        test=none, against=None, shrunken=None,
    )  # fmt: skip


def figures(mean: float, seed: int, count: int = 20) -> dict[str, torch.Tensor]:
    """Made up: every figure is `mean`, up and down by a hundredth from image to image."""
    noise = 0.01 * torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    names = ("correlation", "overlap", "deletion", "insertion", "deletion_by_lot", "insertion_by_lot", "sensitivity",
             "shuffled_correlation", "shuffled_overlap")  # fmt: skip
    return dict.fromkeys(names, mean + noise)


def explained(subject: float = 0.6, other: float | None = 0.5, *, without: int | None = 1) -> Explanations:
    arms = [(arm(0), [figures(subject, seed) for seed in (0, 1)])]
    if other is not None:
        arms.append((arm(1), [figures(other, seed) for seed in (2, 3)]))
    return sum_up(
        arms, subject=0, without=without, untrained=[figures(0.1, 4)], ceiling=figures(0.8, 5), ceiling_of="shifted",
        rows=torch.arange(20),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "other", "without", "verdict"),
    [
        (0.6, 0.5, 1, "keeps"),
        (0.5, 0.6, 1, "loses"),
        (0.5, 0.5, 1, "unknown"),
        (0.6, 0.5, None, "absent"),
        (0.6, None, 1, "untested"),
    ],
)
def test_the_verdict_is_whether_the_interval_holds_0(
    subject: float, other: float | None, without: int | None, verdict: str
) -> None:
    found = explained(subject, other, without=without)
    assert found.verdict == verdict
    if found.difference is not None and verdict != "absent":
        low, high = found.difference.low, found.difference.high
        assert (low <= 0 <= high) == (verdict == "unknown")
        assert found.difference.value == pytest.approx(subject - other, abs=0.01)


@pytest.mark.parametrize(("subject", "verdict"), [(0.6, "above"), (0.1, "unknown"), (-0.4, "below")])
def test_students_are_set_against_untrained_networks(subject: float, verdict: str) -> None:
    found = explained(subject, 0.6)
    assert [found.against_untrained(one) for one in found.arms] == [verdict, "above"]
    said = verdict_on_training(found)
    assert "more" in said
    assert ("less" in said, "cannot be told" in said) == (verdict == "below", verdict == "unknown")


def test_examples_go_from_the_least_agreement_to_the_most() -> None:
    found = explained().examples
    assert len(found) == 6
    assert [one.correlation for one in found] == sorted(one.correlation for one in found)
    every = torch.stack([figures(0.6, seed)["correlation"] for seed in (0, 1)]).mean(dim=0)
    assert (found[0].row, found[-1].row) == (int(every.argmin()), int(every.argmax()))


@pytest.fixture
def confirmed(study: SearchStudy, run: Any) -> SearchStudy:
    for accuracy in (0.70, 0.75, 0.80, 0.78, 0.81):
        run(0.5, 0.6, accuracy)
    linked = confirm(study)
    train(linked, EVEN)
    test(linked)
    return linked


def test_what_is_kept_is_read_and_said(confirmed: SearchStudy) -> None:
    before = read_confirmation(confirmed)
    assert before is not None
    assert before.explanations is None, "old confirmations have none"
    assert confirmation_json(before)["explanations"] is None
    figure = r"\(?[+-]0\.\d\d"
    for subject, other, wanted in (
        (0.6, 0.5, rf"^IG \(overlays\) keeps more .* trial 4: .* 0\.60 against 0\.50 .* {figure} {figure} to {figure}"),
        (0.5, 0.6, r"^IG \(overlays\) loses .* trial 4: .* 0\.50 against 0\.60 "),
        (0.5, 0.5, r"^Whether IG \(overlays\) .* trial 4 cannot be told: .* \(-0\.\d\d to \+0\.\d\d\); .* 0\.$"),
    ):
        kept = explained(subject, other)
        confirmed.storage.set_study_user_attr(confirmed.study_id, ATTRIBUTE, kept.as_json())
        found = read_confirmation(confirmed)
        assert found is not None
        assert found.explanations == kept
        (line,) = (line for line in sentences(found) if "reasons" in line)
        assert re.search(wanted, line), line
        assert len(list(sentences(found))) == len(list(sentences(before))) + 2
        assert confirmation_json(found)["explanations"]["verdict"] == kept.verdict
    assert reasons_of_chosen(before) == reasons_of_chosen(None) == ()
    assert kept.arm(found.chosen) is not None
    verdict, _, about, _ = reasons_of_chosen(found)
    assert verdict == line
    assert f"maps of arm {found.chosen} " in about
    assert reasons_of_chosen(replace(found, chosen=5)) == (verdict,), "an arm that was not explained"
    assert [line.partition(" agree ")[0] for line in explanations_in_words(replace(found, chosen=1))][:2] == [
        "The maps of arm 0", "The maps of arm 1",
    ]  # fmt: skip
    assert len(list(explanations_in_words(replace(found, chosen=0)))) == 2
    assert list(explanations_in_words(before)) == []


def test_what_others_wrote_in_its_place_is_damage(confirmed: SearchStudy) -> None:
    attributes, sound = dict(confirmed.read().attributes), json.dumps(explained().as_json())
    assert study_damage(attributes | {ATTRIBUTE: json.loads(sound)}) is None
    changes: tuple[tuple[tuple[str | int, ...], object], ...] = (
        (("arms", 0, "name"), "[a](javascript:0)"),
        (("arms", 0, "trials"), []),
        (("arms", 0, "deletion", "low"), float("nan")),
        (("arms",), []),
        (("verdict",), "<b>"),
        (("ceiling_of",), "elsewhere"),
        (("examples", 0, "row"), -1),
    )
    for path, value in changes:
        changed = inner = json.loads(sound)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert str(study_damage(attributes | {ATTRIBUTE: changed})).startswith(f"{ATTRIBUTE}.{path[0]}")


def test_the_table_has_a_row_for_each_arm_between_ceiling_and_floors() -> None:
    found = explained()
    rows = list(reasons_rows(found))
    assert [row.name.partition(":")[0] for row in rows] == ["ceiling", "arm 0", "arm 1", "floor", "floor"]
    assert [row.correlation[:4] for row in rows] == ["0.80", "0.60", "0.50", "0.60", "0.10"]
    out = io.StringIO()
    Console(file=out, width=80).print(explanations_table(found))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "…" not in out.getvalue()
