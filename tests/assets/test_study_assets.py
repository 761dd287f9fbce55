"""Logits and maps: row i is training image i, online and cached agree, and nothing is made twice or needlessly."""

import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from igkd_hpo.assets import attribution_maps, logits, threads
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.study_assets import open_assets, prepare_assets
from igkd_hpo.assets.teachers import open_teachers, prepare_teachers
from igkd_hpo.distillation.hyperparameter import Role
from igkd_hpo.distillation.models import to_pixels
from igkd_hpo.distillation.teaching import CachedLogits, OnlineLogits
from igkd_hpo.distillation.views import ShiftedCrops, make_views
from igkd_hpo.errors import AssetError, AssetMissing, UsageError
from igkd_hpo.settings import Settings
from igkd_hpo.trial.build import make_trial

from .conftest import RecordingProgress, make_study
from .processes import heard, prepare_in_single_images, start

CPU = torch.device("cpu")
VIEWS = ShiftedCrops(padding=1, mirrored=True)
pytestmark = pytest.mark.usefixtures("own_teacher", "images")


def test_the_summary_is_plain_json_and_the_second_time_costs_nothing(settings, progress, monkeypatch):
    summary = prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assert progress.tasks == {
        "decoding images": (80, 80),
        "teacher logits of 18 views": (45, 45),
        "attribution maps": (45, 45),
    }
    assert (summary.n_train, summary.n_validation, summary.num_classes) == (45, 15, 2)
    assert summary.image_size == (8, 8)
    assert summary.teacher_accuracy == summary.pins.teacher_accuracy == 1
    assert [note for note in progress.notes if "100.00 % on 15 " in note]
    assert summary.logits == "cached"
    assert 0 <= summary.completeness < 0.01
    assert len(summary.folders) == 4
    assert json.loads(json.dumps(asdict(summary)))["warnings"] == []
    progress.tasks.clear()
    monkeypatch.setattr(threads, "_fastest", lambda _: pytest.fail("nothing is computed, so nothing is measured"))
    again = prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assert progress.tasks == {}
    assert replace(again, seconds=summary.seconds) == summary


def test_opening_before_preparing_says_what_to_run(settings):
    with pytest.raises(AssetMissing, match="igkd-hpo prepare STUDY"):
        open_assets(make_study(), settings)


def test_row_and_view_of_the_table_are_those_of_the_image(settings, progress):
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assets = open_assets(make_study(), settings)
    table = assets.logits.array("logits")
    assert table.shape == (45, 18, 2)
    assert table.dtype == np.float16
    network = assets.teachers.members[0].network
    images = assets.dataset.train_images
    for row in (0, 7, 44):
        for view in range(18):
            seen = VIEWS.cut(images[row : row + 1], torch.tensor([row]), torch.tensor([view]))
            expected = network(seen.float() / 255)[0].detach().numpy()
            assert table[row, view] == pytest.approx(expected, abs=2e-3)
    # The teacher tells the halves apart, so a flip changes every sign: the views are not all alike.
    assert (np.sign(table[:, 4, 0]) == -np.sign(table[:, 13, 0])).all()


def test_cached_and_online_logits_agree_bit_for_bit(settings, progress):
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    cached = open_assets(make_study(), settings).teaching(CPU)
    online = open_assets(make_study(teacher={"logits": "online"}), settings).teaching(CPU)
    assert isinstance(cached, CachedLogits)
    assert isinstance(online, OnlineLogits)
    data = open_assets(make_study(), settings).training_data()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(45, (100,), generator=generator)
    numbers = torch.randint(18, (100,), generator=generator)
    pixels = VIEWS.cut(data.images[rows], rows, numbers).float() / 255
    assert torch.equal(cached.logits(rows, numbers, pixels), online.logits(rows, numbers, pixels))


