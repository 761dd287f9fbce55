"""Figures of matplotlib as pictures inside a page: text that can be selected, colours that follow the page's."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from igkd_hpo.report.palette import BLUE, CONTROL_LOOKS, GREY, GRID, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {INK: "ink", GREY: "grey", GRID: "grid", BLUE: "accent", PAPER: "paper"} | {
    look.colour: f"control-{name.replace('_', '-')}" for name, look in CONTROL_LOOKS.items()
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with a dollar is a name
    "font.size": 10,
    "hatch.linewidth": 0.6,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style with which figures can become part of a page."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # Only the widths of letters come from matplotlib's font; the reader's browser has a font with all of them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def inline_svg(figure: "Figure", *, name: str, description: str) -> Markup:
    """Turn a figure into an <svg> element.

    Args:
        figure: drawn, and saved now, inside `drawing`.
        name: unique in the page; a word.
        description: what it shows, for those who cannot see it.
    """
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().partition("<svg")[2].replace("xlink:href=", "href=")
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"\n\s*", "\n", text)
    view_box = re.search(r'viewBox="[^"]+"', text)
    assert view_box is not None
    opening = f'<svg {view_box[0]} role="img" aria-label="{escape(description)}">'
    return Markup(opening + text[text.index(">") + 1 :].rstrip())  # matplotlib escapes its texts
