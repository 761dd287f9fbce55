"""The image files of a folder with `train/<class>/`, maybe `val/<class>/` and `test/<class>/`, before one is read."""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from igkd_hpo.errors import DataError
from igkd_hpo.files import kind_of_file
from igkd_hpo.names import accept_name

SPLITS = ("train", "val", "test")
HEIC_ADVICE = "convert them to JPEG, for instance with pillow-heif, or set the phone's camera to Most Compatible"
_HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
_OF_SYSTEMS = {".ds_store", "thumbs.db", "desktop.ini"}  # which file managers leave, and nobody put there
NAMED = 3  # how many files a message names
_MEANT = {
    **{split: split for split in SPLITS},  # whatever the case of its letters
    **dict.fromkeys(("valid", "validate", "validation", "dev", "eval"), "val"),
    "training": "train",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files of a folder or a list, in the order that their rows will have: by split, class, name.

    Names are valid Unicode for people, relative to the folder; files are opened by their paths.
    """

    root: Path  # holds train/, or is the list
    paths: tuple[Path, ...]
    files: tuple[str, ...]  # their names
    labels: tuple[int, ...]  # of the files, indices into class_names
    sizes: tuple[int, int, int]  # how many files are below train/, val/ and test/
    class_names: tuple[str, ...]  # the folders below train/, in the order of their names on the disk; a list's labels
    facts: tuple[tuple[str | int, ...], ...]  # every file's name on the disk, size and time of change
    # Of a folder:
    skipped: tuple[str, ...] = ()  # files that are no images by their names, hidden ones included
    heic: tuple[str, ...] = ()  # of phones, which Pillow does not read here
    misnamed: tuple[str, ...] = ()  # images by their content alone, with what they are: `a.HEIC (JPEG)`
    special: tuple[str, ...] = ()  # what is no file at all: pipes, sockets, devices
    twice: tuple[str, ...] = ()  # classes of several folders of a split, which differ in the spelling of their letters
    neighbours: tuple[str, ...] = ()  # what else lies beside train/; folders end in a slash
    # Of a list:
    repeated: tuple[str, ...] = ()  # files that stand there more than once
    unread_columns: tuple[str, ...] = ()


@dataclass
class _Walk:
    """What is found below a folder, whose links are followed where they stay in it, or where `follow_links` says so."""

    root: Path
    follow_links: bool
    images: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    leading_out: list[tuple[str, Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._inside = Path(os.path.realpath(self.root))

    def name(self, path: Path) -> str:
        return accept_name(str(path.relative_to(self.root)))

    def may_enter(self, path: Path) -> bool:
        """Return whether a path is no link that leads out of the folder; note it where it is."""
        if self.follow_links or not path.is_symlink():
            return True
        target = Path(os.path.realpath(path))  # unlike resolve, ends where links lead in a circle
        if target.is_relative_to(self._inside):
            return True
        self.leading_out.append((self.name(path), target))
        return False

    def folders(self, parent: Path) -> dict[str, list[Path]]:
        """Return the folders in a folder, hidden ones left out, by name; the same name may be spelt in two ways."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(parent.iterdir(), key=lambda path: path.name):
            if not path.name.startswith(".") and path.is_dir() and self.may_enter(path):
                found[accept_name(path.name)].append(path)
        return dict(found)

    def collect(self, folder: Path, suffixes: frozenset[str]) -> None:
        """Add the files below a folder, at any depth."""
        # Each folder comes with the real places of those above it: a link back to one of them would never end.
        pending = [(folder, frozenset({folder.resolve()}))]
        while pending:
            current, above = pending.pop()
            with os.scandir(current) as scanned:
                entries = list(scanned)
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink() and not self.may_enter(path):
                    continue
                # An entry knows its kind; only a Path takes a link that leads in a circle for one to nowhere.
                known: Path | os.DirEntry[str] = path if entry.is_symlink() else entry
                if known.is_dir():
                    real = path.resolve()
                    if not entry.name.startswith(".") and real not in above:
                        pending.append((path, above | {real}))
                elif path.suffix.lower() not in suffixes or entry.name.startswith("."):
                    if entry.name.lower() not in _OF_SYSTEMS and not entry.name.startswith("._"):
                        self.skipped.append(path)
                elif known.is_file() or not path.exists():  # a link to nowhere will count among the unreadable
                    self.images.append(path)
                else:
                    self.special.append(f"{self.name(path)} ({kind_of_file(path.stat().st_mode)})")

    def refuse_links(self) -> None:
        """Raise DataError where a link leads out of the folder."""
        if not self.leading_out:
            return
        (name, target), *others = self.leading_out
        count = "a link" if not others else f"{len(others) + 1} links"
        raise DataError(
            f"{count} in {accept_name(str(self.root))} {'lead' if others else 'leads'} out of it: {name} to "
            f"{accept_name(str(target))}; write follow_links: true in the study file's dataset (init: --follow-links), "
            "if that is meant, or put the files themselves there"
        )


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """Return the image files. Folders below a class folder count to the class.

    Args:
        follow_links: read also what links lead to that is not below `root`.

    Raises DataError where there is no such folder, no train/, fewer than two classes, a class without images, a link
    that leads out, or where train/ and another split do not have the same classes.
    """
    try:
        return _list(root, follow_links)
    except OSError as error:
        raise DataError(
            f"cannot look into {accept_name(str(error.filename))}: {error.strerror}; make the folder readable"
        ) from error


def _list(root: Path, follow_links: bool) -> Listing:
    from igkd_hpo.image_file import image_suffixes

    walk, shown = _Walk(root, follow_links), accept_name(str(root))
    if not root.is_dir():
        raise DataError(
            f"dataset.root {shown} is no folder; name the one that holds train/<class>/*, or a list in CSV, in the "
            "study file, and launch the file (a study that exists goes on with it): a relative path starts at the "
            "current folder, or at IGKD_HPO_DATA where that is set"
        )
    if not (root / "train").is_dir():
        raise _no_train(walk, shown)
    splits = {
        name: walk.folders(root / name) for name in SPLITS if (root / name).is_dir() and walk.may_enter(root / name)
    }
    walk.refuse_links()
    class_names = tuple(splits["train"])
    if len(class_names) < 2:
        classes = f"only the class {class_names[0]!r}" if class_names else "no class"
        needed = f"a classifier needs 2 or more folders {shown}/train/<class>/ with images"
        raise DataError(f"{shown}/train holds {classes}; {needed}")
    for name in tuple(splits)[1:]:
        _require_same_classes(shown, name, in_train=splits["train"], in_split=splits[name])
    paths, labels, sizes, empty = [], [], dict.fromkeys(SPLITS, 0), {}
    for split, folders_of in splits.items():
        for label, name in enumerate(class_names):
            walk.images, n_skipped = [], len(walk.skipped)
            for folder in folders_of[name]:
                walk.collect(folder, image_suffixes())
            if not walk.images:
                empty[f"{shown}/{split}/{name}"] = walk.skipped[n_skipped:]
            paths += sorted(walk.images, key=lambda path: path.parts)
            labels += [label] * len(walk.images)
            sizes[split] += len(walk.images)
    walk.refuse_links()
    if empty:
        raise _no_images(walk, empty)
    relative = [str(path.relative_to(root)) for path in paths]
    skipped, heic, misnamed = _sorted_out(walk, walk.skipped)
    twice = [f"{split}/{name}" for split, of in splits.items() for name, folders in of.items() if len(folders) > 1]
    return Listing(
        root=root,
        paths=tuple(paths),
        files=tuple(map(accept_name, relative)),
        labels=tuple(labels),
        sizes=(sizes["train"], sizes["val"], sizes["test"]),
        class_names=class_names,
        skipped=skipped,
        heic=heic,
        misnamed=misnamed,
        special=tuple(sorted(walk.special)),
        twice=tuple(twice),
        neighbours=_neighbours(root, tuple(splits)),
        facts=tuple((name, *size_and_time(path)) for name, path in zip(relative, paths, strict=True)),
    )


def _sorted_out(walk: _Walk, paths: list[Path]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names of files that are not read: no images by their names, HEIC, and images with other names."""
    from igkd_hpo.image_file import format_by_content

    others, heic, misnamed = [], [], []
    for path in paths:
        content, name = None if path.name.startswith(".") else format_by_content(path), walk.name(path)
        if content == "HEIC" or (content is None and path.suffix.lower() in _HEIC_SUFFIXES):
            heic.append(name)
        elif content is not None:
            misnamed.append(f"{name} ({content})")
        else:
            others.append(name)
    return tuple(sorted(others)), tuple(sorted(heic)), tuple(sorted(misnamed))


def _no_images(walk: _Walk, empty: dict[str, list[Path]]) -> DataError:
    """Name all class folders that hold no images, and what the first of them holds instead."""
    (folder, skipped), *others = empty.items()
    _, heic, misnamed = _sorted_out(walk, skipped)
    more = f", nor do{'es' * (len(others) == 1)} {name_some([name for name, _ in others])}" if others else ""
    if heic:
        return DataError(
            f"{folder} holds no images but {len(heic)} of HEIC, which Pillow cannot read here{more}; {HEIC_ADVICE}"
        )
    if misnamed:
        return DataError(
            f"{folder} holds no images but by their content alone, {name_some(misnamed)}{more}; "
            "rename them to what they are"
        )
    kinds = ".jpg, .png, .webp and what else Pillow reads"
    return DataError(f"{folder} holds no images ({kinds}){more}; add some, or remove the folder{'s' * bool(others)}")


def name_some(names: tuple[str, ...] | list[str]) -> str:
    """List the first few names, and how many more there are: `a, b, c and 7 more`."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def meant_split(name: str) -> str | None:
    """Return the split that the name of a folder beside train/ seems to mean: `val` for `validation/`."""
    return _MEANT.get(name.rstrip("/").lower()) if name.endswith("/") else None


def _no_train(walk: _Walk, shown: str) -> DataError:
    """Say what to do with a folder that has no train/: mostly its classes or the folder itself lie one level off."""
    advice = f"put the images into {shown}/train/<class>/"
    folders = walk.folders(walk.root)
    classes = [name for name in folders if name not in SPLITS]
    if (above := _holder_of_splits(walk.root, levels=1 if folders else 2)) is not None:
        advice = f"give {accept_name(str(above))}, if it is part of that"
    elif meant := [name for name in classes if meant_split(f"{name}/") == "train"]:
        advice = f"if {meant[0]} is meant, rename it to train"
    elif below := [name for name in classes if any((path / "train").is_dir() for path in folders[name])]:
        advice = f"if the images of {below[0]} are meant, give {shown}/{below[0]}, which has one"
    elif lists := sorted(path.name for path in walk.root.glob("*.csv")):
        advice = f"if {accept_name(lists[0])} lists its images, write root: {shown}/{accept_name(lists[0])}"
    elif len(classes) > 1:
        advice = f"if {name_some(classes)} are its classes, move these folders into {shown}/train/"
    return DataError(f"{shown} has no folder train; {advice}")


def _holder_of_splits(root: Path, *, levels: int) -> Path | None:
    """Return the folder with train/, so many levels up at most, of which a folder is a split or a class in one."""
    path = Path(os.path.abspath(root))
    for above in path.parents[:levels]:
        if meant_split(f"{path.relative_to(above).parts[0]}/") is not None and (above / "train").is_dir():
            return above
    return None


def _require_same_classes(
    shown: str, split: str, *, in_train: dict[str, list[Path]], in_split: dict[str, list[Path]]
) -> None:
    if not in_split:
        raise DataError(
            f"{shown}/{split} has no class folders, so its images have no labels; sort them into "
            f"{shown}/{split}/<class>/, or move {split} out of {shown}: a share of train then takes its place"
        )
    one, other = f"{shown}/{split}", f"{shown}/train"
    for names, others, holder, lacking in ((in_split, in_train, one, other), (in_train, in_split, other, one)):
        if only := [name for name in names if name not in others]:
            count = f" ({len(only)} differ)" if len(only) > 1 else ""
            raise DataError(
                f"{holder} has the class {only[0]!r}, which {lacking} lacks; both need the same class folders{count}"
            )


def _neighbours(root: Path, splits: tuple[str, ...]) -> tuple[str, ...]:
    found = [path for path in root.iterdir() if path.name not in splits and not path.name.startswith(".")]
    return tuple(sorted(accept_name(path.name) + "/" * path.is_dir() for path in found))


def size_and_time(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes and the time of its last change in ns; -1 and 0 for a link to nowhere."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns
