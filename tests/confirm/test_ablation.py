"""The ablation benchmark: its sums, its words, and a small one that goes on where it stopped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ablation
from igkd_hpo.confirmation.statistics import Contrast, Estimate
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2


def test_a_sentence_says_what_cannot_be_told() -> None:
    question = ablation.Question("IG adds, to KD", "kd_ig", "kd")
    told = Contrast(difference=Estimate(value=0.012, low=0.002, high=0.022), p_value=0.02, detectable=0.01)
    assert ablation.sentence(question, told, 5) == "IG adds, to KD: +1.2 points (95 % interval +0.2 to +2.2)"
    untold = Contrast(difference=Estimate(value=-0.004, low=-0.014, high=0.006), p_value=0.4, detectable=0.01)
    assert ablation.sentence(question, untold, 5) == (
        "IG adds, to KD: -0.4 points (95 % interval -1.4 to +0.6); "
        "whether it helps or harms cannot be told from 5 seeds"
    )


def lines(**arms: list[float]) -> list[dict[str, object]]:
    return [
        {"arm": name.replace("__", "-"), "seed": seed, "test_accuracy": value, "n_test": 1000}
        for name, values in arms.items()
        for seed, value in enumerate(values)
    ]


def test_the_goals_are_the_gain_over_the_reference_and_aligned_over_shuffled() -> None:
    good = ablation.results(lines(kd_ig=[0.93, 0.94], reference=[0.91, 0.92], kd=[0.9, 0.91], kd__shuffled=[0.1, 0.11]))
    assert list(good["goals"].values()) == [True, True]
    # 0.91, 0.92: error 0.005, t(0.975, 1) = 12.7062.
    assert good["table"][0]["low"] == pytest.approx(0.915 - 12.7062 * 0.005, abs=1e-5)
    assert [row["arm"] for row in good["table"]] == ["reference", "kd", "kd_ig", "kd-shuffled"]
    bad = ablation.results(lines(kd_ig=[0.92, 0.93], reference=[0.91, 0.92], kd=[0.5, 0.6], kd__shuffled=[0.4, 0.6]))
    assert list(bad["goals"].values()) == [False, False]
    assert good["sentences"][1].startswith("our recipe adds, to the reference: +2.0 points (95 % interval ")
    some = ablation.results([*lines(kd=[0.5, 0.6]), {"arm": "kd", "seed": 2, "diverged_in_epoch": 1, "n_test": 1}])
    assert some["goals"] == {}
    assert (some["table"][0]["n"], some["table"][0]["diverged"]) == (2, 1)


def test_every_question_is_about_arms_and_every_arm_is_a_study(tmp_path: Path) -> None:
    for question in ablation.QUESTIONS:
        assert {question.arm, question.than} <= ablation.ARMS.keys()
    for mode, data in ((ablation.SMALL, None), (ablation.FULL, tmp_path)):
        protocol = ablation.Protocol(data=data, teacher=None, teacher_normalize="none", layers_removed=5, **mode)
        for name, arm in ablation.ARMS.items():
            study = ablation.study_of(name, protocol, tmp_path, trainings=9)
            assert not study.is_search
            assert study.hyperparameters.batch_size == (64 if arm.recipe is ablation.PAPER or data is None else 128)
            assert study.hyperparameters.learning_rate == {
                (True, 64): 1e-3, (False, 64): 0.05, (False, 128): 0.1
            }[arm.recipe is ablation.PAPER, study.hyperparameters.batch_size]  # fmt: skip
    reference = ablation.study_of("reference", protocol, tmp_path, trainings=9)
    assert reference.hyperparameters.alignment == "reference_shuffled"
    assert reference.student.normalize == "none"


def test_a_small_ablation_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 66), ("test", 6)):
        for label, name in enumerate(("blue", "red")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 90, (8, 8, 3), dtype=np.uint8)
                pixels[:, :, 0 if label else 2] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
    torch.save(teacher_of_colours(), tmp_path / "teacher.pt")
    output = tmp_path / "out" / "ablation.jsonl"
    command = [
        str(tmp_path / "images"), "--teacher", str(tmp_path / "teacher.pt"), "--output", str(output), "--width", "0.1",
        "--layers-removed", "15", "--epochs", "1", "--images", "118", "--test-images", "10", "--json",
    ]  # fmt: skip
    assert ablation.main([*command, "--arms", "student,kd-shuffled", "--seeds", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["n_train"], first["protocol"]["seeds"]) == (118, 2)
    assert [(row["arm"], row["n"]) for row in first["table"]] == [("student", 2), ("kd-shuffled", 2)]
    assert len((tmp_path / "out" / "ablation" / "logs" / "test-split.log").read_text().splitlines()) == 4

    kept = output.read_text().splitlines(keepends=True)
    output.write_text("".join(kept[:-1]) + kept[-1][:20])  # the last line was cut off by a crash
    ablation.main([*command, "--arms", "student,kd-shuffled,kd", "--seeds", "2"])
    second = json.loads(capsys.readouterr().out)
    assert [second["table"][0], second["table"][2]] == first["table"]  # trained again, the same numbers
    assert [(row["arm"], row["n"]) for row in second["table"]][1] == ("kd", 2)
    assert output.read_text().splitlines(keepends=True)[:3] == kept[:3]
    assert len(ablation.finished(output)) == 6


def teacher_of_colours() -> dict[str, torch.Tensor]:
    """A MobileNet-V2 cut to its stem and one block, whose last layer tells blue from red."""
    torch.manual_seed(0)
    body = mobilenet_v2(num_classes=2, layers_removed=17).eval()
    pure = torch.zeros(2, 3, 8, 8)
    pure[0, 2] = pure[1, 0] = 0.7
    with torch.no_grad():
        features = body.features(pure).mean(dim=(2, 3))
        direction = features[1] - features[0]
        weight = direction / direction.square().sum() * 8
        body.classifier[1].weight.copy_(torch.stack([-weight, weight]))
        body.classifier[1].bias.copy_((features.mean(0) @ weight) * torch.tensor([1.0, -1.0]))
    return body.state_dict()


def test_an_unknown_arm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ablation.main(["digits", "--arms", "student,ks"])
    assert caught.value.code == 2
    assert re.search(r"\bks\b.* reference, ", capsys.readouterr().err)
