"""Mixtures stay on top of each other: pixels, maps, labels and what the teacher is asked have the same shares."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igkd_hpo.distillation.batches import Batch, TrainingData, draw_plan, make_batch, raw_maps, shown_pixels, shown_view
from igkd_hpo.distillation.losses import distillation_loss
from igkd_hpo.distillation.mixing import Company, MixturePlan, Mixtures, NumberedMixtures, draw_mixtures
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import CachedLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import Boxes, ShiftedCrops, make_views

N, SIZE = 60, 10
VIEWS = ShiftedCrops(padding=0, mirrored=False)
MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def coded() -> TrainingData:
    """Every pixel of image i is i + 1, and every place of its map i + 1 too."""
    images = torch.arange(1, N + 1, dtype=torch.uint8)[:, None, None, None].expand(N, 3, SIZE, SIZE)
    return TrainingData(
        images=images,
        labels=torch.arange(N) % 3,
        maps=images[:, 0].float(),
        validation_images=images[:2],
        validation_labels=torch.arange(2),
    )


def mixed_batch(data: TrainingData, used: Recipe) -> Batch:
    return make_batch(data, VIEWS, draw_plan(used, VIEWS, N, epoch=1), 0, torch.contiguous_format)


def assert_aligned(batch: Batch, maps: Tensor, shares: Tensor) -> None:
    """Solve each pixel for the own image's share, from nothing but the two images' numbers."""
    pixels = batch.pixels[:, 0] * 255
    others = batch.rows.flip(0) if batch.company is None else batch.company.rows
    own, other = batch.rows + 1.0, others + 1.0
    differ = own != other  # a view may be mixed with another of the same image, which shows in no pixel here
    assert differ.sum() > len(own) / 2
    share = ((pixels - other[:, None, None]) / (own - other)[:, None, None])[differ]
    assert (share > -1e-3).all()
    assert (share < 1 + 1e-3).all()
    torch.testing.assert_close(maps, pixels, atol=1e-3, rtol=0)
    torch.testing.assert_close(shares[differ], share.mean(dim=(1, 2)), atol=1e-3, rtol=0)
    assert (shares >= 0.45).all()  # a box is rounded to whole pixels


@pytest.mark.parametrize("rates", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 0.3}])
def test_pixels_maps_and_labels_are_mixed_alike_and_the_check_sees_where_they_are_not(
    rates: dict[str, float], coded: TrainingData, recipe: MakeRecipe
) -> None:
    used = recipe(batch_size=N, crop_padding=0, horizontal_flip=False, overlay_probability=0.0, **rates)
    batch = mixed_batch(coded, used)
    assert batch.mixtures is not None
    maps, shares = raw_maps(coded, VIEWS, batch), batch.mixtures.shares
    assert_aligned(batch, maps, shares)
    for wrong_maps, wrong_shares in (
        (maps.roll(1, 0), shares),
        (raw_maps(coded, VIEWS, batch._replace(mixtures=None)), shares),
        (maps, shares.roll(1)),
        (maps, 1 - shares),
    ):
        with pytest.raises(AssertionError):
            assert_aligned(batch, wrong_maps, wrong_shares)
    blended = ((batch.mixtures.own > 0) & (batch.mixtures.own < 1)).any(dim=(1, 2, 3)).float().mean()
    boxed = (batch.mixtures.own == 0).any(dim=(1, 2, 3)).float().mean()
    assert blended == pytest.approx(rates.get("mixup", 0.0), abs=0.2)
    assert boxed == pytest.approx(rates.get("cutmix", 0.0), abs=0.2)


def test_rates_that_add_up_to_more_than_one_keep_their_proportion(recipe: MakeRecipe) -> None:
    plan = draw_mixtures(recipe(mixup=1.0, cutmix=0.5), 40, 50, torch.Generator().manual_seed(0))
    blended, boxed = plan.blends < 1, plan.sides > 0
    assert not (blended & boxed).any()
    assert blended.float().mean() == pytest.approx(2 / 3, abs=0.05)
    assert boxed.float().mean() == pytest.approx(1 / 3, abs=0.05)
    assert (plan.blends >= 0.5).all()


def test_what_is_not_mixed_is_untouched(coded: TrainingData, recipe: MakeRecipe) -> None:
    used = recipe(batch_size=N, crop_padding=0, horizontal_flip=False, mixup=0.3, cutmix=0.3)
    batch = mixed_batch(coded, used)
    plain = mixed_batch(coded, replace(used, mixup=0.0, cutmix=0.0))
    assert batch.mixtures is not None
    whole = batch.mixtures.shares == 1
    assert 0 < whole.sum() < N
    assert torch.equal(batch.pixels[whole], plain.pixels[whole])
    assert torch.equal(batch.overlaid[whole], plain.overlaid[whole])


def test_the_other_image_has_a_box_of_its_share_inside_the_image() -> None:
    plan = draw_mixtures_of(sides=[0.5, 0.0, 0.7], places=[[0.0, 0.999], [0.5, 0.5], [0.999, 0.0]])
    own = plan.own[:, 0]
    assert own[0].tolist() == [[float(not (y < 4 and x >= 3)) for x in range(6)] for y in range(8)]
    assert (own[1] == 1).all()
    assert own[2].tolist() == [[float(not (y >= 2 and x < 4)) for x in range(6)] for y in range(8)]
    assert plan.shares.tolist() == pytest.approx([1 - 12 / 48, 1, 1 - 24 / 48])


def draw_mixtures_of(*, sides: list[float], places: list[list[float]]) -> Mixtures:
    return Mixtures(MixturePlan(torch.ones(len(sides)), torch.tensor(sides), torch.tensor(places)), (8, 6))


def test_cross_entropy_takes_both_labels_by_their_shares() -> None:
    mixtures = draw_mixtures_of(sides=[0.5, 0.0, 0.7, 0.0], places=[[0.1, 0.2]] * 4)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 2])
    expected = []
    for j, share in enumerate(mixtures.shares.tolist()):
        target = share * F.one_hot(labels[j], 3) + (1 - share) * F.one_hot(labels[3 - j], 3)
        smooth = 0.9 * target + 0.1 / 3
        expected.append(float(-(smooth * logits[j].log_softmax(0)).sum()))
    options = {"temperature": 1.0, "alpha": 0.0, "label_smoothing": 0.1, "mixtures": mixtures}
    assert float(distillation_loss(logits, None, labels, **options)) == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_each_label_of_a_mixture_has_its_class_weight() -> None:
    mixtures = draw_mixtures_of(sides=[0.5, 0.0, 0.7, 0.0], places=[[0.1, 0.2]] * 4)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.tensor([0, 2, 1, 2]), torch.tensor([0.5, 2.0, 3.0])
    expected = 0.0
    for j, share in enumerate(mixtures.shares.tolist()):
        for label, part in ((labels[j], share), (labels[3 - j], 1 - share)):
            expected += part * float(weights[label] * -logits[j].log_softmax(0)[label])
    found = distillation_loss(
        logits, None, labels, temperature=1.0, alpha=0.0, mixtures=mixtures, class_weights=weights
    )
    assert float(found) == pytest.approx(expected / 4, rel=1e-5)


def test_the_teacher_is_asked_about_what_the_student_sees_mixed(
    coded: TrainingData, recipe: MakeRecipe, tiny_network: Callable[[], Network]
) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.asked: list[Tensor] = []

        def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
            self.asked.append(pixels)
            return torch.zeros(len(rows), 3)

    teacher = Recorder()
    used = recipe(
        epochs=1, batch_size=N, crop_padding=0, horizontal_flip=False, overlay_probability=0.0, mixup=1.0,
        color_jitter=0.5,
    )  # fmt: skip
    next(Training(tiny_network(), coded, used, device=torch.device("cpu"), teaching=teacher).epochs())
    batch = mixed_batch(coded, used)
    assert torch.equal(teacher.asked[0], batch.pixels)
    assert not torch.equal(batch.pixels, batch.overlaid)  # other colours are the student's alone
    assert not torch.equal(batch.pixels, mixed_batch(coded, replace(used, mixup=0.0)).pixels)


@pytest.mark.parametrize("changes", [{"mixup": 0.5}, {"cutmix": 1.0}, {"color_jitter": 0.4}, {"rand_augment": 9}])
def test_a_mixing_training_resumes_bit_for_bit(
    changes: dict[str, float], coded: TrainingData, recipe: MakeRecipe, tiny_network: Callable[[], Network]
) -> None:
    def make() -> Training:
        used = recipe(epochs=2, alpha=0.0, learning_rate=0.02, **changes)
        return Training(tiny_network(), coded, used, device=torch.device("cpu"), teaching=None)

    straight, first, second = make(), make(), make()
    expected = [metrics.train_loss for metrics in straight.epochs()]
    next(first.epochs())
    second.load_state_dict(first.state_dict())
    assert [metrics.train_loss for metrics in second.epochs()] == expected[1:]


DIGESTS = torch.randint(2**62, (N,), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def numbered(recipe: MakeRecipe) -> Recipe:
    return recipe(
        batch_size=N,
        crop_padding=0,
        horizontal_flip=True,
        views=5,
        scale=(0.4, 0.9),
        mixed=0.8,
        overlay_probability=0.0,
    )


def test_numbered_mixtures_are_so_many_and_follow_from_the_image_alone() -> None:
    digests = torch.randint(2**62, (400,), generator=torch.Generator().manual_seed(1))
    drawn = NumberedMixtures.draw(digests, 10, 0.6)
    blended, boxed = drawn.plan.blends < 1, drawn.plan.sides > 0
    assert not (blended & boxed).any()
    for kind in (blended, boxed):
        assert kind.float().mean() == pytest.approx(0.3, abs=0.03)
    assert drawn.plan.blends.min() >= 0.5
    assert drawn.plan.sides.max() < 0.5**0.5
    assert drawn.company.rows.unique().numel() == 400
    assert drawn.company.numbers.unique().tolist() == list(range(10))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    again = NumberedMixtures.draw(digests[order], 10, 0.6)
    for parts, moved in ((drawn.company, again.company), (drawn.plan, again.plan)):
        assert all(torch.equal(part[order], other) for part, other in zip(parts, moved, strict=True))


def test_boxes_are_the_same_mixed_or_not(numbered: Recipe) -> None:
    mixed, plain = (make_views(used, DIGESTS) for used in (numbered, replace(numbered, mixed=None)))
    assert isinstance(mixed, Boxes)
    assert isinstance(plain, Boxes)
    assert torch.equal(mixed.corners, plain.corners)
    assert mixed.mixed is not None
    assert plain.mixed is None


def test_a_numbered_mixture_is_aligned_and_the_check_sees_where_it_is_not(
    coded: TrainingData, numbered: Recipe
) -> None:
    """Row, view, partner and share: what a table holds of them is what the student sees, and nothing else is."""
    data = replace(coded, digests=DIGESTS, shown_images=coded.images[:, :, :8, :8])
    views = make_views(numbered, DIGESTS)
    assert views.mixed is not None
    rows = torch.arange(N).repeat_interleave(views.count)
    numbers = torch.arange(views.count).repeat(N)
    table = shown_view(data, views, rows, numbers).mean(dim=(2, 3)).reshape(N, views.count, 3)
    batch = make_batch(data, views, draw_plan(numbered, views, N, epoch=1), 0, torch.contiguous_format)
    assert batch.mixtures is not None
    assert batch.company is not None
    maps, shares = raw_maps(data, views, batch), batch.mixtures.shares
    assert_aligned(batch, maps, shares)
    assert torch.equal(batch.labels, batch.rows % 3)
    assert batch.mixtures.labels is not None
    assert torch.equal(batch.mixtures.labels, batch.company.rows % 3)

    def assert_known(batch: Batch, table: Tensor) -> None:
        seen = batch.pixels.mean(dim=(2, 3))
        known = CachedLogits(table, views.count).logits(batch.rows, batch.numbers, batch.pixels)
        torch.testing.assert_close(known, seen, atol=0.035, rtol=0)  # a box is rounded to 8 pixels there, to 10 here
        shown = shown_pixels(data, views, batch).mean(dim=(2, 3))
        torch.testing.assert_close(known, shown, atol=1e-6, rtol=0)

    assert_known(batch, table)
    others = Company(batch.company.rows.roll(1), batch.company.numbers)
    shifted = batch._replace(company=others, pixels=batch.pixels.roll(1, 0))
    for wrong_batch, wrong_table in ((batch, table.roll(1, 0)), (batch, table.roll(1, 1)), (shifted, table)):
        with pytest.raises(AssertionError):
            assert_known(wrong_batch, wrong_table)
    for wrong in (batch._replace(company=others), batch._replace(rows=batch.rows.roll(1))):
        with pytest.raises(AssertionError):
            assert_aligned(wrong, maps, shares)


def test_numbered_mixtures_resume_bit_for_bit(
    coded: TrainingData, numbered: Recipe, tiny_network: Callable[[], Network]
) -> None:
    table = torch.randn(N, 5, 3, generator=torch.Generator().manual_seed(3)).half()

    def make() -> Training:
        used = replace(numbered, batch_size=16, epochs=2, learning_rate=0.02, overlay_probability=0.5)
        data = replace(coded, digests=DIGESTS)
        return Training(tiny_network(), data, used, device=torch.device("cpu"), teaching=CachedLogits(table, 5))

    straight, first, second = make(), make(), make()
    expected = [metrics.train_loss for metrics in straight.epochs()]
    next(first.epochs())
    second.load_state_dict(first.state_dict())
    assert [metrics.train_loss for metrics in second.epochs()] == expected[1:]
