"""Images that are read ahead of each step train as those that are all there do, bit for bit, and leave no thread."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from igkd_hpo.distillation import streaming, training
from igkd_hpo.distillation.batches import Samples, TrainingData, draw_plan
from igkd_hpo.distillation.images import Chosen, Images, bring, choose
from igkd_hpo.distillation.models import Network
from igkd_hpo.distillation.recipe import Recipe
from igkd_hpo.distillation.step_graph import NotCaptured
from igkd_hpo.distillation.streaming import is_streamed, read_ahead
from igkd_hpo.distillation.teaching import OnlineLogits
from igkd_hpo.distillation.training import Training

CPU = torch.device("cpu")


class Broken(Chosen):
    """Images of which one cannot be read."""

    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor:
        if 5 in self.rows[rows]:
            raise OSError("the disk is gone")
        return super().__getitem__(rows)


def from_elsewhere(images: Tensor) -> Images:
    return Chosen(images, torch.arange(len(images)))


@pytest.fixture
def resident(data: TrainingData) -> TrainingData:
    """With what a teacher sees at its own size too."""
    assert isinstance(data.images, Tensor)
    return replace(data, shown_images=data.images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


@pytest.fixture
def streamed(resident: TrainingData) -> TrainingData:
    """The same images, which must be read when they are wanted."""
    parts = ("images", "validation_images", "shown_images")
    return replace(resident, **{part: from_elsewhere(getattr(resident, part)) for part in parts})


@pytest.fixture
def make(tiny_network: Callable[[], Network], recipe: Callable[..., Recipe]) -> Callable[..., Training]:
    def make(data: TrainingData, **changes: object) -> Training:
        teacher = OnlineLogits(tiny_network().eval())
        used = recipe(**{"epochs": 2, "learning_rate": 0.02, **changes})
        return Training(tiny_network(), data, used, device=CPU, teaching=teacher)

    return make


def results(trained: Training) -> list[Tensor]:
    """The losses and accuracies of all epochs, and then the weights."""
    numbers = [(m.train_loss, m.validation_loss, m.validation_accuracy) for m in trained.epochs()]
    return [torch.tensor(numbers), *trained.network.state_dict().values()]


def same(one: Training, other: Training) -> bool:
    return all(map(torch.equal, results(one), results(other)))


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": 0.5, "cutout": 3, "color_jitter": 0.2},
        {"attribution_weight": 0.1},
        {"alignment": "reference_shuffled"},
        {"alignment": "permuted_maps"},
    ],
)
def test_losses_and_weights_are_those_of_images_that_are_there(
    make: Callable[..., Training], resident: TrainingData, streamed: TrainingData, changes: dict[str, object]
) -> None:
    assert is_streamed(streamed, CPU)
    assert not is_streamed(resident, CPU)
    assert same(make(streamed, **changes), make(resident, **changes))
    assert not readers()


@pytest.mark.parametrize("wrong", ["row", "batch", "map", "shown"])
def test_a_shifted_row_and_a_swapped_batch_would_be_seen(
    make: Callable[..., Training],
    resident: TrainingData,
    streamed: TrainingData,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = training.read_samples

    def read(data: TrainingData, rows: Tensor) -> Samples:
        samples = right(data, rows)
        other = right(data, rows.roll(1))
        match wrong:
            case "row":
                return samples._replace(images=other.images)
            case "map":
                return samples._replace(maps=other.maps)
            case "shown":
                return samples._replace(shown=other.shown)
        return samples

    monkeypatch.setattr(training, "read_samples", read)
    if wrong == "batch":
        ahead = training.read_ahead
        monkeypatch.setattr(
            training, "read_ahead", lambda read, batches, device: ahead(read, list(batches)[::-1], device)
        )
    assert not same(make(streamed), make(resident))


def test_it_resumes_bit_for_bit(make: Callable[..., Training], streamed: TrainingData) -> None:
    straight, first, second = make(streamed), make(streamed), make(streamed)
    expected = results(straight)
    next(first.epochs())
    second.load_state_dict(first.state_dict())
    assert [metrics.epoch for metrics in second.epochs()] == [2]
    assert all(map(torch.equal, expected[1:], second.network.state_dict().values()))


@pytest.mark.parametrize("part", ["images", "validation_images"])
def test_what_the_thread_raises_reaches_the_step_and_no_thread_is_left(
    make: Callable[..., Training], streamed: TrainingData, part: str
) -> None:
    images = getattr(streamed, part)
    with pytest.raises(OSError, match="the disk is gone"):
        list(make(replace(streamed, **{part: Broken(images.images, images.rows)})).epochs())
    assert not readers()


def test_a_step_that_is_interrupted_leaves_no_thread(
    make: Callable[..., Training], streamed: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make(streamed, batch_size=4)
    seen: list[str] = []

    def interrupt(*_: object) -> Tensor:
        seen.extend(readers())
        raise KeyboardInterrupt

    monkeypatch.setattr(nn.Conv2d, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(trained.epochs())
    assert seen == ["read-ahead"]
    assert not readers()


def test_two_batches_are_read_before_they_are_wanted_and_no_more() -> None:
    begun, second = [], threading.Event()

    def read(rows: Tensor) -> Samples:
        begun.append(int(rows[0]))
        if len(begun) == 2:
            second.set()
        return Samples(rows)

    with read_ahead(read, torch.split(torch.arange(40), 2), CPU) as samples:
        assert second.wait(60)
        assert begun == [0, 2]
        assert [int(batch.images[0]) for batch in samples] == list(range(0, 40, 2))
    assert begun == list(range(0, 40, 2))


def test_who_leaves_waits_for_the_batch_that_is_being_read() -> None:
    begun = threading.Event()

    def read(rows: Tensor) -> Samples:
        begun.set()
        return Samples(torch.rand(20_000_000).sort().values)  # a second or so

    with read_ahead(read, torch.split(torch.arange(40), 2), CPU):
        assert begun.wait(60)
    assert not readers()


def test_there_is_no_graph_of_steps_that_are_read_ahead(make: Callable[..., Training], streamed: TrainingData) -> None:
    assert make(streamed, compile="auto").compile == "none"
    with pytest.raises(NotCaptured):
        make(streamed, compile="cuda_graph")


def test_some_images_of_a_store_are_read_from_it_when_they_are_wanted(data: TrainingData) -> None:
    assert isinstance(data.images, Tensor)
    rows = torch.tensor([7, 3, 60])
    some = choose(from_elsewhere(data.images), rows)
    assert isinstance(some, Chosen)
    assert (len(some), some.shape) == (3, (3, 3, 8, 8))
    assert torch.equal(some[1:], data.images[rows[1:]])
    assert torch.equal(some[2], data.images[60])
    assert torch.equal(bring(some, CPU), data.images[rows])
    assert isinstance(choose(data.images, rows), Tensor)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_that_is_too_small_they_are_read_ahead_and_are_the_same(
    resident: TrainingData, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, used = torch.device("cuda", 0), recipe(batch_size=16)
    plan = draw_plan(used, training.make_views(used, None), 70, epoch=1)
    whole = streaming.place(resident, device)
    monkeypatch.setattr(streaming, "_SHARE", 0.0)
    apart = streaming.place(resident, device)
    with read_ahead(lambda rows: training.read_samples(apart, rows), plan.rows, device) as samples:
        for rows, read in zip(plan.rows.to(device), samples, strict=True):
            expected = training.read_samples(whole, rows)
            for mine, other in zip(read, expected, strict=True):
                assert mine is not None
                assert other is not None
                assert mine.device == device
                assert torch.equal(mine, other)
