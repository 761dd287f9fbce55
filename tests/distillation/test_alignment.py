"""Each mode gives each image the knowledge it says: the images' and maps' numbers tell whose they are."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from igkd_hpo.distillation.alignment import ShuffledLogits, StandIns, align_maps
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.batches import LOGITS, TrainingData, draw_plan, fixed_seed, make_batch
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.overlay import normalize_maps
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.teaching import CachedLogits, OnlineLogits
from igkd_hpo.distillation.training import Training
from igkd_hpo.distillation.views import ShiftedCrops

CPU = torch.device("cpu")
N, SIZE, PADDING = 60, 8, 2
VIEWS = ShiftedCrops(padding=PADDING, mirrored=True)
FEW = ShiftedCrops(padding=1, mirrored=True)
CONTROLS = ["reference_shuffled", "permuted_maps", "smooth_noise", "mean_map"]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def align(maps: Tensor, mode: str, seed: int = 0) -> tuple[Tensor, bool]:
    return align_maps(maps, mode, generator=drawn(seed), views=VIEWS)


@pytest.fixture
def maps() -> Tensor:
    """Smooth maps with a peak in each; the values are all different, so a crop of one is found again."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    centres = (0.25 + 0.5 * torch.rand(N, 2, generator=drawn(1))) * SIZE  # noise wraps around; no peak is cut
    distance = (y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return (-distance / 6).exp() + 0.05 * torch.rand(N, SIZE, SIZE, generator=drawn(2))


def test_aligned_is_the_maps_themselves(maps: Tensor) -> None:
    assert align(maps, "aligned") == (maps, True)


def test_permuted_maps_are_whole_and_almost_all_of_another_image(maps: Tensor) -> None:
    result, follows = align(maps, "permuted_maps")
    owner = (result[:, None] == maps[None]).all(dim=(2, 3)).int().argmax(dim=1)
    assert follows
    assert torch.equal(result, maps[owner])
    assert sorted(owner.tolist()) == list(range(N))
    assert (owner == torch.arange(N)).sum() < 6


def test_shuffled_maps_are_another_images_in_one_crop_and_flip_of_their_own(maps: Tensor) -> None:
    result, follows = align(maps, "reference_shuffled")
    assert not follows
    numbers = torch.arange(VIEWS.count)
    found = []
    for stored in result:
        matches = [
            (row, int(view))
            for row in range(N)
            for view in (VIEWS.cut(maps[row].expand(VIEWS.count, 1, SIZE, SIZE), numbers, numbers)[:, 0] == stored)
            .all(dim=(1, 2))
            .nonzero()
        ]
        assert len(matches) == 1
        found += matches
    rows, views = zip(*found, strict=True)
    assert sorted(rows) == list(range(N))
    assert sum(row == image for image, row in enumerate(rows)) < 6
    assert len(set(views)) > 15


def test_noise_has_the_maps_own_values_and_smoothness_and_nothing_of_their_places(maps: Tensor) -> None:
    result, follows = align(maps.half(), "smooth_noise")
    assert follows
    assert result.dtype == torch.float16
    assert torch.equal(result.flatten(1).sort().values, maps.half().flatten(1).sort().values)

    def centred(some: Tensor) -> Tensor:
        flat = some.float().flatten(1)
        return (flat - flat.mean(1, keepdim=True)).reshape(-1, SIZE, SIZE)

    def neighbours(some: Tensor) -> float:  # correlation of each pixel with the one to its right
        return float((some[:, :, 1:] * some[:, :, :-1]).mean() / some.square().mean())

    real, noise = centred(maps), centred(result)
    white = centred(torch.rand(N, SIZE, SIZE, generator=drawn(3)))
    assert neighbours(noise) == pytest.approx(neighbours(real), abs=0.15)
    assert neighbours(white) < 0.1
    assert neighbours(real) > 0.5
    agreement = (real * noise).mean(dim=(1, 2)) / (real.square().mean((1, 2)) * noise.square().mean((1, 2))).sqrt()
    assert abs(float(agreement.mean())) < 0.15


def test_the_mean_map_is_every_images(maps: Tensor) -> None:
    result, follows = align(maps, "mean_map")
    assert follows
    assert result.shape == maps.shape
    torch.testing.assert_close(result, maps.mean(0).expand(N, SIZE, SIZE))


@pytest.mark.parametrize("mode", ["reference_shuffled", "permuted_maps", "smooth_noise"])
def test_the_seed_decides(mode: str, maps: Tensor) -> None:
    assert torch.equal(align(maps, mode)[0], align(maps, mode)[0])
    assert not torch.equal(align(maps, mode)[0], align(maps, mode, seed=1)[0])


def test_another_word_is_refused(maps: Tensor) -> None:
    with pytest.raises(ValueError, match=r"alignment .*'shifted'.* aligned, reference_shuffled"):
        align(maps, "shifted")


def of_images(images: Tensor) -> TrainingData:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return TrainingData(
        images=images, labels=labels, maps=None, validation_images=images[:2], validation_labels=labels[:2]
    )


class Telling:
    """Stands in for a teacher: the logits are the image's number and its view's, as read from rows and from pixels."""

    def logits(self, rows: Tensor, numbers: Tensor, pixels: Tensor) -> Tensor:
        image = (pixels[:, 0].amax(dim=(1, 2)) * 255).round() - 1
        return torch.stack([rows.float(), numbers.float(), image], dim=1)


def test_shuffled_logits_are_of_one_view_of_another_image_whatever_the_students_view() -> None:
    images = torch.arange(1, N + 1, dtype=torch.uint8)[:, None, None, None].expand(N, 3, SIZE, SIZE)
    stand_ins = StandIns(of_images(images), generator=drawn(), views=VIEWS)
    shuffled = ShuffledLogits(Telling(), stand_ins)
    rows = torch.randperm(N, generator=drawn(5))
    answers = []
    for view in (0, 7):
        answers.append(shuffled.logits(rows, torch.full((N,), view), torch.zeros(N, 3, SIZE, SIZE)))
    assert torch.equal(*answers)
    told, seen_views, seen_images = answers[0].T
    assert torch.equal(told, seen_images)
    assert sorted(told.tolist()) == list(range(N))
    assert (told == rows).sum() < 6
    assert len(seen_views.unique()) > 15


def test_shuffled_logits_and_maps_come_from_independent_permutations(
    data: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    coded = replace(data, maps=torch.rand(70, 8, 8, generator=drawn()))
    used = recipe(alignment="reference_shuffled", crop_padding=0, horizontal_flip=False)
    teaching = CachedLogits(torch.zeros(70, 1, 3).half(), 1)
    training = Training(tiny_network(), coded, used, device=CPU, teaching=teaching)
    assert isinstance(training.teaching, ShuffledLogits)
    assert training.data.maps is not None
    assert coded.maps is not None
    owner = (training.data.maps[:, None] == coded.maps[None]).all(dim=(2, 3)).int().argmax(dim=1)
    assert sorted(owner.tolist()) == list(range(70))
    assert (owner == training.teaching.stand_ins.others).sum() < 6


def test_a_shuffled_map_does_not_move_with_the_view_and_the_others_do(
    data: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    for mode in ("aligned", *CONTROLS):
        used = recipe(alignment=mode, alpha=0.0)
        training = Training(tiny_network(), data, used, device=CPU, teaching=None)
        plan = draw_plan(used, FEW, 70, epoch=1)
        batch = make_batch(training.data, FEW, plan, 0, torch.contiguous_format)
        assert training.data.maps is not None
        whole = normalize_maps(training.data.maps[plan.rows[0]], plan.exponents[0])
        moved = FEW.cut(whole[:, None], plan.rows[0], plan.numbers[0])[:, 0]
        assert batch.maps is not None
        assert torch.equal(batch.maps, whole if mode == "reference_shuffled" else moved), mode
        assert not torch.equal(whole, moved)


def run(training: Training) -> Tensor:
    list(training.epochs())
    return torch.cat([value.flatten().double() for value in training.network.body.state_dict().values()])


def test_shuffled_online_and_cached_logits_train_the_same_bit_for_bit(
    data: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    online = OnlineLogits(tiny_network().eval())
    numbers = torch.arange(FEW.count)
    rows = [
        online.logits(numbers, numbers, FEW.cut(image.expand(18, 3, 8, 8), numbers, numbers).float() / 255)
        for image in data.images
    ]
    cached = CachedLogits(torch.stack(rows).half(), FEW.count)
    used = recipe(alignment="reference_shuffled", epochs=2)
    results = [run(Training(tiny_network(), data, used, device=CPU, teaching=each)) for each in (online, cached)]
    assert torch.equal(*results)
    aligned = run(Training(tiny_network(), data, recipe(epochs=2), device=CPU, teaching=cached))
    assert not torch.equal(aligned, results[0])


@pytest.mark.parametrize("mode", ["reference_shuffled", "smooth_noise"])
def test_a_control_resumes_bit_for_bit(
    mode: str, data: TrainingData, recipe: Callable[..., Recipe], tiny_network: Callable[[], Network]
) -> None:
    table = torch.randn(70, FEW.count, 3, generator=drawn(2)).half()

    def make() -> Training:
        used = recipe(alignment=mode, epochs=2, learning_rate=0.02)
        return Training(tiny_network(), data, used, device=CPU, teaching=CachedLogits(table, FEW.count))

    first, second = make(), make()
    next(first.epochs())
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(second), run(make()))


def test_shuffled_features_are_of_the_images_that_stand_in_as_the_logits_are(
    data: TrainingData, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def network() -> Network:
        return Network(mobilenet_v2(num_classes=3, width=0.1, layers_removed=14), [0.5] * 3, [0.3] * 3)

    used = recipe(alignment="reference_shuffled", attention_weight=1.0, epochs=1, batch_size=70)
    teaching = CachedLogits(torch.zeros(70, FEW.count, 3).half(), FEW.count)
    training = Training(network(), data, used, device=CPU, teaching=teaching, teacher=network().eval())
    assert training.features is not None
    asked = []
    ask_teacher = training.features.ask_teacher

    def recorded(pixels: Tensor, *, logits: bool) -> object:
        asked.append((pixels, logits))
        return ask_teacher(pixels, logits=logits)

    monkeypatch.setattr(training.features, "ask_teacher", recorded)
    next(training.epochs())
    ((pixels, logits),) = asked
    assert not logits  # they come from the teaching, of the same images
    assert isinstance(training.teaching, ShuffledLogits)
    expected = StandIns(
        data,
        generator=torch.Generator().manual_seed(fixed_seed(used.seed, LOGITS)),
        views=FEW,
    )
    assert torch.equal(training.teaching.stand_ins.others, expected.others)
    assert torch.equal(pixels, expected.of(draw_plan(used, FEW, 70, epoch=1).rows[0])[2])
