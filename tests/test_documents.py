"""Documents that others wrote: what is too much is refused before it is built, and no name leads out of a folder."""

import io
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from igkd_hpo.bundle.contents import ONNX, RECORD, STUDY, Record, check_files, read_record
from igkd_hpo.bundle.runtime import OnnxStudent
from igkd_hpo.config.builtin import builtin_studies
from igkd_hpo.config.reading import parse_study, read_stream, read_study
from igkd_hpo.config.study import Study
from igkd_hpo.documents import MOST_BYTES, MOST_DEPTH, MOST_VALUES, DocumentError, file_inside, parse_yaml
from igkd_hpo.errors import DataError, IgkdError, StudyFileError, UsageError
from tests.fixtures.bundles import A_RECORD

DIGITS = builtin_studies()["digits"].read_bytes()
LEVELS = "".join(
    f"{name}: &{name} [{', '.join([f'*{of}'] * 9)}]\n" for of, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TOO_MUCH = {
    "aliases of aliases": f"a: &a [lol]\n{LEVELS}",
    "aliases of mappings, merged": "a: &a {x: 1}\n" + "b: {<<: [" + "*a, " * MOST_VALUES + "]}\n",
    "one long list": f"a: [{'1, ' * 10_000}]",
    "three hundred thousand items": f"a: [{'1, ' * 300_000}]",
    "brackets": "a: " + "[" * 3000,
    "braces": "{a: " * 3000,
    "lists of lists, by dashes": "- " * 3000,
    "keys of keys": "? " * 3000,
    "a large file": "#" * (MOST_BYTES + 1),
    "its own alias": "a: &a [*a]",
    "digits": f"a: {'9' * 5000}",
    "digits, in hexadecimal": f"a: 0x{'f' * 20_000}",
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_too_much_is_refused_in_one_line_before_it_is_built(kind: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse_study(TOO_MUCH[kind], source="study.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_is_within_the_bounds_is_taken() -> None:
    flat = "a: [" + ", ".join(["1"] * (MOST_VALUES - 3)) + "]"
    assert len(parse_yaml(flat)["a"]) == MOST_VALUES - 3
    with pytest.raises(DocumentError, match="values"):
        parse_yaml(flat.replace("]", ", 1]"))
    nested = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert str(parse_yaml(nested)) == nested
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: &x 2}\nf: *x") == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}, "f": 2,
    }  # fmt: skip


def test_an_endless_file_is_read_to_the_bound() -> None:
    class Endless(io.RawIOBase):
        read_so_far = 0

        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            self.read_so_far += size
            return b" " * size

    endless = Endless()
    with pytest.raises(StudyFileError, match="larger than 128 KiB"):
        read_stream(endless, source="standard input")
    assert endless.read_so_far <= MOST_BYTES + 1
    with pytest.raises(StudyFileError, match="larger than 128 KiB"):
        read_study(Path("/dev/zero"))


@given(st.data())
def test_a_study_file_with_changed_bytes_is_a_study_or_a_fault_of_ours(data: st.DataObject) -> None:
    content = _damaged(data, DIGITS)
    with suppress(StudyFileError):
        assert isinstance(read_stream(io.BytesIO(content), source="x"), Study)


@given(st.text("abc&*!<>?:-[]{}|#%@`'\"\\/, \n\t0x1e.~=\x85\u2028\ufeff\ud800", max_size=60))
@example("a: !!int [1]")
@example("a: !!bool maybe")
@example('a: "\\ud800"')
@example('a: "\\U0011FFFF"')
@example("%YAML 9.9\n---\na: 1")
def test_any_text_is_a_document_or_an_error_that_is_known(text: str) -> None:
    with suppress(YAMLError, DocumentError):
        json.dumps(parse_yaml(text))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / STUDY).write_bytes(DIGITS)
    (folder / RECORD).write_text(json.dumps(A_RECORD))
    return folder


@given(data=st.data())
def test_a_record_with_changed_bytes_is_a_record_or_a_fault_of_ours(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / RECORD).write_bytes(_damaged(data, json.dumps(A_RECORD).encode()))
    with suppress(IgkdError):
        assert isinstance(read_record(folder), Record)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff" * 9, b" " * (MOST_BYTES + 1), b"", b"null", b'{"a":' * 9000]
)
def test_a_record_that_is_none_is_refused_in_one_line(bundle: Path, content: bytes) -> None:
    (bundle / RECORD).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_record(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret", "sub/../../secret", "link", "sub", "pipe", "link-inside", "", ".",
             "./best.yaml", "sub/link/secret", "best.yaml/", "best.yaml\x00", "nowhere/../best.yaml"]
)  # fmt: skip
def test_a_bundle_names_no_file_elsewhere(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = bundle.parent / "secret"
    secret.write_text("not yours")
    (bundle / "sub").mkdir()
    (bundle / "link").symlink_to(secret)
    (bundle / "sub" / "link").symlink_to(bundle.parent)
    (bundle / "link-inside").symlink_to(bundle / STUDY)
    os.mkfifo(bundle / "pipe")  # to open it would wait for ever
    opened: list[Path] = []
    monkeypatch.setattr("igkd_hpo.bundle.contents.sha256_of", lambda path: opened.append(path) or "0" * 64)
    record = Record.model_validate_json(json.dumps(A_RECORD | {"files": {STUDY: "0" * 64, name: "0" * 64}}))
    with pytest.raises(DataError):
        check_files(bundle, record)
    assert opened in ([], [bundle / STUDY])


def test_a_file_inside_is_found_also_where_the_folder_is_a_link(bundle: Path) -> None:
    (bundle / "sub").mkdir()
    (bundle / "sub" / "file").touch()
    linked = bundle.parent / "linked"
    linked.symlink_to(bundle)
    assert file_inside(linked, STUDY).read_bytes() == DIGITS
    assert file_inside(linked, "sub/file") == bundle / "sub" / "file"


def test_a_study_that_the_record_does_not_name_is_not_run(bundle: Path) -> None:
    (bundle / "other").write_text("x")
    with pytest.raises(DataError, match=STUDY):
        check_files(bundle, Record.model_validate_json(json.dumps(A_RECORD | {"files": {}})))


@pytest.mark.parametrize("location", ["../secret", "link", "SECRET"])
def test_a_network_whose_weights_lie_elsewhere_is_not_used(bundle: Path, location: str) -> None:
    """ONNX may keep tensors in other files, named in it: onnxruntime refuses what is not beside it."""
    from onnx import TensorProto, helper

    secret = bundle.parent / "secret"
    secret.write_bytes(bytes(16))
    (bundle / "link").symlink_to(secret)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location.replace("SECRET", str(secret)), "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Add", ["images", "w"], ["logits"])], "g", ends[:1], ends[1:], [tensor])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, text in {"classes": '["a"]', "image_size": "[1, 4]"}.items():
        network.metadata_props.add(key=key, value=text)
    (bundle / ONNX).write_bytes(network.SerializeToString())
    with pytest.raises(DataError, match="cannot be used"):
        OnnxStudent(bundle / ONNX)


