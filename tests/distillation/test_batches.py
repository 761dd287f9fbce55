"""Images, maps and logits stay on top of each other: every number says which image and which pixel it came from."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from igkd_hpo.distillation.batches import Batch, EpochPlan, TrainingData, draw_plan, make_batch, raw_maps
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.overlay import normalize_maps
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import CachedLogits, OnlineLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import Boxes, ShiftedCrops

N, SIZE, PADDING, STRENGTH = 45, 6, 2, 0.5
VIEWS = ShiftedCrops(padding=PADDING, mirrored=True)
FEW = ShiftedCrops(padding=1, mirrored=True)


@pytest.fixture
def coded() -> TrainingData:
    """Red is the image's row, green the pixel's height and blue its width, all counted from 1; 0 is padding."""
    row = torch.arange(1, N + 1)[:, None, None].expand(N, SIZE, SIZE)
    y = torch.arange(1, SIZE + 1)[None, :, None].expand(N, SIZE, SIZE)
    x = torch.arange(1, SIZE + 1)[None, None, :].expand(N, SIZE, SIZE)
    maps = torch.rand(N, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) + 0.01
    images = torch.stack([row, y, x], dim=1).to(torch.uint8)
    return TrainingData(
        images=images,
        labels=torch.arange(N),
        maps=maps.half(),
        validation_images=images[:2],
        validation_labels=torch.arange(2),
    )


@pytest.fixture
def table() -> Tensor:
    """The logits of image i in view v are (i, v)."""
    rows, views = torch.meshgrid(torch.arange(N), torch.arange(VIEWS.count), indexing="ij")
    return torch.stack([rows, views], dim=2).half()


@pytest.fixture
def plan(recipe: Callable[..., Recipe]) -> EpochPlan:
    used = recipe(batch_size=16, crop_padding=PADDING, overlay_strength=STRENGTH, overlay_probability=0.5)
    return draw_plan(used, VIEWS, N, epoch=1)


def assert_aligned(data: TrainingData, batch: Batch, exponents: Tensor, logits: Tensor) -> None:
    """Read row and place out of the clean pixels alone, and compare everything else with what belongs there."""
    assert data.maps is not None
    assert batch.maps is not None
    codes = (batch.pixels * 255).round().long()
    for j, code in enumerate(codes):
        inside = code[0] > 0
        (row,) = set((code[0][inside] - 1).tolist())
        y, x = code[1][inside] - 1, code[2][inside] - 1
        assert batch.rows[j] == batch.labels[j] == row
        expected = torch.zeros(SIZE, SIZE)
        expected[inside] = normalize_maps(data.maps[row : row + 1], exponents[j : j + 1])[0][y, x]
        assert torch.equal(batch.maps[j], expected)
        at_y, at_x = (index[0] for index in inside.nonzero(as_tuple=True))
        flipped = x[1] < x[0]
        dy = y[0] - at_y + PADDING
        dx = x[0] - (SIZE - 1 - at_x if flipped else at_x) + PADDING
        assert logits[j].tolist() == [row, int((flipped * 5 + dy) * 5 + dx)]


def test_every_batch_of_an_epoch_is_aligned(coded: TrainingData, plan: EpochPlan, table: Tensor) -> None:
    teaching = CachedLogits(table, VIEWS.count)
    seen = []
    for step in range(len(plan.rows)):
        batch = make_batch(coded, VIEWS, plan, step, torch.channels_last)
        logits = teaching.logits(batch.rows, batch.numbers, batch.pixels)
        assert_aligned(coded, batch, plan.exponents[step], logits)
        seen += batch.rows.tolist()
    assert sorted(seen[:N]) == list(range(N))
    assert seen[N:] == seen[: len(seen) - N]
    assert len((plan.numbers % (VIEWS.count // 2)).unique()) > 15
    assert len((plan.numbers // (VIEWS.count // 2)).unique()) == 2


def test_the_check_sees_every_kind_of_misalignment(coded: TrainingData, plan: EpochPlan, table: Tensor) -> None:
    batch = make_batch(coded, VIEWS, plan, 0, torch.channels_last)
    teaching = CachedLogits(table, VIEWS.count)
    logits = teaching.logits(batch.rows, batch.numbers, batch.pixels)
    exponents = plan.exponents[0]
    assert coded.maps is not None
    assert batch.maps is not None
    shuffled_maps = make_batch(replace(coded, maps=coded.maps.roll(1, 0)), VIEWS, plan, 0, torch.channels_last)
    shuffled_logits = CachedLogits(table.roll(1, 0), VIEWS.count).logits(batch.rows, batch.numbers, batch.pixels)
    uncropped = batch._replace(maps=normalize_maps(coded.maps[batch.rows], exponents))
    flipped = batch.numbers >= VIEWS.count // 2
    unflipped = batch._replace(maps=torch.where(flipped[:, None, None], batch.maps.flip(2), batch.maps))
    one_view = teaching.logits(batch.rows, VIEWS.with_flip(batch.numbers, ~flipped), batch.pixels)
    assert_aligned(coded, batch, exponents, logits)
    for wrong_batch, wrong_logits in (
        (shuffled_maps, logits),
        (uncropped, logits),
        (unflipped, logits),
        (batch, shuffled_logits),
        (batch, one_view),
    ):
        with pytest.raises(AssertionError):
            assert_aligned(coded, wrong_batch, exponents, wrong_logits)


def test_the_chosen_share_is_overlaid_and_the_rest_is_untouched(coded: TrainingData, plan: EpochPlan) -> None:
    overlaid = 0
    for step in range(len(plan.rows)):
        batch = make_batch(coded, VIEWS, plan, step, torch.contiguous_format)
        assert batch.maps is not None
        chosen = plan.strengths[step] > 0
        assert torch.equal(batch.overlaid[~chosen], batch.pixels[~chosen])
        blended = (1 - STRENGTH) * batch.pixels[chosen] + STRENGTH * batch.maps[chosen][:, None]
        torch.testing.assert_close(batch.overlaid[chosen], blended)
        overlaid += int(chosen.sum())
    assert 0.25 < overlaid / plan.rows.numel() < 0.75


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_pixels_come_in_the_memory_format_asked_for(
    coded: TrainingData, plan: EpochPlan, memory_format: torch.memory_format
) -> None:
    batch = make_batch(coded, VIEWS, plan, 0, memory_format)
    assert batch.pixels.is_contiguous(memory_format=memory_format)
    assert batch.overlaid.is_contiguous(memory_format=memory_format)


def test_student_sees_the_overlaid_view_and_teacher_the_clean_one(
    coded: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.batches: list[Tensor] = []

        def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
            self.batches.append(pixels)
            return torch.zeros(len(rows), 3)

    teacher, student_batches = Recorder(), []
    network = tiny_network().eval()
    network.register_forward_pre_hook(lambda module, inputs: student_batches.append((module.training, inputs[0])))
    used = recipe(epochs=1, batch_size=16, crop_padding=PADDING, overlay_probability=1.0, overlay_strength=STRENGTH)
    data = replace(coded, labels=coded.labels % 3, validation_labels=coded.validation_labels % 3)
    next(Training(network, data, used, device=torch.device("cpu"), teaching=teacher).epochs())
    plan = draw_plan(used, VIEWS, N, epoch=1)
    trained_on = [pixels for training, pixels in student_batches if training]
    assert len(trained_on) == len(teacher.batches) == 3
    for step in range(3):
        expected = make_batch(data, VIEWS, plan, step, torch.channels_last)
        assert torch.equal(teacher.batches[step], expected.pixels)
        assert torch.equal(trained_on[step], expected.overlaid)
        assert not torch.equal(expected.pixels, expected.overlaid)


def test_one_step_of_a_plan_can_be_taken_out_and_overwritten_with_another(
    coded: TrainingData, recipe: Callable[..., Recipe]
) -> None:
    used = recipe(batch_size=16, cutout=2, mixup=0.4, cutmix=0.4, color_jitter=0.5)
    plan = draw_plan(used, VIEWS, N, epoch=1)
    one = plan.only(0)
    for step in (0, 2):
        one.copy_step(plan, step)
        found, expected = (
            make_batch(coded, VIEWS, one, 0, torch.channels_last),
            make_batch(coded, VIEWS, plan, step, torch.channels_last),
        )
        assert torch.equal(found.rows, expected.rows)
        assert torch.equal(found.pixels, expected.pixels)
        assert torch.equal(found.overlaid, expected.overlaid)
    assert not torch.equal(plan.rows[0], plan.rows[2]), "the plan itself is as it was"


def test_a_plan_fills_the_last_step_and_depends_on_seed_and_epoch_alone(recipe: Callable[..., Recipe]) -> None:
    plan = draw_plan(recipe(batch_size=32), FEW, 70, epoch=2)
    again = draw_plan(recipe(batch_size=32), FEW, 70, epoch=2)
    assert plan.rows.shape == (3, 32)
    assert torch.equal(plan.rows, again.rows)
    assert torch.equal(plan.exponents, again.exponents)
    assert not torch.equal(plan.rows, draw_plan(recipe(batch_size=32), FEW, 70, epoch=3).rows)
    assert not torch.equal(plan.rows, draw_plan(recipe(batch_size=32, seed=4), FEW, 70, epoch=2).rows)
    assert 1 <= plan.exponents.min() < plan.exponents.max() <= 2
    assert draw_plan(recipe(batch_size=128), FEW, 70, epoch=1).rows.shape == (1, 70)


def test_overlays_change_neither_order_nor_views(recipe: Callable[..., Recipe]) -> None:
    with_overlays, without = (draw_plan(recipe(overlay_probability=p), FEW, 70, epoch=1) for p in (0.3, 0.0))
    assert torch.equal(with_overlays.rows, without.rows)
    assert torch.equal(with_overlays.numbers, without.numbers)
    assert without.strengths.max() == 0


def test_a_table_with_another_number_of_views_is_refused(table: Tensor) -> None:
    with pytest.raises(ValueError, match=r" 50 .* 18"):
        CachedLogits(table, 18)


def test_online_logits_come_in_batches_of_64_rounded_to_float16(
    tiny_network: Callable[[], Network], plan: EpochPlan
) -> None:
    network = tiny_network()
    sizes: list[int] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    pixels = torch.rand(70, 3, 8, 8)
    logits = OnlineLogits(network).logits(torch.arange(70), plan.numbers, pixels)
    hook.remove()
    assert sizes == [64, 64]
    with torch.no_grad():
        exact = network.eval()(pixels)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits.half().float())
    torch.testing.assert_close(logits, exact, rtol=1e-3, atol=1e-3)


def test_cutout_takes_one_square_of_what_the_student_sees_and_of_nothing_else(
    coded: TrainingData, recipe: Callable[..., Recipe]
) -> None:
    used = recipe(batch_size=45, crop_padding=PADDING, cutout=2, overlay_probability=0.5)
    plan, plain = (draw_plan(replace(used, cutout=side), VIEWS, N, epoch=1) for side in (2, 0))
    batch, uncut = (make_batch(coded, VIEWS, some, 0, torch.channels_last) for some in (plan, plain))
    assert torch.equal(batch.pixels, uncut.pixels)
    assert batch.maps is not None
    assert uncut.maps is not None
    assert torch.equal(batch.maps, uncut.maps)
    mean = uncut.overlaid.mean(dim=(2, 3), keepdim=True).expand_as(uncut.overlaid)
    corners = set()
    for j in range(N):
        rows, columns = (batch.overlaid[j] != uncut.overlaid[j]).any(dim=0).nonzero().T
        top, left = int(rows.min()), int(columns.min())
        cut = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        cut[top : top + 2, left : left + 2] = True
        expected = torch.where(cut, mean[j], uncut.overlaid[j])
        assert torch.equal(batch.overlaid[j], expected)
        corners.add((top, left))
    assert len(corners) > 12
    assert {place for corner in corners for place in corner} == set(range(SIZE - 1))


def test_what_is_drawn_for_cutout_and_flips_changes_nothing_else(recipe: Callable[..., Recipe]) -> None:
    plain, *others = (
        draw_plan(recipe(**changes), FEW, 70, epoch=1)
        for changes in (
            {},
            {"cutout": 3},
            {"flip": "alternating"},
            {"mixup": 0.5, "cutmix": 0.2},
            {"color_jitter": 0.3},
            {"rand_augment": 9},
        )
    )
    for other in others:
        for name in ("rows", "strengths", "exponents"):
            assert torch.equal(getattr(other, name), getattr(plain, name))
        assert torch.equal(other.numbers % 9, plain.numbers % 9)
    for same in (others[0], *others[2:]):
        assert torch.equal(same.numbers, plain.numbers)
    assert plain.holes is plain.mixtures is plain.colors is None
    assert plain.overlay_mode == "blend"


def test_alternating_flips_mirror_each_image_in_every_second_epoch(recipe: Callable[..., Recipe]) -> None:
    used = recipe(flip="alternating", batch_size=35)
    mirrored = torch.zeros(4, 70, dtype=torch.bool)
    for epoch in range(1, 5):
        plan = draw_plan(used, FEW, 70, epoch=epoch)
        mirrored[epoch - 1, plan.rows] = plan.numbers >= 9
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert torch.equal(mirrored[1], mirrored[3])
    assert 20 < mirrored[0].sum() < 50
    unmirrored = ShiftedCrops(padding=1, mirrored=False)
    assert draw_plan(replace(used, horizontal_flip=False), unmirrored, 70, epoch=1).numbers.max() < 9
    other = draw_plan(replace(used, seed=4), FEW, 70, epoch=1)
    assert not torch.equal(
        torch.zeros(70, dtype=torch.bool).scatter(0, other.rows[0], other.numbers[0] >= 9), mirrored[0]
    )


def test_maps_as_they_were_made_follow_their_image_too(coded: TrainingData, plan: EpochPlan) -> None:
    """For attribution matching: no exponent, no stretching; where each map is its image's red, they stay alike."""
    as_maps = replace(coded, maps=coded.images[:, 0].half())
    batch = make_batch(as_maps, VIEWS, plan, 1, torch.channels_last)
    torch.testing.assert_close(raw_maps(as_maps, VIEWS, batch), batch.pixels[:, 0] * 255)
    fixed = replace(as_maps, maps_follow_views=False)
    assert torch.equal(raw_maps(fixed, VIEWS, batch), coded.images[batch.rows, 0].float())


