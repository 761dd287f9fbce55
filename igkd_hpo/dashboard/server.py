"""Server of optuna-dashboard on this project's storage: on this machine only and read-only, unless told otherwise."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore

from igkd_hpo.dashboard.study_page import StudyPage
from igkd_hpo.dashboard.style import add_style
from igkd_hpo.dashboard.token import check_token, new_token, refuse, require_token
from igkd_hpo.errors import UsageError
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.storage_url import is_server
from igkd_hpo.settings import Paths

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# What reads. Every other method of optuna-dashboard changes the database: it can tell a running trial, delete a study,
# and rename one by copying it under the workers' feet.
READING = ("GET", "HEAD", "OPTIONS")

_READ_ONLY = "this dashboard is read-only; start it with --write to change or delete what it shows"
_LOCAL_ONLY = "this dashboard answers to localhost and 127.0.0.1; start it with --host 0.0.0.0 to serve other names"

# An artifact is a file that a worker wrote. A browser shows it, and never runs it on the dashboard's origin nor hands
# it to another site's page (optuna-dashboard itself answers with Access-Control-Allow-Origin: *).
_ARTIFACT_HEADERS = [("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff")]


def serve(
    storage_url: str,
    paths: Paths,
    *,
    port: int,
    on_ready: Callable[[str], None],
    host: str = "127.0.0.1",
    write: bool = False,
    token: str | None = None,
) -> None:
    """Serve the dashboard until Ctrl-C, then return.

    Args:
        storage_url: SQLAlchemy URL of a database. A PostgreSQL database without our tables is given them, so that the
            dashboard of a new server can wait for its first study; a SQLite file must exist.
        paths: where artifacts lie.
        port: 0 takes a free one.
        on_ready: called once with the page's URL, when the port is open. The URL holds the token if it was made here;
            a token that was given does not belong into anybody's log.
        host: the address to listen on. Beyond this machine a token is asked for.
        write: lets people change what they see, deleting studies included.
        token: what people must show; None asks for nothing on this machine, and makes a new one for other addresses.

    Raises:
        UsageError: the database does not exist yet, the token cannot be one, or the address cannot be listened on.
        StorageError: the database is out of reach.
    """
    shown = ""
    if token is not None:
        check_token(token)
    elif not _is_loopback(host):
        token = new_token()
        shown = f"?token={token}"
    storage = open_storage(storage_url, create=is_server(storage_url))
    try:
        page = application(storage, paths, host=host, write=write, token=token)
        with suppress(KeyboardInterrupt), listen(page, host, port) as server:
            on_ready(f"http://{host}:{server.server_port}/dashboard{shown}")
            server.serve_forever()
    finally:
        storage.engine.dispose()


def application(
    storage: SharedStorage, paths: Paths, *, host: str, write: bool, token: str | None = None
) -> "WSGIApplication":
    """Make the guarded WSGI application of the page.

    Args:
        storage: with its cache, without which each refresh reads every trial again.
        host: the address it will listen on; a loopback address answers only to local names.
        write: lets methods through that change the database.
        token: what every request must show; needed beyond loopback addresses.
    """
    local = _is_loopback(host)
    if token is None and not local:
        raise ValueError(f"a dashboard that listens on {host} needs a token")
    from optuna_dashboard import wsgi  # brings scikit-learn along: 1.3 s

    page: WSGIApplication = wsgi(storage, artifact_store=FileSystemArtifactStore(paths.artifacts))
    page = add_style(StudyPage(page, storage, annotate=not write))

    def open_page(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").startswith("/artifacts/"):
            start_response = _contain_artifact(start_response)
        if not write and environ["REQUEST_METHOD"] not in READING:
            return refuse(start_response, "405 Method Not Allowed", _READ_ONLY, [("Allow", ", ".join(READING))])
        return page(environ, start_response)

    guarded_page = open_page if token is None else require_token(open_page, token)

    def local_page(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # A page of another site whose name is made to point at 127.0.0.1 would otherwise count as the dashboard's own
        # origin (DNS rebinding), and could read and change everything that the person at this browser can.
        if not _is_loopback(_host_name(environ.get("HTTP_HOST", ""))):
            return refuse(start_response, "403 Forbidden", _LOCAL_ONLY, [])
        return guarded_page(environ, start_response)

    return local_page if local else guarded_page


def _contain_artifact(start_response: "StartResponse") -> "StartResponse":
    """Let an artifact be shown as data: sandboxed, not sniffed, and not readable by other origins."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
        return start_response(status, kept + _ARTIFACT_HEADERS, *rest)

    return start


def listen(page: "WSGIApplication", host: str, port: int) -> WSGIServer:
    """Open a server with one thread for each request. Raises UsageError."""
    try:
        return make_server(host, port, page, server_class=_ThreadedServer, handler_class=_QuietHandler)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {why}; choose another with --port, or --host"
        ) from error


class _ThreadedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # Ctrl-C does not wait for a browser's open connection

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that ended under its request: the browser left, or Ctrl-C ends the process."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the first request's line holds the token."""


def _host_name(authority: str) -> str:
    """Return `name` of `name:port`; empty where there is none."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