def test_boxes_have_a_table_that_agrees_with_online_logits_bit_for_bit(settings, progress):
    study = make_study(augmentation={"views": 5, "scale": (0.4, 1.0), "crop_padding": 0})
    prepare_assets(study, settings, device="cpu", progress=progress)
    assets = open_assets(study, settings)
    cached, online = assets.teaching(CPU), assets.teaching(CPU, mixed=True)
    assert isinstance(cached, CachedLogits)
    assert isinstance(online, OnlineLogits)
    assert cached.table.shape == (45, 5, 2)
    data = assets.training_data()
    views = make_views(study.augmentation, data.digests)
    rows, numbers = torch.arange(45).repeat(5), torch.arange(5).repeat_interleave(45)
    pixels = to_pixels(views.cut(data.images[rows], rows, numbers))
    assert torch.equal(cached.logits(rows, numbers, pixels), online.logits(rows, numbers, pixels))
    assert len(cached.table[:, :, 0].unique()) > 100  # the teacher tells views apart


@pytest.mark.parametrize(("mixup", "table", "asked"), [(0.0, True, "cached"), (1.0, False, "online")])
def test_a_trial_that_mixes_asks_the_teacher_and_says_so(settings, progress, mixup, table, asked):
    searched = {"type": "categorical", "choices": [mixup, 0.5]}
    study = make_study(hyperparameters={"mixup": searched, "width": 0.1, "layers_removed": 14})
    prepare_assets(study, settings, device="cpu", progress=progress)
    assets = open_assets(study, settings)
    assert (assets.logits is not None) == table
    trial = make_trial(study, study.hyperparameters.middle() | {"mixup": mixup}, assets, seed=1, device=CPU)
    assert trial.execution.logits == asked
    assert isinstance(trial.training.teaching, CachedLogits) == (asked == "cached")


def test_maps_are_those_that_captum_gives_for_each_row(settings, progress):
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assets = open_assets(make_study(), settings)
    maps = assets.maps.array("maps").astype(np.float32) * assets.maps.array("scale")[:, None, None]
    dataset = assets.dataset
    pixels = dataset.train_images.float() / 255
    baseline = torch.tensor(dataset.mean)[None, :, None, None].expand_as(pixels[:1])
    explainer = IntegratedGradients(assets.teachers.members[0].network)
    expected = explainer.attribute(pixels, baseline, target=dataset.train_labels, n_steps=32).abs().sum(dim=1)
    assert maps == pytest.approx(expected.detach().numpy(), rel=2e-3, abs=1e-4)
    assert assets.maps.array("maps").max(axis=(1, 2)) == pytest.approx(1)
    assert torch.equal(assets.training_data().maps, torch.from_numpy(assets.maps.array("maps")))


@pytest.mark.parametrize("target", ["label", "prediction"])
def test_the_target_is_the_label_or_the_teachers_answer(settings, store, progress, target):
    """Under a teacher that is always wrong, where the two differ; its second logit is twice as large."""
    study = make_study(attribution={"target": target})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    teachers = prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress)
    with torch.no_grad():
        teachers.members[0].network.body.scale.neg_()
    maps = attribution_maps.prepare_maps(study, dataset, teachers, settings, store, devices=[CPU], progress=progress)
    targets = dataset.train_labels if target == "label" else 1 - dataset.train_labels
    scale = maps.array("scale")
    assert scale[targets.numpy() == 1].mean() > 1.3 * scale[targets.numpy() == 0].mean()
    assert maps.facts["target"] == target


def test_a_coarse_map_warns_and_names_n_steps(settings, progress, monkeypatch):
    monkeypatch.setattr(attribution_maps, "_WORST_MEDIAN", -1.0)
    summary = prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assert "raise attribution.n_steps (32 now)" in summary.warnings[0]
    assert progress.warnings == summary.warnings


NO_OVERLAY = {"overlay_probability": 0.0}
NO_TEACHING = {"alpha": 0.0}


