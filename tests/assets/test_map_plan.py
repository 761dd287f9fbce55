"""Steps, points and precision of the maps: chosen by what is measured, and kept with the asset."""

import json
from contextlib import contextmanager

import pytest
import torch

from igkd_hpo.assets import attribution_maps, map_plan
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.map_plan import choose_points, choose_precision, choose_steps, points_at_once, probe_rows
from igkd_hpo.assets.progress import SilentProgress
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teachers import prepare_teachers

from .conftest import make_study

CPU = torch.device("cpu")


def blurred(maps: torch.Tensor, share: float) -> torch.Tensor:
    """Maps with a rank correlation of about 1 - share**2 / 2 with the given ones, which are in [0, 1]."""
    return maps + share * torch.rand(maps.shape, generator=torch.Generator().manual_seed(1))


def test_the_fewest_steps_that_agree_with_64_are_taken_and_no_more_are_tried() -> None:
    many = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = []

    def maps(steps: int) -> torch.Tensor:
        asked.append(steps)
        return many if steps == 64 else blurred(many, 2.5 / steps)

    chosen, agreement = choose_steps(maps)
    assert (chosen, asked) == (16, [64, 8, 12, 16])
    assert 0.985 <= agreement < 0.995


def test_maps_that_never_agree_take_64_steps() -> None:
    assert choose_steps(lambda steps: torch.rand(4, 16, 16)) == (64, 1.0)


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({16: 10.0, 32: 12.0, 64: 14.0, 128: 16.0}, 128),
        ({16: 10.0, 32: 10.4, 64: 10.8, 128: 10.0}, 64),  # 4 % is not worth twice the memory, 8 % is four times
        ({16: 10.0, 32: 9.0, 64: 9.5}, 16),  # after two in vain, 128 is not tried
        ({16: 10.0, 32: 12.0, 64: None}, 32),  # nor what memory is too small for, or beyond
    ],
)
def test_more_points_must_gain(rates: dict[int, float | None], chosen: int) -> None:
    def rate(points: int) -> float:
        if (found := rates[points]) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    assert choose_points(rate, [16, 32, 64, 128]) == chosen


def test_a_fault_that_is_not_memory_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        choose_points(lambda points: 1 / (points - 32), [16, 32])


@pytest.mark.parametrize(
    ("share", "seconds", "chosen"),
    [(0.02, 1.0, "bfloat16"), (0.02, 2.0, "float32"), (0.5, 1.0, "float32")],
)
def test_bfloat16_must_agree_and_be_faster(
    monkeypatch: pytest.MonkeyPatch, share: float, seconds: float, chosen: str
) -> None:
    exact = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = {"float32": exact, "bfloat16": blurred(exact, share)}
    taken = {"float32": 2.0, "bfloat16": seconds}
    monkeypatch.setattr(
        map_plan, "_seconds", lambda work: next(taken[word] for word, made in maps.items() if work() is made)
    )
    assert choose_precision(maps.__getitem__) == chosen


def test_the_probe_is_spread_over_the_classes() -> None:
    labels = torch.cat([torch.zeros(600), torch.ones(200), torch.full((200,), 2.0)]).long()
    rows = probe_rows(labels)
    assert len(set(rows.tolist())) == 32
    assert torch.bincount(labels[rows]).tolist() == [19, 6, 7]
    assert sorted(probe_rows(labels[:5]).tolist()) == [0, 1, 2, 3, 4]


AUTO = {"n_steps": "auto"}


@pytest.mark.usefixtures("images", "own_teacher")
def test_the_number_of_steps_is_found_told_and_kept(settings, progress):
    study = make_study(attribution=AUTO)
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    maps = open_assets(study, settings).maps
    assert summary.n_steps == maps.facts["n_steps"] == 8  # the teacher is smooth
    assert maps.facts["agreement"] > 0.999
    assert maps.inputs["attribution"]["n_steps"] == "auto"
    assert not (maps.folder / "plan.json").exists()
    assert any(note.startswith("maps of 8 steps (attribution.n_steps), which order") for note in progress.notes)


@pytest.mark.usefixtures("images", "own_teacher")
def test_the_bar_moves_while_the_first_steps_are_tried(settings, store, progress, monkeypatch):
    study = make_study(attribution=AUTO)
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    done, first = [], []

    class Bar(SilentProgress):
        @contextmanager
        def task(self, description, total):
            yield done.append
            assert sum(done) <= total

    def explain(*given, plan, **named):
        if plan.n_steps == 64:
            first.append(sum(done))
        return torch.ones(len(given[3]), 8, 8), torch.zeros(len(given[3]))

    monkeypatch.setattr(map_plan, "explain", explain)
    assert map_plan.make_plan(study, dataset, None, device=CPU, progress=Bar()).n_steps == 8
    assert first == [0, 8 * 64, 16 * 64, 24 * 64]
    assert sum(done) == 32 * (64 + 8)


@pytest.mark.usefixtures("images", "own_teacher")
def test_an_interrupted_making_goes_on_with_its_plan(settings, progress, store, monkeypatch):
    study = make_study(attribution=AUTO, teacher={"logits": "online"})
    with monkeypatch.context() as interrupted:
        interrupted.setattr(attribution_maps, "fill", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare_assets(study, settings, device="cpu", progress=progress)
    (partial,) = store.root.glob("maps-*.partial")
    kept = json.loads((partial / "plan.json").read_bytes())
    (partial / "plan.json").write_text(json.dumps({**kept, "n_steps": 3}))
    assert prepare_assets(study, settings, device="cpu", progress=progress).n_steps == 3


@pytest.mark.usefixtures("images", "own_teacher")
def test_a_faster_way_is_looked_for_only_where_there_is_much_to_do(settings, progress, store, monkeypatch):
    study = make_study(attribution={"n_steps": 16})
    dataset = prepare_dataset(study.dataset, settings, store, progress)  # 45 images of 8x8
    assert map_plan._affordable(study, dataset, CPU, n_steps=16) == []
    monkeypatch.setattr(map_plan, "_PIXELS_TRIED", {"cpu": (6, 7, 8)})  # 1, 2 and 4 points, three times each
    assert map_plan._affordable(study, dataset, CPU, n_steps=16) == [1, 2]  # 3 * 3 of 720; 3 * 7 is too much
    assert points_at_once(study, dataset, CPU) == 1024

    monkeypatch.setattr(map_plan, "_PIXELS_AT_ONCE", {"cpu": 1 << 7})  # 2 points, which are among those tried
    (network,) = prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress).networks(CPU)
    tried = []
    explain = map_plan.explain
    monkeypatch.setattr(
        map_plan,
        "explain",
        lambda *given, plan, **named: tried.append(plan.points) or explain(*given, plan=plan, **named),
    )
    assert map_plan.make_plan(study, dataset, network, device=CPU, progress=progress).points in (1, 2)
    assert tried == [1, 1, 1, 2, 2, 2]
