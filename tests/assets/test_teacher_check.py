"""The checks of a teacher that `prepare` makes: what it returns, what that means, and what its weights do not say."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from igkd_hpo.assets.dataset import Dataset, prepare_dataset
from igkd_hpo.assets.store import AssetStore
from igkd_hpo.assets.study_assets import prepare_assets
from igkd_hpo.assets.teacher import Teacher, open_teacher, prepare_teacher
from igkd_hpo.assets.teacher_check import choose_transform
from igkd_hpo.assets.teacher_network import teacher_request, wrap
from igkd_hpo.config.study import Study, TeacherConfig
from igkd_hpo.errors import DataError, IgkdError, TeacherError, UsageError
from igkd_hpo.settings import Settings

from .conftest import RecordingProgress, make_study

CPU = torch.device("cpu")
NETWORKS = """
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

Outputs = namedtuple("Outputs", "logits features")

class Sides(nn.Module):
    '''Class 0 where the left half is brighter, class 1 where the right half is; what it returns is up to the rest.'''

    def __init__(self, then=lambda z: z, first=lambda x: x):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.then, self.first = then, first

    def forward(self, x):
        x = self.first(x)
        half = x.shape[3] // 2
        difference = self.scale * (x[..., :half].mean(dim=(1, 2, 3)) - x[..., half:].mean(dim=(1, 2, 3)))
        return self.then(torch.stack([torch.tanh(difference), 2 * torch.tanh(-difference)], dim=1))

class NoGrad(Sides):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)

class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).half()

    def forward(self, x):
        return self.net(x)

class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.net(x)