@pytest.mark.parametrize(
    ("hyperparameters", "controls", "maps", "table"),
    [
        ({}, [], True, True),
        (NO_OVERLAY, [], False, True),
        (NO_OVERLAY, ["student", "kd"], False, True),
        (NO_OVERLAY, ["ig"], True, True),
        (NO_TEACHING, ["student", "ig"], True, False),
        (NO_TEACHING, ["kd"], True, True),
        ({**NO_OVERLAY, **NO_TEACHING}, ["paper"], True, True),
        ({**NO_OVERLAY, **NO_TEACHING}, ["student"], False, False),
        ({**NO_OVERLAY, **NO_TEACHING, "attribution_weight": 1.0}, [], True, False),
    ],
)
def test_only_what_a_trial_can_use_is_wanted(settings, store, progress, hyperparameters, controls, maps, table):
    study = make_study(hyperparameters=hyperparameters, controls=controls)
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    assert study.uses(Role.MAPS) == maps
    assert logits.wants_table(study, dataset) == table


def test_auto_counts_the_cost(settings, store, progress, monkeypatch):
    dataset = prepare_dataset(make_study().dataset, settings, store, progress)
    # 18 views against trials * epochs * 0.6
    assert logits.wants_table(make_study(n_trials=31, training={"epochs": 1}), dataset)
    assert not logits.wants_table(make_study(n_trials=30, training={"epochs": 1}), dataset)
    assert logits.wants_table(make_study(n_trials=4, training={"epochs": 1}, teacher={"logits": "cached"}), dataset)
    monkeypatch.setattr(logits, "LARGEST_TABLE", 45 * 18 * 2 * 2 - 1)
    assert not logits.wants_table(make_study(n_trials=31), dataset)


def test_a_study_with_all_at_zero_makes_neither(settings, progress):
    study = make_study(hyperparameters={**NO_OVERLAY, **NO_TEACHING}, controls=["student"])
    summary = prepare_assets(study, settings, device="cpu", progress=progress)
    assert (summary.logits, summary.completeness, len(summary.folders)) == ("online", None, 2)
    assert open_assets(study, settings).training_data().maps is None


def test_auto_takes_a_table_that_is_there_and_cached_insists(settings, progress):
    short = {"n_trials": 4, "training": {"epochs": 1}}
    prepare_assets(make_study(**short), settings, device="cpu", progress=progress)
    assert open_assets(make_study(**short), settings).logits is None
    with pytest.raises(AssetMissing):
        open_assets(make_study(**short, teacher={"logits": "cached"}), settings)
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    assert open_assets(make_study(**short), settings).logits is not None


@pytest.mark.parametrize("kind", ["logits", "maps"])
def test_rows_in_another_order_are_refused(settings, store, progress, kind):
    """A table made from permuted images, under the name of the right ones."""
    study = make_study()
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    teachers = prepare_teachers(study, dataset, settings, store, device=CPU, progress=progress)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(0))
    permuted = replace(dataset, train_images=dataset.train_images[order], train_labels=dataset.train_labels[order])
    make = {"logits": logits.prepare_logits, "maps": attribution_maps.prepare_maps}[kind]
    with pytest.raises(AssetError, match=rf"/{kind}-\w+ .*training images .*{dataset.folder}"):
        make(study, permuted, teachers, settings, store, devices=[CPU], progress=progress)
    open_it = {"logits": logits.open_logits, "maps": attribution_maps.open_maps}[kind]
    with pytest.raises(AssetError, match=rf"/{kind}-\w+ .*training images .*{dataset.folder}"):
        open_it(study, dataset, teachers.sha256, store)