@pytest.mark.parametrize(
    "described",
    [{"classes": "[1]"}, {"classes": "{}"}, {"classes": "[" * 9999}, {"image_size": "[0, 8]"},
     {"image_size": "[8, 1000000000]"}, {"image_size": "[8.5, 8]"}, {"image_size": "8"}],
)  # fmt: skip
def test_a_network_is_held_to_what_it_may_say_of_itself(bundle: Path, described: dict[str, str]) -> None:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["logits"])], "g", ends[:1], ends[1:])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, text in ({"classes": '["a"]', "image_size": "[8, 8]"} | described).items():
        network.metadata_props.add(key=key, value=text)
    (bundle / ONNX).write_bytes(network.SerializeToString())
    with pytest.raises(DataError, match="cannot be used"):
        OnnxStudent(bundle / ONNX)


def test_a_record_that_is_a_link_or_a_pipe_is_not_opened(bundle: Path) -> None:
    (bundle / RECORD).rename(bundle.parent / RECORD)
    (bundle / RECORD).symlink_to(bundle.parent / RECORD)
    with pytest.raises(DataError, match="leads elsewhere"):
        read_record(bundle)
    (bundle / RECORD).unlink()
    os.mkfifo(bundle / RECORD)
    with pytest.raises(DataError, match="no regular file"):
        read_record(bundle)
    (bundle / RECORD).unlink()
    with pytest.raises(UsageError, match="no bundle"):
        read_record(bundle)


def _damaged(data: st.DataObject, content: bytes) -> bytes:
    """Bytes with a few of them changed, taken out, put in or doubled."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        put = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"&a ", b"*a", b"!!set ", b"<<: ", b"\n- ", b"[{"]))
        )
        damaged[at : at + data.draw(st.integers(0, 8))] = put
    return bytes(damaged)
