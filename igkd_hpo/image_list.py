"""The image files that a list in CSV names: `path,label[,split]`, the paths relative to the list's folder."""

import csv
import errno
import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from igkd_hpo.errors import DataError
from igkd_hpo.files import open_regular
from igkd_hpo.image_folder import SPLITS, Listing, meant_split, name_some, size_and_time
from igkd_hpo.names import accept_name
from igkd_hpo.words import counted

_MOST_BYTES = 1 << 28  # of a list: 256 MiB are some three million images
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # the second is what Excel writes in much of Europe
_PATH, _LABEL, _SPLIT = "path", "label", "split"
_HEADER = f"{_PATH},{_LABEL} or {_PATH},{_LABEL},{_SPLIT}"
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_SHOWN = 60  # characters of a line that is shown


class Row(NamedTuple):
    """One image of a list.

    Args:
        line: its number, the header's is 1.
        path: as `os.path.normpath` writes it.
        split: one of SPLITS; `train` in a list without splits.
    """

    line: int
    path: str
    label: str
    split: str


class ImageList(NamedTuple):
    """The text of a list.

    Args:
        rows: one of each path, in the order of the list.
        repeated: paths that are there more than once, with the same label and split.
        unread: names of columns that mean nothing here.
    """

    rows: tuple[Row, ...]
    repeated: tuple[str, ...]
    unread: tuple[str, ...]


def parse_list(content: bytes, shown: str) -> ImageList:
    """Read the text of a list, whose columns stand in any order between commas, semicolons or tabs.

    Args:
        content: UTF-8, with or without a byte order mark; lines may end as on any system.
        shown: the list's name, for messages.

    Raises DataError, with the first line at fault and how many there are.
    """
    text = _decoded(content, shown)
    delimiter, columns = _header(text, shown)
    places = [columns.index(name) for name in (_PATH, _LABEL)]
    split_place = columns.index(_SPLIT) if _SPLIT in columns else None
    faults = _Faults(shown)
    rows: dict[str, Row] = {}
    repeated = []
    for line, cells in _records(text, delimiter, shown):
        if line == 0 or not any(map(str.strip, cells)):
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"line {line} of {shown} has {len(cells)} values and the first line {len(columns)}; put what holds "
                f"{_DELIMITERS[delimiter]} between double quotes"
            )
        path, label = (cells[place] for place in places)
        split = SPLITS[0] if split_place is None else cells[split_place].strip()
        row = Row(line, os.path.normpath(path) if path else "", accept_name(label.strip()), split)
        if not faults.note(row):
            earlier = rows.setdefault(row.path, row)
            if earlier[2:] != row[2:]:
                faults.note_contradiction(earlier, row)
            elif earlier is not row:
                repeated.append(row.path)
    faults.refuse()
    unread = [name for name in columns if name and name not in (_PATH, _LABEL, _SPLIT)]
    return ImageList(tuple(rows.values()), tuple(repeated), tuple(unread))


def _decoded(content: bytes, shown: str) -> str:
    if len(content) > _MOST_BYTES:
        raise DataError(f"{shown} is larger than {_MOST_BYTES >> 20} MiB, the most that is read; give a shorter list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{shown} is no list in CSV: its line {line} is not UTF-8; save it as CSV in UTF-8") from None
    if "\0" in text:  # UTF-16 of letters without accents is valid UTF-8
        raise DataError(f"{shown} is no list in CSV: it holds the character 0; save it as CSV in UTF-8")
    return text