@pytest.mark.parametrize("kind", ["dataset", "teacher", "logits", "maps"])
def test_damage_is_told_with_the_folder(settings, store, progress, kind):
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    (folder,) = store.root.glob(f"{kind}-*")
    largest = max((path for path in folder.iterdir() if path.suffix != ".json"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 255
    largest.write_bytes(data)
    for use in (
        lambda: open_assets(make_study(), settings),
        lambda: prepare_assets(make_study(), settings, device="cpu", progress=progress),
    ):
        with pytest.raises(AssetError, match=rf"{folder} .*\({largest.name}"):
            use()


def test_the_teachers_input_is_part_of_what_its_answers_depend_on(settings, progress):
    folders = set()
    for section in ({}, {"normalize": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}, {"input_size": 16}):
        folders |= set(prepare_assets(make_study(teacher=section), settings, device="cpu", progress=progress).folders)
    assert len([folder for folder in folders if Path(folder).name.startswith("logits")]) == 3
    assert len([folder for folder in folders if Path(folder).name.startswith("maps")]) == 3


def test_kill_9_while_logits_and_then_maps_are_made_loses_no_finished_chunk(settings, progress, tmp_path, store):
    for word, kind in (("teacher", "logits"), ("attribution", "maps")):
        process, told = start(prepare_in_single_images, make_study(), tmp_path)
        for description, _ in heard(told):
            if description == word and len(list(store.root.glob(f"{kind}-*.partial/rows.json"))) == 1:
                (state,) = store.root.glob(f"{kind}-*.partial/rows.json")
                if json.loads(state.read_bytes())["done"] >= 5:
                    process.kill()
                    break
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not [path for path in store.root.glob(f"{kind}-*") if path.suffix != ".partial"]
    study = make_study()
    done = []
    task = progress.task

    def recorded(description, total):
        context = task(description, total)
        if description == "attribution maps":
            (state,) = store.root.glob("maps-*.partial/rows.json")
            done.append(json.loads(state.read_bytes())["done"])
        return context

    progress.task = recorded
    prepare_assets(study, settings, device="cpu", progress=progress)
    assert done[0] >= 5
    interrupted = open_assets(study, settings)
    # The same from the start, elsewhere.
    elsewhere = replace(settings, paths=replace(settings.paths, root=tmp_path / "elsewhere"))
    progress.task = task
    prepare_assets(study, elsewhere, device="cpu", progress=progress)
    straight = open_assets(study, elsewhere)
    assert interrupted.logits.sha256 == straight.logits.sha256
    assert interrupted.maps.sha256 == straight.maps.sha256


def test_two_that_prepare_at_once_make_everything_once(tmp_path, settings, store):
    both = [start(prepare_in_single_images, make_study(), tmp_path) for _ in range(2)]
    counts = [count for _, told in both for description, count in heard(told) if description == "teacher"]
    for process, _ in both:
        process.join()
        assert process.exitcode == 0
    # Each image's logits were told by one of the two; a maker also tells 0 for what it found done.
    assert len([count for count in counts if count]) == 45
    assert len(list(store.root.glob("logits-*"))) == 1
    assert not list(store.root.glob("*.partial"))


def test_the_teacher_opens_without_its_code_only_where_the_table_is(settings, progress, store):
    prepare_assets(make_study(), settings, device="cpu", progress=progress)
    elsewhere = replace(settings, allow_import=frozenset())
    assets = open_assets(make_study(), elsewhere)
    assert isinstance(assets.teaching(CPU), CachedLogits)
    from igkd_hpo.errors import UsageError

    with pytest.raises(UsageError, match="--allow-import own_teacher"):
        open_teachers(make_study(), assets.dataset, elsewhere, store)


@pytest.mark.parametrize("cutout", [9, {"type": "int", "low": 0, "high": 9}])
def test_a_square_larger_than_the_images_is_refused_before_anything_is_made(
    cutout: object, images: Path, settings: Settings, progress: RecordingProgress
) -> None:
    study = make_study(hyperparameters={"cutout": cutout})
    with pytest.raises(UsageError, match=r"hyperparameters\.cutout .* 9 .* folder .* 8\b"):
        prepare_assets(study, settings, device="cpu", progress=progress)
