"""Sources of images, by the name that a study file's `dataset.name` has: a file each, with a `SOURCE`.

A name is that of a file (`digits`), or a family's: `torchvision/NAME`, `huggingface/OWNER/NAME`, `module:function`.
A file is importable without anything heavy, since the study file has names and rules from it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from igkd_hpo.errors import did_you_mean
from igkd_hpo.listing import list_files
from igkd_hpo.own_code import is_function

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Workplace(Protocol):
    """The services that a source may use while it reads."""

    def table(self, **columns: tuple[Any, tuple[int, ...]]) -> Any:
        """Return arrays to fill in chunks, by name: (type, shape); a killed process's rows are there. See `Table`."""
        ...

    def lock(self, name: str, *, waiting_for: str) -> AbstractContextManager[None]:
        """Hold the file lock `name` of this machine."""
        ...

    def task(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Tell of a piece of work of `total` units; the callable advances it by a number of units."""
        ...

    def note(self, text: str) -> None:
        """Tell one line that is good to know."""
        ...


class Remark(NamedTuple):
    """Something that people should know of a source's images.

    Args:
        about: what of them, in a word: the name of the doctor's check.
        found: what was seen, with its numbers.
        advice: what to do; empty where nothing is to be done.
        level: a `note`, or a `warning`, which asks for attention.
    """

    about: str
    found: str
    advice: str = ""
    level: Literal["note", "warning"] = "warning"

    @property
    def text(self) -> str:
        """One line."""
        return f"{self.found}; {self.advice}" if self.advice else self.found


@dataclass(frozen=True, kw_only=True)
class Images:
    """All images of a source, in a fixed order."""

    images: "NDArray[np.uint8]"  # (N, 3, H, W), maybe memory-mapped
    labels: "NDArray[np.int64]"  # (N,), indices into class_names
    n_train: int  # images from this one on are the source's own validation split, then its own test split
    class_names: tuple[str, ...]
    n_validation: int = 0  # of the source's own validation split; 0 where it brings none
    rows: "NDArray[np.int64] | None" = None  # those that could be read, ascending; None for all
    files: tuple[str, ...] | None = None  # (N,) names to find each image by; None where there are none
    remarks: tuple[Remark, ...] = ()  # of what was seen while they were read


@dataclass(frozen=True, kw_only=True)
class Found:
    """The content of a source, before an image is read."""

    own_test: bool  # whether it brings a test split of its own
    own_validation: bool = False  # likewise
    read: Callable[[Workplace], Images]  # raises DataError where they cannot be used
    class_names: tuple[str, ...] | None = None  # None where only reading tells
    facts: Any = None  # JSON values that change when the images do; None where the name says all
    remarks: tuple[Remark, ...] = ()  # of what lies there


class Published(NamedTuple):
    """Training images (all, where no test split is brought), side in pixels and classes, the same for everybody."""

    images: int
    side: int | None  # None where they have many sizes
    classes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of data set.

    Args:
        help: what it is, in a few words, for the reference of the study file.
        root: whether `dataset.root` must be given, may be given, or is refused.
        about_root: what `dataset.root` is, or why it is refused.
        resizes: whether `dataset.image_size` may be given.
        options: what other optional keys of `dataset` may be given: `find` takes them by name.
        published: its size, where that is known without looking.
        needs_size: whether `dataset.image_size` must be given, since its images have many sizes.
        foreign: whether it is people's own code: `find` is also given `allow_import`, the modules that are trusted.
        form: of names, where one file has a family of data sets: `torchvision/NAME`; None where it has one.
        named: returns a family's source of a name of that form. Raises ValueError where there is none.
        known: the names of a family, where it has a list of them.
        find: looks at `root` (the folder `data` where none is given), for images of `image_size` pixels a side (None:
            their own); raises DataError where there is nothing that could be read.
    """

    help: str
    root: Literal["needed", "optional", "unused"]
    about_root: str
    find: Callable[..., Found]
    resizes: bool = False
    options: tuple[str, ...] = ()
    published: Published | None = None
    needs_size: bool = False
    foreign: bool = False
    form: str | None = None
    named: "Callable[[str], Source] | None" = None
    known: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {name: file.SOURCE for name, file in list_files("igkd_hpo.sources").items()}
"""All of them by the name of their file."""
FORMS: dict[str, Source] = {source.form or name: source for name, source in SOURCES.items()}
"""What a name in a study file can look like: one name, or the form of a family's."""


def find_source(name: str) -> Source:
    """Return the source that a study file's `dataset.name` names. Raises ValueError where there is none."""
    kind = "module:function" if is_function(name) else name.partition("/")[0]
    for own, source in SOURCES.items():
        if source.form is not None and source.named is not None and kind == source.form.partition("/")[0]:
            return source.named(name)
        if own == name and source.form is None:
            return source
    raise ValueError(f'"{name}" is not one of {", ".join(FORMS)}{_near(name)}')


def _near(name: str) -> str:
    full = [known for source in SOURCES.values() for known in source.known]
    bare = {known.rpartition("/")[2].lower(): known for known in full}
    if (known := bare.get(name.lower())) is not None:
        return f" (did you mean {known}?)"
    return did_you_mean(name, [*(form for form, source in FORMS.items() if source.form is None), *full])
