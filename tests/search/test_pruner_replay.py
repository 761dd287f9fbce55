"""The pruner benchmark: studies on the simulated clock against hand-computed ones, and a small recording."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.pruners import BasePruner

from benchmarks import pruners
from benchmarks.pruners import (
    Curves,
    Line,
    LowerBar,
    Outlook,
    RayAsha,
    compare,
    draw_study,
    goals,
    replay_study,
    replay_waiting,
    seed_noise,
    settings_to_try,
)
from igkd_hpo.search.pruner import make_pruner

TINY = """
name: tiny
dataset: {name: digits, validation_fraction: 0.3, test_fraction: 0.5}
teacher: {width: 0.1, epochs: 3, logits: online}
training: {epochs: 2}
augmentation: {crop_padding: 0, horizontal_flip: false}
hyperparameters:
  {alpha: 0.0, temperature: 1.0, overlay_probability: 0.0, overlay_strength: 0.5, weight_decay: 0.0, batch_size: 128,
   learning_rate: {type: float, low: 0.001, high: 1.0, log: true}, layers_removed: 17, width: 0.1}
controls: [student]
n_trials: 3
"""


def line(number: int, *accuracy: float, control: str | None = None, repeat: int = 0, seconds: float = 1.0) -> Line:
    return Line(
        configuration=number,
        control=control,
        repeat=repeat,
        seed=number,
        params={},
        accuracy=list(accuracy),
        seconds=[seconds] * len(accuracy),
    )


FIVE_CONTROLS = [line(number, 0.5, 0.9, control="kd") for number in range(5)]
STUDY = [*FIVE_CONTROLS, line(5, 0.1, 0.2), line(6, 0.6, 0.95)]


def replayed(curves: list[Line], name: str, workers: int) -> tuple[int, float, set[int], set[int]]:
    pruner = make_pruner(settings_to_try()[name].model_copy(update={"grace_period": 0}), 2)
    found = replay_study(curves, pruner, epochs=2, workers=workers, name="by-hand")
    return found.epochs, found.seconds, set(found.completed), set(found.pruned)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, (13, 13.0, {0, 1, 2, 3, 4, 6}, {5})),  # 5 is below 0.5 after its first epoch
        (2, (14, 8.0, {0, 1, 2, 3, 4, 5, 6}, set())),  # 4 and 5 run side by side: only four have completed
        (7, (14, 2.0, {0, 1, 2, 3, 4, 5, 6}, set())),
    ],
)
def test_what_completes_first_decides_what_is_pruned(
    workers: int, expected: tuple[int, float, set[int], set[int]]
) -> None:
    assert replayed(STUDY, "percentile 50, grace 1, patience 0", workers) == expected


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        # 1 waits when 2 is seen, for of two the better one goes on; so does 3, the second of four, and 4 diverges.
        (1, (9, 9.0, {0, 2, 3}, {1, 5})),
        (2, (9, 5.0, {0, 2, 3}, {1, 5})),
    ],
)
def test_who_waits_goes_on_once_it_is_among_the_best(
    workers: int, expected: tuple[int, float, set[int], set[int]]
) -> None:
    curves = [line(0, 0.1, 0.2, control="kd"), *(line(number, 0.1 * number, 0.9) for number in (1, 3))]
    curves += [line(3, 0.2, 0.8), line(4, 0.9), line(5, 0.1, 0.9)]
    found = replay_waiting(curves, grace_period=1, reduction_factor=2, epochs=2, workers=workers)
    assert (found.epochs, found.seconds, set(found.completed), set(found.pruned)) == expected


def test_controls_are_never_pruned_and_what_diverges_is_not_completed() -> None:
    curves = [*FIVE_CONTROLS, line(5, 0.1, 0.2, control="student"), line(6), line(7, 0.7), line(8, 0.6, 0.7)]
    assert replayed(curves, "percentile 50, grace 1, patience 0", 1) == (15, 15.0, {0, 1, 2, 3, 4, 5, 8}, set())


def test_slow_trials_end_late() -> None:
    # The fast worker's second trial is judged at 3 s, when 5 slow ones run and only one has completed.
    slow = [line(number, 0.5, 0.9, seconds=10) for number in range(5)]
    curves = [*slow, line(5, 0.5, 0.9), line(6, 0.1, 0.1)]
    epochs, seconds, completed, pruned = replayed(curves, "percentile 50, grace 1, patience 0", 6)
    assert (epochs, seconds, completed, pruned) == (14, 20.0, set(range(7)), set())


def test_a_pruner_is_compared_with_the_best_of_all() -> None:
    curves = [*FIVE_CONTROLS, line(5, 0.1, 0.98), line(6, 0.6, 0.95)]
    with_it = replay_study(
        curves, make_pruner(settings_to_try()["percentile 50, grace 1, patience 0"], 2), epochs=2, workers=1, name="a"
    )
    assert with_it.pruned == set()  # the grace period is an epoch, and nothing is pruned after the last
    with_it = pruners.Replayed(epochs=13, seconds=6.5, completed=frozenset({0, 1, 2, 3, 4, 6}), pruned=frozenset({5}))
    without = pruners.Replayed(epochs=14, seconds=13.0, completed=frozenset(range(7)), pruned=frozenset())
    means = {**dict.fromkeys(range(5), 0.9), 5: 0.93, 6: 0.94}
    found = compare(curves, means, with_it, without)
    assert found == pytest.approx(
        {
            "epochs": 13 / 14,
            "time": 0.5,
            "regret": 0.03,
            "regret_of_searched": 0.03,
            "regret_of_means": -0.01,
            "good_pruned": 1.0,
        }
    )


def test_a_control_that_is_chosen_hides_nothing() -> None:
    """The best of all is a control; of the searched the better one was pruned."""
    curves = [*FIVE_CONTROLS, line(5, 0.1, 0.88), line(6, 0.6, 0.7)]
    runs = [
        pruners.Replayed(epochs=13, seconds=6.5, completed=completed, pruned=frozenset())
        for completed in (frozenset({0, 1, 2, 3, 4, 6}), frozenset(range(7)))
    ]
    means = dict.fromkeys(range(7), 0.9)
    found = compare(curves, means, *runs)
    assert (found["regret"], found["regret_of_searched"]) == (0, pytest.approx(0.18))
    nothing = replace(runs[0], completed=frozenset(range(5)))
    assert compare(curves, means, nothing, runs[1])["regret_of_searched"] == pytest.approx(0.88)


def test_seed_noise_is_pooled_over_configurations() -> None:
    lines = [line(0, 0.9), line(0, 0.92, repeat=1), line(1, 0.5), line(1, 0.54, repeat=1), line(2, 0.1)]
    # Squares: 2 * 0.01**2 + 2 * 0.02**2 = 0.001, with 2 degrees of freedom.
    assert seed_noise(lines) == (pytest.approx(0.0005**0.5), 2)


def test_seed_noise_of_an_epoch() -> None:
    lines = [line(0, 0.5, 0.9), line(0, 0.7, 0.9, repeat=1), line(1, 0.1), line(1, 0.1, 0.4, repeat=1)]
    assert seed_noise(lines, 1) == (pytest.approx(0.01**0.5), 2)
    assert seed_noise(lines, 2) == (pytest.approx(0.04**0.5), 2)  # one diverged


def stopped(curves: list[Line], pruner: BasePruner, epochs: int) -> tuple[int, set[int]]:
    found = replay_study(curves, pruner, epochs=epochs, workers=1, name="by-hand")
    return found.epochs, set(found.pruned)


def test_rays_own_scheduler_judges_by_what_was_there_before() -> None:
    # Rungs after 1 and 2 epochs. The bar of the second is the first's, of the third the mean of both, of the fourth
    # the middle one; the fifth is above it and misses the bar of the next rung, (0.7 + 0.8) / 2.
    curves = [line(0, 0.6, 0.7, 0.9), line(1, 0.5, 0.9, 0.9), line(2, 0.58, 0.8, 0.9), line(3, 0.5, 0.9, 0.9)]
    curves.append(line(4, 0.9, 0.72, 0.1))
    assert stopped(curves, RayAsha(3, grace_period=1, reduction_factor=2), 3) == (3 + 1 + 3 + 1 + 2, {1, 3, 4})


@pytest.mark.parametrize(("deviations", "expected"), [(0.0, (7, {1, 2, 3})), (1.0, (13, {3}))])
def test_a_lower_bar_spares_what_noise_may_have_put_below_it(deviations: float, expected: tuple[int, set[int]]) -> None:
    curves = [line(number, first, 0.1, 0.1, 0.9) for number, first in enumerate((0.5, 0.41, 0.45, 0.39))]
    noise = [0.1, 0.0, 0.0, 0.0]
    assert stopped(curves, LowerBar(1, reduction_factor=4, deviations=deviations, noise=noise), 4) == expected


FIVE_EVEN = [line(number, 0.1 * number, 0.2 * number, 0.2 * number) for number in range(5)]


@pytest.mark.parametrize(("first", "stops"), [(0.1, True), (0.36, True), (0.42, False), (0.5, False)])
def test_an_outlook_follows_the_others_curves(first: float, stops: bool) -> None:
    """All double in an epoch and keep that, so that 0.4 after the first epoch is as good as the best, 0.8."""
    crooked = [
        line(each.configuration, *(accuracy + 0.01 * (each.configuration % 2) for accuracy in each.accuracy))
        for each in FIVE_EVEN
    ]
    found = stopped([*crooked, line(5, first, 0.1, 0.1)], Outlook(3, chance=0.05), 3)
    assert (found == (16, {5})) is stops


def test_an_outlook_needs_five_that_completed() -> None:
    curves = [*FIVE_EVEN[1:], line(5, 0.0, 0.0, 0.0)]
    assert stopped(curves, Outlook(3, chance=0.05), 3) == (15, set())


def test_what_the_default_is_held_to() -> None:
    def row(pruner: str, epochs: float, regret: float = 0.0) -> dict[str, object]:
        return {
            "workers": 1,
            "pruner": pruner,
            "epochs": {"mean_low": epochs, "mean_high": epochs},
            "regret_of_means": {"mean_high": regret},
        }

    others = [row(pruners.MEDIAN, 0.33), row(pruners.ASHA, 0.5)]
    found = {"seed_noise": 0.01, "rows": [row(pruners.DEFAULT, 0.33), *others]}
    assert list(goals(found).values()) == [True, False, True]
    assert list(goals(found | {"rows": [row(pruners.DEFAULT, 0.3, 0.02), *others]}).values()) == [False, True, True]
    assert goals(found | {"rows": others}) == {}


def test_a_drawn_study_has_its_controls_first_and_each_configuration_once() -> None:
    lines = [*FIVE_CONTROLS, *(line(number, 0.1, repeat=repeat) for repeat in range(2) for number in range(5, 15))]
    drawn = draw_study(lines, 11, pruners.np.random.default_rng(0))
    assert [curve.control for curve in drawn] == ["kd"] * 5 + [None] * 6
    assert len({curve.configuration for curve in drawn}) == 11
    assert {curve.repeat for curve in drawn} == {0, 1}


def test_record_goes_on_where_it_stopped_and_replay_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(TINY, encoding="utf-8")
    output = tmp_path / "curves" / "tiny.jsonl"
    command = ["record", str(study), "--output", str(output), "--storage", str(tmp_path), "--configurations", "2"]
    pruners.main([*command, "--best", "1", "--seeds", "2"])
    whole = output.read_text(encoding="utf-8")
    found = Curves.read(output)
    assert [(each.configuration, each.control, each.repeat) for each in found.lines[:3]] == [
        (0, "student", 0),
        (1, None, 0),
        (2, None, 0),
    ]
    assert (len(found.lines), found.lines[3].repeat, len(found.lines[3].accuracy)) == (4, 1, 2)
    assert found.lines[3].final == max(each.final for each in found.lines[:3]) or found.lines[3].seed >= 1000

    output.write_text(whole[:-20], encoding="utf-8")  # the last line was cut off by a crash
    pruners.main([*command, "--best", "1", "--seeds", "2"])
    again = Curves.read(output).lines
    assert again[:3] == found.lines[:3]
    assert again[3].accuracy == found.lines[3].accuracy  # trained again, the same numbers
    capsys.readouterr()
    pruners.main(["replay", str(output), "--orders", "2", "--workers", "1", "--only", "none", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["trials"], printed["rows"][0]["epochs"]["mean"]) == (3, 1.0)
