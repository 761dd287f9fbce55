"""The teacher: trained, taken in, found again, refused when it learned nothing."""

import os
import signal
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from igkd_hpo.assets.checkpoint import weights_hash
from igkd_hpo.assets.dataset import prepare_dataset
from igkd_hpo.assets.teacher import open_teacher, prepare_teacher
from igkd_hpo.assets.teacher_training import teacher_recipe
from igkd_hpo.distillation.architectures.mobilenet_v2 import mobilenet_v2
from igkd_hpo.distillation.models import Resized, count_parameters
from igkd_hpo.errors import AssetError, AssetMissing, DataError, TeacherError, UsageError

from .conftest import coded_image, make_study, write_png
from .processes import heard, start, train_teacher

CPU = torch.device("cpu")
TRAINED = {"architecture": "mobilenet_v2", "width": 0.1, "epochs": 20, "normalize": "dataset"}
# A mirrored `left` is a `right`: flips would make the classes the same.
UNFLIPPED = {"crop_padding": 1, "horizontal_flip": False}


@pytest.fixture
def prepare(images, settings, store, progress):
    def prepare(study, settings=settings):
        dataset = prepare_dataset(study.dataset, settings, store, progress)
        return prepare_teacher(study, dataset, settings, store, device=CPU, progress=progress)

    return prepare


@pytest.fixture
def dataset(images, settings, store, progress):
    return prepare_dataset(make_study().dataset, settings, store, progress)


def test_a_teacher_is_trained_once_and_found_again(prepare, dataset, settings, store, progress):
    study = make_study(teacher=TRAINED, augmentation=UNFLIPPED)
    with pytest.raises(AssetMissing):
        open_teacher(study, dataset, settings, store)
    made = prepare(study)
    assert progress.tasks.pop("training the teacher") == (20, 20)
    again = prepare(study)
    assert "training the teacher" not in progress.tasks
    opened = open_teacher(study, dataset, settings, store)
    assert made.sha256 == again.sha256 == opened.sha256 == weights_hash(opened.network.body.state_dict())
    assert made.validation_accuracy >= 0.9
    assert made.parameters == count_parameters(mobilenet_v2(num_classes=2, width=0.1))
    assert not opened.network.training
    assert not any(parameter.requires_grad for parameter in opened.network.parameters())
    assert opened.network.mean.flatten().tolist() == pytest.approx(dataset.mean)

    # What does not decide the teacher keeps it; what does makes another one.
    same = {"teacher": {**TRAINED, "logits": "online"}, "n_trials": 50, "training": {"epochs": 99, "seed": 5}}
    assert open_teacher(make_study(augmentation=UNFLIPPED, **same), dataset, settings, store).folder == made.folder
    with pytest.raises(AssetMissing):
        open_teacher(
            make_study(teacher=TRAINED, augmentation={**UNFLIPPED, "crop_padding": 0}), dataset, settings, store
        )


def test_kill_9_in_training_loses_at_most_an_epoch_and_changes_nothing(prepare, dataset, tmp_path, progress):
    study = make_study(teacher={**TRAINED, "epochs": 8}, augmentation=UNFLIPPED)
    process, told = start(train_teacher, study, tmp_path)
    done = 0
    for _, count in heard(told):
        done += count
        if done == 3:
            process.kill()
            break
    process.join()
    assert process.exitcode == -signal.SIGKILL
    epochs = []
    task = progress.task
    progress.task = lambda text, total: _counting(task(text, total), epochs)
    resumed = prepare(study)
    assert epochs[0] >= 3  # what was found done
    assert sum(epochs) == 8
    # From the start, elsewhere: the same weights bit for bit.
    for path in resumed.folder.parent.glob("teacher-*"):
        path.rename(path.with_name(f"old-{path.name}"))
    epochs.clear()
    assert prepare(study).sha256 == resumed.sha256
    assert epochs[0] == 0


def _counting(context, counts):
    @contextmanager
    def counting():
        with context as advance:
            yield lambda count: (counts.append(count), advance(count))

    return counting()


def test_a_damaged_training_checkpoint_names_the_folder_to_delete(prepare, store, progress):
    study = make_study(teacher=TRAINED, augmentation=UNFLIPPED)
    done = []

    @contextmanager
    def stopping(text, _total):
        def advance(count):
            done.append(count)
            if text == "training the teacher" and sum(done) > 1:
                raise KeyboardInterrupt

        done.clear()
        yield advance

    shown, progress.task = progress.task, stopping
    with pytest.raises(KeyboardInterrupt):
        prepare(study)
    progress.task = shown
    (partial,) = store.root.glob("teacher-*.partial")
    (partial / "training.pt").write_bytes(b"nonsense")
    with pytest.raises(AssetError, match=rf"/training\.pt .* {partial} "):
        prepare(study)


def checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "teacher.pt")
    return {"architecture": "own_teacher:good", "checkpoint": "teacher.pt", "normalize": "none"}


