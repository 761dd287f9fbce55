"""Read YAML, JSON and folders that others wrote, within bounds that hold before and while they are parsed.

What is refused here is refused in milliseconds: 300 bytes can stand for gigabytes (aliases of aliases), and a parser
that is written in Python needs a minute for 5 MB of whatever text.
"""

import json
import os
import stat
from pathlib import Path
from typing import IO, Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node
from ruamel.yaml.scanner import Scanner

MOST_BYTES = 128 * 1024
"""Of a document. The largest study file that comes with igkd-hpo has 3 KiB, a bundle's record 2 KiB."""
MOST_DEPTH = 32
MOST_VALUES = 5000
"""Keys, lists, mappings and plain values of a YAML document, with all that its aliases stand for."""


class DocumentError(Exception):
    """Why a document cannot be taken, as the end of a sentence that begins with its name; the remedy included."""


def read_bounded(file: IO[bytes]) -> bytes:
    """Read an open document to its end. Raises OSError, DocumentError."""
    content = file.read(MOST_BYTES + 1)
    _check_size(len(content))
    return content


def file_inside(folder: Path, name: str) -> Path:
    """Return the path of a regular file of a folder that somebody else filled and named.

    Links are not followed, neither out of the folder nor within it, so that no file goes by two names.

    Raises:
        DocumentError: the name leads elsewhere, or to what is no regular file.
        OSError: there is none.
    """
    try:
        plain = f"{os.path.realpath(folder)}/{name}"
        inside = os.path.realpath(plain, strict=True) == plain
    except ValueError:  # a null byte
        inside = False
    if not inside:
        raise DocumentError("leads elsewhere; a name must be that of a file in the folder, and no link")
    if not stat.S_ISREG(os.stat(plain).st_mode):
        raise DocumentError("is no regular file")
    return Path(plain)


def parse_yaml(text: str) -> Any:
    """Parse one YAML 1.2 document into what JSON can hold. Raises YAMLError and DocumentError."""
    _check_size(len(text))
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor, yaml.Composer, yaml.Scanner = _Constructor, _BoundedComposer, _BoundedScanner
    try:
        document = yaml.load(text)
    except YAMLError:
        raise
    except (ValueError, ArithmeticError) as error:  # 1e is a number to YAML's grammar and to nobody else
        raise DocumentError(f"is not YAML: {error}; quote what is meant as text") from None
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        # The parser trusts that a tag stands where it belongs: `!!int [1]` and `!!bool maybe` end in these.
        raise DocumentError(f"is not YAML: {type(error).__name__}; remove the tags (!!name)") from None
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except TypeError as error:
        raise DocumentError(f"holds what is neither text nor number: {error}; quote it") from None
    except UnicodeEncodeError as error:
        raise DocumentError(f"holds half a character ({error.object[error.start]!a}); remove it") from None
    except ValueError:  # more digits than Python turns into text, written in hexadecimal
        raise DocumentError("holds a number of too many digits; write a smaller one") from None
    return document


class _Constructor(SafeConstructor):
    """Constructor without dates, which YAML 1.2 does not have: 2026-01-31 is a word, and a fine name for a study."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise DocumentError(f"is larger than {MOST_BYTES // 1024} KiB, the most that is read; give a smaller one")


def _check_depth(levels: int) -> None:
    if levels > MOST_DEPTH:
        raise DocumentError(f"is nested too deeply, more than {MOST_DEPTH} levels; look for a bracket left open")


class _BoundedScanner(Scanner):
    """Scanner that stops at the bound of depth: it reads ahead, and at 1,000 brackets needs a second for that."""

    def fetch_flow_collection_start(self, *arguments: Any, **options: Any) -> None:
        """Take an opening bracket."""
        _check_depth(len(self.flow_context))
        super().fetch_flow_collection_start(*arguments, **options)


class _BoundedComposer(Composer):
    """Composer that counts what it composes, an alias as all that it stands for, and stops at the bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.warn_double_anchors = False  # the later one counts, as YAML says
        self._values = self._levels = 0
        self._values_of: dict[str, int | None] = {}  # by anchor; None while it is not complete

    def compose_node(self, parent: Any, index: Any) -> Node:
        """Compose a node and all below it."""
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            values = self._values_of.get(event.anchor, 0)
            if values is None:
                raise DocumentError("has an alias (*name) inside its own value; write the value out")
            self._count(values)
            return cast(Node, super().compose_node(parent, index))
        before, anchor = self._values, event.anchor
        if anchor is not None:
            self._values_of[anchor] = None
        self._levels += 1
        _check_depth(self._levels)
        self._count(1)
        node = cast(Node, super().compose_node(parent, index))
        self._levels -= 1
        if anchor is not None:
            self._values_of[anchor] = self._values - before
        return node

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise DocumentError(
                f"stands for more than {MOST_VALUES:,} values, what its aliases (*name) repeat included; shorten it"
            )