def _records(text: str, delimiter: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the number of its last line, that of the header as 0."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header = True
    try:
        for cells in reader:
            yield 0 if header else reader.line_num, cells
            header = header and not any(cells)
    except csv.Error as error:
        advice = "look for a double quote that is not closed, or not doubled inside of others"
        raise DataError(f"line {reader.line_num} of {shown} is not CSV ({error}); {advice}") from None


def _header(text: str, shown: str) -> tuple[str, list[str]]:
    """Return the delimiter that makes a header of the first line, and the names of the columns, in small letters."""
    for delimiter in _DELIMITERS:
        with suppress(DataError):
            first = next((cells for _, cells in _records(text, delimiter, shown) if any(cells)), [])
            columns = [name.strip().lower() for name in first]
            if _PATH in columns and _LABEL in columns:
                for name in (_PATH, _LABEL, _SPLIT):
                    if columns.count(name) > 1:
                        break
                else:
                    return delimiter, columns
    line = next((line for line in text.splitlines() if line.strip()), "")
    if not line:
        raise DataError(f"{shown} is empty; write {_HEADER} as its first line, and a line for each image")
    line = line if len(line) <= _SHOWN else f"{line[:_SHOWN]} …"
    raise DataError(f"the first line of {shown} is {line!r}; write the columns' names there, once each: {_HEADER}")


class _Faults:
    """The faults of a list's rows: the first of each kind, and how many there are."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._first: dict[str, tuple[str, str, int]] = {}  # by kind: what, what to do, how many

    def note(self, row: Row) -> bool:
        """Note what is wrong with a row by itself; return whether anything is."""
        here = f"line {row.line} of {self._shown}"
        if not row.path:
            self._add("path", f"{here} has no path", "write one, or remove the line")
        elif not row.label:
            self._add("label", f"{here} has no label", "write one, or remove the line")
        elif row.split not in SPLITS:
            meant = meant_split(f"{row.split}/")
            advice = f"write {meant}" if meant else f"write {', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
            self._add("split", f"{here} has the split {row.split!r}", advice)
        else:
            return False
        return True

    def note_contradiction(self, earlier: Row, row: Row) -> None:
        """Note one path with two labels or in two splits."""
        kind = "labels" if earlier.label != row.label else "splits"
        one, other = (earlier.label, row.label) if kind == "labels" else (earlier.split, row.split)
        what = f"lines {earlier.line} and {row.line} of {self._shown} give {accept_name(row.path)} two {kind}"
        self._add(kind, f"{what}, {one!r} and {other!r}", "keep the line that is right")

    def _add(self, kind: str, what: str, advice: str) -> None:
        what, advice, count = self._first.get(kind, (what, advice, 0))
        self._first[kind] = what, advice, count + 1

    def refuse(self) -> None:
        """Raise DataError with the fault that was seen first, if there is any."""
        for what, advice, count in self._first.values():
            more = f", the first of {count:,}" if count > 1 else ""
            raise DataError(f"{what}{more}; {advice}")


def read_list(path: Path, *, follow_links: bool = False) -> Listing:
    """Return the image files of a list, in the order that the same images have in a folder.

    Args:
        follow_links: read also what lies, by its path or by a link, outside of the list's folder.

    Raises DataError where the list cannot be read, names what is missing or lies outside, has fewer than two labels, or
    has other labels in a split than in train.
    """
    shown = accept_name(str(path))
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
        read = parse_list(content, shown)
        found = _find(path, read.rows, follow_links)
    except OSError as error:
        name = accept_name(str(error.filename or path))
        raise DataError(f"cannot look into {name}: {error.strerror}; make it readable") from error
    class_names = _class_names(read.rows, shown)
    labels = {name: label for label, name in enumerate(class_names)}
    order = sorted(
        range(len(found)),
        key=lambda i: (SPLITS.index(read.rows[i].split), labels[read.rows[i].label], found[i].parts),
    )
    rows, paths = [read.rows[i] for i in order], [found[i] for i in order]
    in_train, in_val, in_test = (sum(row.split == split for row in rows) for split in SPLITS)
    return Listing(
        root=path,
        paths=tuple(paths),
        files=tuple(accept_name(row.path) for row in rows),
        labels=tuple(labels[row.label] for row in rows),
        sizes=(in_train, in_val, in_test),
        class_names=class_names,
        facts=tuple((*row[1:], *size_and_time(path)) for row, path in zip(rows, paths, strict=True)),
        repeated=tuple(map(accept_name, read.repeated)),
        unread_columns=tuple(map(accept_name, read.unread)),
    )


def _class_names(rows: Sequence[Row], shown: str) -> tuple[str, ...]:
    """Return the labels, sorted. Raises DataError where there are too few, or not the same in each split."""
    if not rows:
        raise DataError(f"{shown} names no image; write a line for each")
    of_split: dict[str, set[str]] = {}
    for row in rows:
        of_split.setdefault(row.split, set()).add(row.label)
    in_train = of_split.get(SPLITS[0], set())
    if not in_train:
        raise DataError(f"{shown} names no image of the split train; write it for those to train on")
    if len(in_train) < 2:
        raise DataError(
            f"{shown} has only the label {next(iter(in_train))!r} to train on; a classifier needs 2 or more labels"
        )
    for split, names in of_split.items():
        for only, holder, lacking in ((names - in_train, split, SPLITS[0]), (in_train - names, SPLITS[0], split)):
            if only:
                count = f" ({len(only):,} differ)" if len(only) > 1 else ""
                raise DataError(
                    f"{shown} has the label {min(only)!r} in {holder} and not in {lacking}; both need the same{count}"
                )
    return tuple(sorted(in_train))


def _find(path: Path, rows: Iterable[Row], follow_links: bool) -> list[Path]:
    """Return the rows' files. Raises DataError where some are missing or lie outside of the list's folder."""
    folder, shown = str(path.parent), accept_name(str(path))
    inside = os.path.join(os.path.realpath(folder), "")
    real_folder = cache(os.path.realpath)
    found, missing, outside = [], [], []
    for row in rows:
        if (seen := _as_spelt(folder, row.path)) is None:
            missing.append(row.path)
            continue
        file, is_link = seen
        parent, name = os.path.split(file)
        target = os.path.realpath(file) if is_link else os.path.join(real_folder(parent), name)
        if follow_links or target.startswith(inside):
            found.append(Path(file))
        else:
            outside.append(f"{accept_name(row.path)} ({accept_name(target)})")
    if outside:
        raise DataError(
            f"{shown} names what lies outside of its folder ({counted(len(outside), 'file')}): {name_some(outside)}; "
            "write follow_links: true in the study file's dataset (init: --follow-links), if that is meant, or "
            "put the files themselves there"
        )
    if missing:
        advice = "put them there, or remove their lines: paths start at the list's folder"
        if any(_as_spelt(folder, name.replace("\\", "/")) for name in missing if "\\" in name):
            advice = "write / instead of \\"
        named = name_some([accept_name(name) for name in missing])
        raise DataError(f"{shown} names what is not there ({counted(len(missing), 'file')}): {named}; {advice}")
    return found


def _as_spelt(folder: str, name: str) -> tuple[str, bool] | None:
    """Return the path of a file and whether it is a link, also where its name has the accents of another system.

    None where there is none; a link to nowhere will count among the unreadable, as in a folder.
    """
    for spelt in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        file = os.path.join(folder, spelt)
        try:
            return file, stat.S_ISLNK(os.lstat(file).st_mode)
        except OSError as error:
            if error.errno not in _NOWHERE:
                raise
    return None