@pytest.mark.usefixtures("own_teacher")
class TestOwnCode:
    def test_it_teaches_with_its_own_weights(self, prepare, dataset):
        teacher = prepare(make_study())
        assert teacher.validation_accuracy == 1
        assert teacher.parameters == 1
        assert prepare(make_study()).folder == teacher.folder

    def test_a_function_without_arguments_is_called_without(self, prepare, dataset):
        with pytest.raises(TeacherError):
            prepare(make_study(teacher={"architecture": "own_teacher:hopeless"}))

    def test_the_import_needs_permission(self, prepare, settings):
        untrusting = replace(settings, allow_import=frozenset({"other"}))
        with pytest.raises(UsageError, match="--allow-import own_teacher"):
            prepare(make_study(), settings=untrusting)
        assert "own_teacher" not in sys.modules

    @pytest.mark.parametrize(
        ("function", "error", "message"),
        [
            ("wrong_type", UsageError, r"own_teacher:wrong_type .* str\b.* torch\.nn\.Module"),
            ("broken", UsageError, "own_teacher:broken .*RuntimeError: no such luck"),
            ("missing", UsageError, "has no attribute 'missing'"),
            ("three_classes", DataError, r"own_teacher:three_classes .*\(64, 3\) .*\(64, 2\)"),
        ],
    )
    def test_faults_are_named(self, prepare, function, error, message):
        with pytest.raises(error, match=message) as caught:
            prepare(make_study(teacher={"architecture": f"own_teacher:{function}"}))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "wrapped", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}]
    )
    def test_a_checkpoint_takes_the_place_of_its_weights(self, prepare, tmp_path, wrapped):
        section = checkpoint(tmp_path, wrapped({"scale": torch.tensor(0.5)}))
        teacher = prepare(make_study(teacher=section))
        assert teacher.network.body.scale.item() == 0.5
        assert teacher.sha256 != prepare(make_study()).sha256

    def test_the_same_weights_in_another_file_are_the_same_teacher(self, prepare, tmp_path):
        first = prepare(make_study(teacher=checkpoint(tmp_path, {"scale": torch.tensor(2.0)})))
        torch.save({"model": {"scale": torch.tensor(2.0)}}, tmp_path / "copy.pt")
        copied = {"architecture": "own_teacher:good", "checkpoint": "copy.pt", "normalize": "none"}
        assert prepare(make_study(teacher=copied)).folder == first.folder

    def test_workers_need_neither_checkpoint_nor_images(self, prepare, dataset, tmp_path, settings, store):
        study = make_study(teacher=checkpoint(tmp_path, {"scale": torch.tensor(2.0)}))
        prepare(study)
        (tmp_path / "teacher.pt").unlink()
        assert open_teacher(study, dataset, settings, store).network.body.scale.item() == 2.0

    def test_input_size_is_the_teachers_alone(self, prepare, dataset):
        teacher = prepare(make_study(teacher={"input_size": 16}))
        assert isinstance(teacher.network.body, Resized)
        pixels = dataset.validation_images[:4] / 255
        seen = []
        teacher.network.body.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        pixels.requires_grad_(True)
        teacher.network(pixels)[:, 0].sum().backward()
        assert seen == [(4, 3, 16, 16)]
        assert pixels.grad.abs().sum() > 0
        assert teacher.sha256 == prepare(make_study()).sha256

    def test_mirrored_classes_are_recognised(self, prepare):
        with pytest.raises(TeacherError, match=r"0\.00 % of 15 .*100\.00 %.*left, right"):
            prepare(make_study(teacher={"architecture": "own_teacher:mirrored"}))

    def test_nothing_learned_is_refused_with_both_numbers(self, prepare, store):
        with pytest.raises(TeacherError, match=r"\d\.\d\d % of 15 .*'(left|right)' .* \d+\.\d\d %"):
            prepare(make_study(teacher={"architecture": "own_teacher:hopeless"}))
        assert [path.name for path in store.root.glob("teacher-*") if path.suffix != ".partial"] == []

    def test_too_few_validation_images_to_tell(self, prepare, images):
        for path in [*images.glob("train/*/02*.png"), *images.glob("train/*/01*.png"), *images.glob("train/*/03*.png")]:
            path.unlink()
        with pytest.raises(TeacherError, match=r"^\d .* dataset\.validation_fraction"):
            prepare(make_study())


