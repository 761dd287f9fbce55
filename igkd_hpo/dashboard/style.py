"""Style that the page lacks: graphs of ours in the colours of the chosen mode, and room on a phone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from igkd_hpo.dashboard.wsgi import buffer_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# optuna-dashboard gives its own charts a dark template, and a graph that it is given none; and two columns of charts
# stay two columns on a screen that is 400 pixels wide.
_STYLE = b"""<style>
[id^="user-defined-plot:"] text:not(.hoverlayer text) { fill: currentColor !important; }
.MuiGrid-container > .MuiGrid-grid-xs-6:not(.MuiGrid-item) { padding: 16px 0 0 16px; }
main { min-width: 0; }
main pre { overflow-x: auto; }
main .MuiTableCell-root { overflow-wrap: anywhere; }
@media (max-width: 900px) {
  .MuiGrid-container > .MuiGrid-grid-xs-3, .MuiGrid-container > .MuiGrid-grid-xs-6,
  .MuiGrid-container > .MuiGrid-grid-xs-9 { flex-basis: 100%; max-width: 100%; }
}
</style>
</head>"""


def add_style(page: "WSGIApplication") -> "WSGIApplication":
    """Add the style to the page's HTML; nothing else is touched."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] != "GET" or not (path == "/dashboard" or path.startswith("/dashboard/")):
            return page(environ, start_response)
        # Asked for anew each time: a file that has not changed would come without its text.
        fresh = {name: value for name, value in environ.items() if name != "HTTP_IF_MODIFIED_SINCE"}
        status, headers, body = buffer_response(page, fresh)
        body = body.replace(b"</head>", _STYLE, 1)
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "last-modified")]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    return answer
