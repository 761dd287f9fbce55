r"""Make text from outside safe where it leaves, for a terminal, a log and Markdown.

Names of files, classes, hosts and studies, keys of study files and messages of databases are whatever somebody wrote.
A terminal obeys what it is sent: `\x1b]0;` sets its title, `\x9b2J` clears it, U+202E turns the rest of a line round.
"""

import html
import logging
import re
import sys
import traceback
import warnings
from functools import partial
from types import TracebackType
from typing import Any

# C0 and C1 (categories Cc), what ends lines and paragraphs, halves of characters (names of files that are not UTF-8),
# the controls of writing direction, marks that a terminal does not show. Not the joiners: scripts and emoji need them.
_HIDDEN = "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[{_HIDDEN}]")
_UNPRINTABLE_IN_LINES = re.compile(f"(?![\n\t])[{_HIDDEN}]")
# An underscore within a word is one to Markdown too. `:`, `@` and `www.` make links of bare addresses.
_MARKDOWN = re.compile(r"[\\`*{}\[\]#!|~$:@]|(?<!\w)_|_(?!\w)|(?<=www)\.", re.IGNORECASE)


def one_line(text: str) -> str:
    r"""Return a text as one line that says what is in it: `a\x1b[31m\n` for an escape sequence and a line's end."""
    return _UNPRINTABLE.sub(_written, text)


def lines(text: str) -> str:
    """Return a text as `one_line` does, with its lines and tabs kept."""
    return _UNPRINTABLE_IN_LINES.sub(_written, text)


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: no link, no table, no HTML."""
    return html.escape(_MARKDOWN.sub(r"\\\g<0>", one_line(text)), quote=False)


def code(text: str) -> str:
    """Return a text as a span of Markdown's code, with a fence that is longer than any within it."""
    shown = one_line(text).replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{shown}{space}{fence}"


class LineFormatter(logging.Formatter):
    """Formatter that gives each record one line; a traceback keeps its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format all but the traceback."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Format the traceback."""
        return lines(super().formatException(ei))


def escape_diagnostics() -> None:
    """Escape what Python itself writes to standard error in this process: tracebacks, warnings, stray log records."""
    sys.excepthook = _show_traceback
    warnings.formatwarning = partial(_format_warning, warnings.formatwarning)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LineFormatter())


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(lines("".join(traceback.format_exception(kind, error, trace))))


def _format_warning(format_warning: Any, *arguments: Any, **options: Any) -> str:
    return lines(format_warning(*arguments, **options))


def _written(found: "re.Match[str]") -> str:
    return found[0].encode("unicode_escape").decode()