@pytest.mark.usefixtures("own_teacher", "images")
def test_wrong_normalisation_is_found(tmp_path, settings, store, progress):
    (tmp_path / "own_teacher.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            class Threshold(nn.Module):
                '''Right only on pixels in [0, 1]: beyond, it says class 0.'''
                def forward(self, x):
                    half = x.shape[3] // 2
                    right = x[..., half:].mean(dim=(1, 2, 3)) - x[..., :half].mean(dim=(1, 2, 3))
                    right = torch.where(x.amin(dim=(1, 2, 3)) < 0, -1.0, right)
                    return torch.stack([torch.zeros_like(right), right], dim=1)

            def fussy():
                return Threshold()
            """
        )
    )
    study = make_study(teacher={"architecture": "own_teacher:fussy", "normalize": "dataset"})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    with pytest.raises(TeacherError, match=r"teacher\.normalize none.* 100\.00 %"):
        prepare_teacher(study, dataset, settings, store, device=CPU, progress=progress)


class Malicious:
    def __reduce__(self):
        return (os.system, ("true",))


MOBILENET = {"architecture": "mobilenet_v2", "width": 0.1, "checkpoint": "teacher.pt", "normalize": "none"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Malicious(), r"holds more than tensors \(posix\.system\).*torch\.save"),
        (nn.Linear(1, 1), "holds more than tensors"),
        ([1, 2], "holds .*list.* and no state dict"),
        ({"epoch": 3, "lr": 0.1}, r" epoch, lr .*model\.state_dict\(\)|epoch, lr and no state dict"),
        ({"weight": torch.zeros(2)}, r"nothing that fits .*teacher\.architecture"),
        (mobilenet_v2(num_classes=7, width=0.1).state_dict(), r" 7 classes .* 2\b"),
        (mobilenet_v2(num_classes=2, width=0.5).state_dict(), r"another width: .*teacher\.width"),
    ],
)
def test_checkpoints_that_do_not_fit_are_explained(prepare, tmp_path, content, message):
    torch.save(content, tmp_path / "teacher.pt")
    with pytest.raises(DataError, match=message) as caught:
        prepare(make_study(teacher=MOBILENET))
    assert "\n" not in str(caught.value)


def test_a_shortened_mobilenet_is_taken_in_by_its_keys(prepare, tmp_path, dataset, settings, store):
    trained = prepare(make_study(teacher=TRAINED, augmentation=UNFLIPPED))
    short = mobilenet_v2(num_classes=2, width=0.1, layers_removed=17)
    with torch.no_grad():
        short.classifier[1].weight.zero_()
    torch.save(short.state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(TeacherError):  # it loads, and knows nothing
        prepare(make_study(teacher=MOBILENET))
    torch.save(trained.network.body.state_dict(), tmp_path / "teacher.pt")
    section = {**MOBILENET, "normalize": "dataset"}
    assert prepare(make_study(teacher=section)).sha256 == trained.sha256


def test_unknown_torchvision_names_name_the_near_one(prepare):
    with pytest.raises(UsageError, match=r"resnet81 .*resnet18\?"):
        prepare(make_study(teacher={"architecture": "resnet81"}))


def test_torchvision_weights_of_other_classes_are_refused_before_any_download(prepare):
    with pytest.raises(DataError, match=r"resnet18 .* 1000 .* 2\b.* teacher\.checkpoint"):
        prepare(make_study(teacher={"architecture": "resnet18"}))


def test_a_torchvision_model_loads_its_checkpoint(prepare, tmp_path):
    from torchvision.models import get_model

    torch.save(get_model("shufflenet_v2_x0_5", num_classes=2).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(TeacherError):  # it loads, and knows nothing
        prepare(
            make_study(teacher={"architecture": "shufflenet_v2_x0_5", "checkpoint": "teacher.pt", "input_size": 32})
        )


def test_weights_hash_sees_numbers_names_and_types_not_layouts():
    weight = torch.randn(4, 3, 2, 2)
    plain = weights_hash({"a": weight, "b": torch.tensor(1)})
    assert plain == weights_hash({"b": torch.tensor(1), "a": weight.to(memory_format=torch.channels_last)})
    assert plain != weights_hash({"a": weight + 1e-6, "b": torch.tensor(1)})
    assert plain != weights_hash({"a": weight.double(), "b": torch.tensor(1)})
    assert plain != weights_hash({"c": weight, "b": torch.tensor(1)})


@pytest.mark.usefixtures("own_teacher")
def test_half_of_the_images_being_one_class_raises_the_bar(tmp_path, settings, store, progress):
    for label, (name, count) in enumerate((("few", 100), ("many", 300))):
        for number in range(count):
            write_png(tmp_path / "images" / "train" / name / f"{number}.png", coded_image(label, number))
    (tmp_path / "own_teacher.py").write_text("from torch import nn\nimport torch\n\nclass Many(nn.Module):\n"
        "    def forward(self, x):\n        return torch.tensor([[0.0, 1.0]]).repeat(len(x), 1)\n")  # fmt: skip
    study = make_study(teacher={"architecture": "own_teacher:Many"})
    dataset = prepare_dataset(study.dataset, settings, store, progress)
    with pytest.raises(TeacherError, match=r"'many'.* 74\.67 %"):
        prepare_teacher(study, dataset, settings, store, device=CPU, progress=progress)


def test_a_teacher_learns_from_crops_alone_beside_mixtures() -> None:
    boxes = {"views": 4, "crop_padding": 0}
    plain, mixed = (make_study(augmentation=one) for one in (boxes, {**boxes, "mixed": 0.5}))
    recipes = [
        teacher_recipe(one, 50, torch.device("cpu"), seed=0, memory_format="contiguous") for one in (plain, mixed)
    ]
    assert recipes[0] == recipes[1]