plain = Sides
log_softmax = lambda: Sides(lambda z: z.log_softmax(1))
softmax = lambda: Sides(lambda z: z.softmax(1))
half_softmax = lambda: Sides(lambda z: z.half().softmax(1))
sigmoid = lambda: Sides(lambda z: (3 * z + 1).sigmoid())
dropout = lambda: Sides(lambda z: F.dropout(z, 0.1, training=True))
nan = lambda: Sides(lambda z: z / 0 - z / 0)
detach = lambda: Sides(lambda z: z.detach())
argmax = lambda: Sides(lambda z: F.one_hot(z.argmax(1), 2).float() - 0.5)
rounded = lambda: Sides(torch.round)
classes = lambda: Sides(lambda z: z.argmax(1))
one_number = lambda: Sides(lambda z: z[:, :1])
two_tensors = lambda: Sides(lambda z: (z, -z))
nothing = lambda: Sides(lambda z: {"loss": None})
a_tuple = lambda: Sides(lambda z: (z, z.new_zeros(len(z), 7)))
a_named_tuple = lambda: Sides(lambda z: Outputs(z, -z))
a_mapping = lambda: Sides(lambda z: {"out": z, "aux": z[:, :1]})
an_object = lambda: Sides(lambda z: SimpleNamespace(loss=None, logits=z, hidden=-z))
view = lambda: Sides(first=lambda x: x.view(len(x), -1).view(x.shape))
crops = lambda: Sides(first=lambda x: F.avg_pool2d(x, 20))
sixty_four = lambda: Sides(lambda z: z.view(64, 2))
lazy = lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
leaves = lambda: exit(3)
"""


@pytest.fixture
def networks(tmp_path: Path, own_teacher: None, images: Path) -> None:
    (tmp_path / "own_teacher.py").write_text(textwrap.dedent(NETWORKS))


@pytest.fixture
def prepare(
    networks: None, settings: Settings, store: AssetStore, progress: RecordingProgress
) -> Callable[[Study], Teacher]:
    def prepare(study: Study) -> Teacher:
        dataset = prepare_dataset(study.dataset, settings, store, progress)
        return prepare_teacher(study, dataset, settings, store, device=CPU, progress=progress)

    return prepare


def named(name: str, **sections: object) -> Study:
    return make_study(teacher={"architecture": f"own_teacher:{name}"}, **sections)


@pytest.mark.parametrize("name", ["a_tuple", "a_named_tuple", "a_mapping", "an_object"])
def test_logits_are_taken_out_of_what_a_teacher_returns(
    name: str, prepare: Callable[[Study], Teacher], settings: Settings, store: AssetStore, progress: RecordingProgress
) -> None:
    made, plain = prepare(named(name)), prepare(named("plain"))
    dataset = prepare_dataset(named(name).dataset, settings, store, progress)
    opened = open_teacher(named(name), dataset, settings, store)
    pixels = dataset.validation_images / 255
    for network in (made.network, opened.network):
        assert torch.equal(network(pixels), plain.network(pixels))
    assert made.sha256 == plain.sha256


@pytest.mark.parametrize(
    ("name", "error", "remedy"),
    [
        ("softmax", TeacherError, "return what it passes to the softmax"),
        ("half_softmax", TeacherError, "return what it passes to the softmax"),
        ("dropout", TeacherError, "switch its dropout off"),
        ("nan", TeacherError, "check the weights for NaN"),
        ("NoGrad", TeacherError, "remove no_grad"),
        ("detach", TeacherError, "remove no_grad, detach"),
        ("argmax", TeacherError, "remove no_grad, detach, argmax"),
        ("rounded", TeacherError, "rounding"),
        ("classes", DataError, "and not the class"),
        ("one_number", DataError, "zeros_like"),
        ("two_tensors", DataError, "that tensor alone"),
        ("nothing", DataError, "that tensor alone"),
        ("Half", DataError, r"float16.*network.float\(\)"),
        ("Grey", DataError, "one channel.*x.mean"),
        ("view", DataError, "reshape"),
        ("crops", DataError, "input_size: 224"),
        ("sixty_four", TeacherError, "any number"),
        ("lazy", UsageError, "run it once"),
        ("leaves", UsageError, "mend that code"),
    ],
)
def test_what_cannot_teach_is_refused_with_its_remedy(
    name: str, error: type[IgkdError], remedy: str, prepare: Callable[[Study], Teacher]
) -> None:
    with pytest.raises(error, match=f"; .*{remedy}") as caught:
        prepare(named(name))
    assert "\n" not in str(caught.value)


def test_the_advice_counts_also_where_another_input_size_is_set(prepare: Callable[[Study], Teacher]) -> None:
    study = make_study(teacher={"architecture": "own_teacher:crops", "input_size": 16})
    with pytest.raises(DataError, match=r"set teacher\.input_size: 224"):
        prepare(study)


def test_log_probabilities_teach_and_a_sigmoid_is_a_warning(
    prepare: Callable[[Study], Teacher], progress: RecordingProgress
) -> None:
    assert prepare(named("log_softmax")).validation_accuracy == 1
    assert progress.warnings == []
    assert prepare(named("sigmoid")).validation_accuracy == 1
    assert "sigmoid" in progress.warnings[0]


@pytest.mark.usefixtures("networks")
def test_a_teacher_without_gradients_teaches_where_no_maps_are_made_and_is_refused_where_they_are(
    settings: Settings, progress: RecordingProgress
) -> None:
    without = {"overlay_probability": 0.0, "overlay_strength": 0.0}
    study = named("NoGrad", hyperparameters=without, controls=["student", "kd"])
    assert prepare_assets(study, settings, device="cpu", progress=progress).teacher_accuracy == 1
    with pytest.raises(TeacherError, match="remove no_grad"):
        prepare_assets(named("NoGrad"), settings, device="cpu", progress=progress)


class Transformed(nn.Module):
    """Right only with `transform_input`."""

    def __init__(self) -> None:
        super().__init__()
        self.transform_input = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[3] // 2
        right = x[..., half:].mean(dim=(1, 2, 3)) - x[..., :half].mean(dim=(1, 2, 3))
        return torch.stack([-right, right if self.transform_input else right - 9], dim=1)


def test_what_a_state_dict_cannot_say_is_found_by_trying(
    networks: None, settings: Settings, store: AssetStore, progress: RecordingProgress
) -> None:
    dataset = prepare_dataset(make_study().dataset, settings, store, progress)
    teacher = TeacherConfig(architecture="inception_v3", checkpoint="teacher.pt", normalize="none")

    def choose(body: Transformed) -> str | None:
        network = wrap(
            body, teacher, teacher_request(teacher, 2, dataset.image_size, settings), (dataset.mean, dataset.std)
        )
        return choose_transform(network, body, teacher, dataset, device=CPU)

    told = choose(body := Transformed())
    assert body.transform_input
    assert told is not None
    assert "100.00 %" in told


def test_the_choice_is_kept_with_the_weights(
    networks: None,
    settings: Settings,
    store: AssetStore,
    progress: RecordingProgress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from igkd_hpo.assets import teacher_network

    def build(name: str, *arguments: object, **options: object) -> nn.Module:
        return WithWeights()

    class WithWeights(Transformed):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

    monkeypatch.setattr(teacher_network, "create", build)
    torch.save({"weight": torch.ones(1)}, tmp_path / "teacher.pt")
    study = make_study(teacher={"architecture": "inception_v3", "checkpoint": "teacher.pt"})
    dataset: Dataset = prepare_dataset(study.dataset, settings, store, progress)
    made = prepare_teacher(study, dataset, settings, store, device=CPU, progress=progress)
    opened = open_teacher(study, dataset, settings, store)
    assert (made.network.body.transform_input, opened.network.body.transform_input) == (True, True)
    assert any("transform_input" in note for note in progress.notes)
