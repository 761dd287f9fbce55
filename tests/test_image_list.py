"""Lists in CSV, as spreadsheets and scripts write them: what is read, and what is refused with its line."""

import csv
import io
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igkd_hpo.errors import DataError
from igkd_hpo.image_folder import list_folder
from igkd_hpo.image_list import ImageList, Row, parse_list, read_list

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
labels = names.map(str.strip).map(lambda label: unicodedata.normalize("NFC", label)).filter(lambda label: label.strip())


def written(header: list[str], rows: list[list[str]], *, delimiter: str = ",", end: str = "\n") -> bytes:
    file = io.StringIO(newline="")
    # Left to itself, csv quotes no line break but its own.
    broken = any({"\r", "\n"} & set(cell) for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *rows])
    return file.getvalue().encode()


def parsed(content: bytes) -> tuple[ImageList | None, str]:
    try:
        return parse_list(content, "photos.csv"), ""
    except DataError as error:
        return None, str(error)


@given(
    images=st.dictionaries(names.filter(lambda name: not name[0].isspace()), labels, min_size=1, max_size=12),
    split=st.none() | st.sampled_from(["train", "val", "test"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    header=st.permutations(["Path", "label ", "SPLIT", "note"]),
    empty=st.sampled_from(["", "\n\n", "\r\n"]),
)
def test_what_any_writer_of_csv_writes_is_read(
    images: dict[str, str], split: str | None, delimiter: str, end: str, mark: bytes, header: list[str], empty: str
) -> None:
    if split is None:
        header = [name for name in header if name != "SPLIT"]
    values = {"SPLIT": split or "", "note": "a, b; c"}
    rows = [[{"Path": path, "label ": label, **values}[name] for name in header] for path, label in images.items()]
    content = mark + empty.encode() + written(header, rows, delimiter=delimiter, end=end) + empty.encode()
    read, refused = parsed(content)
    if read is None:  # ./a and a are one file
        assert "two labels" in refused
        assert len({os.path.normpath(path) for path in images}) < len(images)
        return
    wanted: dict[str, tuple[str, str]] = {}
    for path, label in images.items():
        wanted.setdefault(os.path.normpath(path), (label, split or "train"))
    assert {row.path: (row.label, row.split) for row in read.rows} == wanted
    assert len(read.rows) + len(read.repeated) == len(images)
    assert read.unread == ("note",)


@given(st.binary(max_size=200) | st.text(st.sampled_from('path,label\n\r"; \t\0é.x'), max_size=60).map(str.encode))
def test_anything_else_is_refused_in_one_line(content: bytes) -> None:
    for start in (b"", b"path,label\n", b"path;label;split\r\n"):
        read, refused = parsed(start + content)
        if read is None:
            assert "\n" not in refused
            assert "photos.csv" in refused
            assert "; " in refused
        else:
            assert all(row.path and row.label and row.split in ("train", "val", "test") for row in read.rows)


def test_spaces_around_values_do_not_count() -> None:
    rows = parse_list(b'path, label, split\na b.jpg, "black, white", val \n  ,,\n', "photos.csv").rows
    assert rows == (Row(2, "a b.jpg", "black, white", "val"),)


FAULTS = {
    "nothing": (b"\xef\xbb\xbf\n\n", r"photos\.csv is empty; write path,label"),
    "no header": (b"a.jpg,cat\nb.jpg,dog\n", r"first line of photos\.csv is 'a\.jpg,cat'; write .* path,label or "),
    "other columns": (b"filename,class\na.jpg,cat\n", r"'filename,class'"),
    "two columns of one name": (b"path,label,Label\na.jpg,cat,dog\n", r"'path,label,Label'; .* once each"),
    "another delimiter": (b"path|label\na.jpg|cat\n", r"'path\|label'"),
    "a long first line": (b"x" * 1000, r"'x{60} …'"),
    "no label": (b"path,label\na,1\nb,\nc, \n", r"line 3 of photos\.csv has no label, the first of 2; "),
    "no path": (b"path,label\n,cat\n", r"line 2 of photos\.csv has no path; "),
    "no split": (b"path,label,split\na,1,\n", r"line 2 .* the split ''; write train, val or test"),
    "another split": (b"path,label,split\na,1,train\nb,1,Validation\n", r"line 3 .* 'Validation'; write val$"),
    "an unknown split": (b"path,label,split\na,1,holdout\n", r"line 2 .* 'holdout'; write train, val or test"),
    "two labels": (b"path,label\na,1\nb,1\n./a,2\n", r"lines 2 and 4 of photos\.csv give a two labels, '1' and '2'; "),
    "two splits": (b"path,label,split\na,1,train\na,1,test\n", r"lines 2 and 3 .* two splits, 'train' and 'test'; "),
    "too many values": (
        b"path,label\na, b.jpg,cat\n",
        r"line 2 .* 3 values and the first line 2; put what holds a comma",
    ),
    "too few values": (b"path;label;split\na;cat\n", r"line 2 .* 2 values and the first line 3; .* a semicolon"),
    "an open quote": (b'path,label\n"a,1\nb,2\n', r"line 3 of photos\.csv is not CSV .*double quote"),
    "no UTF-8": (
        "path,label\na,1\ncafé,2\n".encode("latin-1"),
        r"photos\.csv is no list in CSV: its line 3 is not UTF-8; save it",
    ),
    "UTF-16": ("path,label\na,1\n".encode("utf-16"), r"its line 1 is not UTF-8; save it"),
    "UTF-16 without a mark": ("path,label\na,1\n".encode("utf-16-le"), r"holds the character 0; save it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line_and_a_remedy(fault: str) -> None:
    content, told = FAULTS[fault]
    with pytest.raises(DataError, match=told):
        parse_list(content, "photos.csv")


def photos(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def lines(folder: Path, *rows: str, header: str = "path,label") -> Path:
    path = folder / "photos.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_a_list_of_a_folder_is_the_folder(tmp_path: Path) -> None:
    files = [f"{split}/{name}/{n}.jpg" for split in ("train", "val", "test") for name in ("b", "a") for n in (10, 9)]
    photos(tmp_path, *files)
    rows = [f"{file},{file.split('/')[1]},{file.split('/')[0]}" for file in files]
    of_list, of_folder = read_list(lines(tmp_path, *rows, header="path,label,split")), list_folder(tmp_path)
    for what in ("paths", "files", "labels", "sizes", "class_names"):
        assert getattr(of_list, what) == getattr(of_folder, what)


def test_a_label_or_split_that_changes_changes_the_facts(tmp_path: Path) -> None:
    photos(tmp_path, "a", "b", "c", "d")
    header = "path,label,split"
    before = read_list(lines(tmp_path, "a,1,train", "b,2,train", "c,1,train", "d,2,train", header=header)).facts
    reordered = read_list(lines(tmp_path, "d,2,train", "b,2,train", "c,1,train", "a,1,train", header=header)).facts
    assert before == reordered
    other_split = read_list(lines(tmp_path, "a,1,train", "b,2,train", "c,1,val", "d,2,val", header=header)).facts
    other_label = read_list(lines(tmp_path, "a,1,train", "b,2,train", "c,2,train", "d,1,train", header=header)).facts
    renamed = read_list(lines(tmp_path, "a,1,train", "b,3,train", "c,1,train", "d,3,train", header=header)).facts
    assert len({before, other_split, other_label, renamed}) == 4


def test_names_with_the_accents_of_another_system_are_found(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    photos(tmp_path, decomposed, "b.jpg")
    listing = read_list(lines(tmp_path, f"{composed},1", "b.jpg,2"))
    assert listing.paths == (tmp_path / decomposed, tmp_path / "b.jpg")
    assert listing.files == (composed, "b.jpg")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a.jpg,1", "x.jpg,1", f"{'y' * 300},2"], r"names what is not there \(2 files\): x\.jpg, y+; put them "),
        (["a.jpg,1", "a.jpg/b,2"], r"not there \(1 file\): a\.jpg/b; "),
        (["a.jpg,1", "sub\\b.jpg,2"], r"not there \(1 file\): sub\\b\.jpg; write / instead of \\$"),
        (["a.jpg,1", "../out.jpg,2"], r"outside of its folder \(1 file\): \.\./out\.jpg \(.*/out\.jpg\); write "),
        (["a.jpg,1", "link.jpg,2"], r"outside of its folder \(1 file\): link\.jpg \(.*/out\.jpg\); write follow_links"),
        (["a.jpg,1", "linked/out.jpg,2"], r"outside of its folder \(1 file\): linked/out\.jpg \(.*/out\.jpg\); write "),
        (["a.jpg,1", "/etc/passwd,2"], r"outside of its folder \(1 file\): /etc/passwd "),
        ([], "names no image; "),
        (["a.jpg,1", "sub/b.jpg,1"], "only the label '1' to train on; "),
    ],
)  # fmt: skip
def test_files_that_are_missing_or_elsewhere_are_named(tmp_path: Path, rows: list[str], told: str) -> None:
    photos(tmp_path, "out.jpg", "in/a.jpg", "in/sub/b.jpg")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "out.jpg")
    (tmp_path / "in" / "linked").symlink_to(tmp_path)
    with pytest.raises(DataError, match=told):
        read_list(lines(tmp_path / "in", *rows))


def test_what_lies_elsewhere_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    photos(tmp_path, "out.jpg", "in/a.jpg", "in/b.jpg")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "in" / "b.jpg")
    listing = read_list(lines(tmp_path / "in", "a.jpg,1", "../out.jpg,2", "link.jpg,2"), follow_links=True)
    assert listing.files == ("a.jpg", "../out.jpg", "link.jpg")
    inside = read_list(lines(tmp_path / "in", "a.jpg,1", f"{tmp_path}/in/b.jpg,2", "link.jpg,2"))
    assert len(inside.files) == 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a,1,val", "b,2,val"], "no image of the split train"),
        (["a,1,train", "b,2,train", "c,1,val"], "the label '2' in train and not in val"),
        (["a,1,train", "b,2,train", "c,3,test", "d,4,test"], r"'3' in test and not in train; .* \(2 differ\)"),
    ],
)  # fmt: skip
def test_each_split_needs_the_same_labels(tmp_path: Path, rows: list[str], told: str) -> None:
    photos(tmp_path, "a", "b", "c", "d")
    with pytest.raises(DataError, match=told):
        read_list(lines(tmp_path, *rows, header="path,label,split"))
