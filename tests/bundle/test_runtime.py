"""What an ONNX file says of its classes and images is taken as what comes from outside."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from igkd_hpo.bundle import prediction
from igkd_hpo.bundle.onnx_files import InputFacts, _describe
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.bundle.usage import onnx_code
from igkd_hpo.errors import DataError
from igkd_hpo.image_file import read_image
from igkd_hpo.image_fit import Fit


def brightness_model(classes: object, **metadata: str) -> onnx.ModelProto:
    """A network of two classes whose logits are the mean brightness and 100."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "hundred"], ["constant"]),
        helper.make_node("Concat", ["column", "constant"], ["logits"], axis=1),
    ]
    constants = {
        "axes": np.array([1, 2, 3]), "one": np.array([1]), "zero": np.float32(0), "hundred": np.float32(100),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in {"classes": json.dumps(classes), "image_size": "[8, 8]", **metadata}.items():
        model.metadata_props.add(key=key, value=value)
    return model


def test_names_of_classes_are_valid_unicode(tmp_path: Path) -> None:
    onnx.save(brightness_model(["\udce9", "e\u0301"]), str(tmp_path / "model.onnx"))
    assert OnnxStudent(tmp_path / "model.onnx").class_names == (r"\xe9", "\u00e9")


@pytest.mark.parametrize("classes", [[1, 2], "ab", None, ["a"], ["a", "b", "c"]])
def test_classes_that_are_no_names_or_do_not_fit_are_refused(tmp_path: Path, classes: object) -> None:
    onnx.save(brightness_model(classes), str(tmp_path / "model.onnx"))
    with pytest.raises(DataError, match="cannot be used"):
        OnnxStudent(tmp_path / "model.onnx")


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "pictures"


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"


def other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16


def one_row(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute[0].i = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([0, 1, 2, 3]), "axes"))
    model.graph.node.insert(2, helper.make_node("Reshape", ["mean", "one"], ["flat"]))
    model.graph.node[3].input[0] = "flat"


@pytest.mark.parametrize("change", [rename_input, rename_output, other_size, one_row])
def test_a_network_that_does_not_run_on_images_is_a_fault_of_the_file(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = brightness_model(["a", "b"])
    change(model)
    onnx.save(model, str(tmp_path / "model.onnx"))
    student = OnnxStudent(tmp_path / "model.onnx")
    with pytest.raises(DataError, match="cannot be used"):
        student.logits(np.zeros((2, 3, 8, 8), np.uint8))


def test_predict_makes_8_bits_of_16_as_the_data_set_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(tmp_path / "image.png")
    (tmp_path / os.fsdecode(b"\xe9.png")).write_bytes((tmp_path / "image.png").read_bytes())
    monkeypatch.setattr(prediction, "check_files", lambda *args: None)
    monkeypatch.setattr(prediction, "read_record", lambda bundle: None)
    for bits, likeliest in ((None, "dark"), (12, "bright")):
        model = brightness_model(["bright", "dark"])
        _describe(model, InputFacts(class_names=("bright", "dark"), image_size=(8, 8), bits=bits, fit="squeeze"))
        onnx.save(model, str(tmp_path / "model.onnx"))
        ((one,), _) = prediction.predict_images(tmp_path, [tmp_path / os.fsdecode(b"\xe9.png")])
        assert one.classes[0][0] == likeliest
        assert one.image == str(tmp_path / r"\xe9.png")


def test_predict_makes_squares_as_the_data_set_did(tmp_path: Path) -> None:
    """A wide image, dark but for its middle: how bright it is depends on what is cut away or added."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 240
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    brightness = {}
    for fit in get_args(Fit):
        student = brightness_student(tmp_path, fit=fit)
        image = prediction._read(tmp_path / "wide.png", student)
        assert np.array_equal(image, read_image(tmp_path / "wide.png", 8, fit=fit))
        brightness[fit] = student.logits(image[None])[0, 0]
    assert brightness == {
        "squeeze": pytest.approx(80, abs=3),
        "crop": pytest.approx(240, abs=10),
        "pad": pytest.approx(80, abs=3),
    }


@pytest.mark.parametrize("shape", [(20, 60), (61, 20), (8, 8), (300, 500), (3, 900)])
@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_the_cards_code_reads_an_image_as_predict_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Fit, kind: str, shape: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"photo.{kind}", quality=95)
    (tmp_path / f"photo.{kind}").rename(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = onnx_code(fit)
    names: dict[str, Any] = {"width": 8, "height": 8}
    exec("\n".join(line for line in code.split("\n") if line.startswith("from PIL")), names)
    exec(code[code.index("image = ") : code.index("(logits,)")], names)
    assert np.array_equal(np.asarray(names["image"]).transpose(2, 0, 1), read_image(Path("photo.jpg"), 8, fit=fit))


def brightness_student(folder: Path, *, fit: Fit = "squeeze") -> OnnxStudent:
    model = brightness_model(["bright", "dark"])
    _describe(model, InputFacts(class_names=("bright", "dark"), image_size=(8, 8), bits=None, fit=fit))
    onnx.save(model, str(folder / "model.onnx"))
    return OnnxStudent(folder / "model.onnx")


def test_a_fit_of_another_version_is_refused(tmp_path: Path) -> None:
    onnx.save(brightness_model(["a", "b"], fit='"stretch"'), str(tmp_path / "model.onnx"))
    with pytest.raises(DataError, match="cannot be used"):
        OnnxStudent(tmp_path / "model.onnx")


def test_what_cannot_be_read_is_named_in_valid_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xe9.png")
    path.touch()
    with pytest.raises(DataError, match=r"\\xe9.png cannot be read as an image \(cannot identify") as caught:
        prediction._read(path, brightness_student(tmp_path))
    assert str(caught.value).encode().decode() == str(caught.value)