def test_maps_are_kept_for_attribution_matching_without_overlays(
    coded: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    cpu = torch.device("cpu")
    for weight in (0.0, 1.0):
        used = recipe(overlay_probability=0.0, alpha=0.0, attribution_weight=weight)
        training = Training(tiny_network(), coded, used, device=cpu, teaching=None)
        assert (training.data.maps is not None) == (weight > 0)


class OfBoxes:
    """Images of 32x32 whose red is their row, green and blue the place of a pixel; maps are their green."""

    def __init__(self, recipe: Recipe) -> None:
        place = torch.arange(32) * 8
        red = torch.arange(1, N + 1)[:, None, None].expand(N, 32, 32)
        images = torch.stack([red, place[:, None].expand_as(red), place.expand_as(red)], dim=1).to(torch.uint8)
        self.data = TrainingData(
            images=images,
            labels=torch.arange(N),
            maps=images[:, 1].float(),
            validation_images=images[:2],
            validation_labels=torch.arange(2),
            digests=torch.randint(2**62, (N,), generator=torch.Generator().manual_seed(4)),
        )
        self.views = Boxes.draw(self.data.digests, 6, (0.3, 0.6), mirrored=True)
        self.plan = draw_plan(recipe, self.views, N, epoch=1)
        rows, numbers = torch.meshgrid(torch.arange(N), torch.arange(6), indexing="ij")
        self.table = torch.stack([rows, numbers], dim=2).half()

    def assert_aligned(self, batch: Batch, maps: Tensor, logits: Tensor) -> None:
        """Read row and box out of the clean pixels, and compare everything else with what belongs there."""
        pixels = batch.pixels * 255
        rows = (pixels[:, 0].mean(dim=(1, 2)) - 1).round().long()
        assert torch.equal(rows, batch.labels)
        assert torch.equal(rows, logits[:, 0].long())
        torch.testing.assert_close(maps, pixels[:, 1], atol=1e-2, rtol=0)
        top, left, height, width = self.views.corners[rows, logits[:, 1].long()].unbind(1)
        middle_row, middle_column = pixels[:, 1].mean(dim=(1, 2)) / 256, pixels[:, 2].mean(dim=(1, 2)) / 256
        torch.testing.assert_close(middle_row, top + height / 2 - 1 / 64, atol=2e-3, rtol=0)
        torch.testing.assert_close(middle_column, left + width / 2 - 1 / 64, atol=2e-3, rtol=0)
        mirrored = pixels[:, 2, 0, 0] > pixels[:, 2, 0, -1]
        assert torch.equal(mirrored, self.views.flips[rows, logits[:, 1].long()])


def test_boxes_maps_and_logits_are_aligned_and_the_check_sees_where_they_are_not(
    recipe: Callable[..., Recipe],
) -> None:
    of = OfBoxes(recipe(batch_size=16, crop_padding=0, views=6, scale=(0.3, 0.6)))
    teaching = CachedLogits(of.table, 6)
    for step in range(len(of.plan.rows)):
        batch = make_batch(of.data, of.views, of.plan, step, torch.channels_last)
        maps = raw_maps(of.data, of.views, batch)
        logits = teaching.logits(batch.rows, batch.numbers, batch.pixels)
        of.assert_aligned(batch, maps, logits)
        shifted = batch._replace(rows=batch.rows.roll(1))
        for wrong_maps, wrong_logits in (
            (maps.flip(2), logits.roll(1, 0)),
            (maps, teaching.logits(batch.rows, (batch.numbers + 1) % 6, batch.pixels)),
            (raw_maps(of.data, of.views, shifted), logits),
            (raw_maps(of.data, of.views, batch._replace(numbers=(batch.numbers + 1) % 6)), logits),
            (raw_maps(replace(of.data, maps_follow_views=False), of.views, batch), logits),
        ):
            with pytest.raises(AssertionError):
                of.assert_aligned(batch, wrong_maps, wrong_logits)
    assert len(of.plan.numbers.unique()) == 6


def test_boxes_train_and_resume_bit_for_bit(
    recipe: Callable[..., Recipe], tiny_network: Callable[[], Network], data: TrainingData
) -> None:
    used = recipe(crop_padding=0, views=4, scale=(0.4, 1.0), epochs=2, learning_rate=0.02)
    given = replace(data, digests=torch.arange(70) * 977)
    teaching = CachedLogits(torch.randn(70, 4, 3, generator=torch.Generator().manual_seed(2)).half(), 4)

    def make() -> Training:
        return Training(tiny_network(), given, used, device=torch.device("cpu"), teaching=teaching)

    straight, first, second = make(), make(), make()
    expected = [metrics.train_loss for metrics in straight.epochs()]
    next(first.epochs())
    second.load_state_dict(first.state_dict())
    assert [metrics.train_loss for metrics in second.epochs()] == expected[1:]
    assert all(map(torch.equal, straight.network.parameters(), second.network.parameters()))
