"""Server of optuna-dashboard on this project's storage: on this machine only and read-only, unless told otherwise."""

import logging
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from optuna.artifacts import FileSystemArtifactStore
from waitress.server import TcpWSGIServer, create_server

from igkd_hpo.dashboard.origin import is_loopback, is_of_another_site, is_sent_to_loopback
from igkd_hpo.dashboard.study_page import StudyPage
from igkd_hpo.dashboard.style import add_style
from igkd_hpo.dashboard.token import check_token, new_token, refuse, require_token
from igkd_hpo.errors import UsageError
from igkd_hpo.escaping import lines
from igkd_hpo.search.storage import SharedStorage, open_storage
from igkd_hpo.search.storage_url import is_server
from igkd_hpo.settings import Paths

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# What reads. Every other method of optuna-dashboard changes the database: it can tell a running trial, delete a study,
# and rename one by copying it under the workers' feet.
READING = ("GET", "HEAD", "OPTIONS")

_READ_ONLY = "this dashboard is read-only; start it with --write to change or delete what it shows"
_OTHER_SITE = "this request comes from a page of another site; change things on the dashboard's own page"
_LOCAL_ONLY = "this dashboard answers to localhost and 127.0.0.1; start it with --host 0.0.0.0 to serve other names"

_NO_PATH = "no page has this address: it is not UTF-8, or names a number that no study and no trial has"
_BEYOND = re.compile(r"\d{19}")  # more than a column of a database takes

# An artifact is a file that a worker wrote. A browser shows it, and never runs it on the dashboard's origin nor hands
# it to another site's page (optuna-dashboard itself answers with Access-Control-Allow-Origin: *).
_ARTIFACT_HEADERS = [("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff")]


THREADS = 8
"""Requests that are answered at a time; others wait."""
IDLE_SECONDS = 30
"""After which a connection that sends nothing, or no more of a request that it began, is closed."""
_CONNECTIONS = 2000  # at a time; one that waits takes some KiB and no thread
_OTHER_FILES = 200  # of the process: the database's, and what a request opens
_MOST_HEADERS = 16 * 1024
_MOST_SENT, _MOST_UPLOADED = (
    64 * 1024,
    64 * 1024 * 1024,
)  # bytes of a request's body; artifacts are uploaded with --write


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
    elif not is_loopback(host):
        token = new_token()
        shown = f"?token={token}"
    storage = open_storage(storage_url, create=is_server(storage_url))
    try:
        page = application(storage, paths, host=host, write=write, token=token)
        with suppress(KeyboardInterrupt), closing(listen(page, host, port, write=write)) as server:
            on_ready(f"http://{host}:{server.effective_port}/dashboard{shown}")
            server.run()
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
    local = is_loopback(host)
    if token is None and not local:
        raise ValueError(f"a dashboard that listens on {host} needs a token")
    from optuna_dashboard import wsgi  # brings scikit-learn along: 1.3 s

    page: WSGIApplication = wsgi(storage, artifact_store=FileSystemArtifactStore(paths.artifacts))
    page = add_style(StudyPage(page, storage, annotate=not write))

    def open_page(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # optuna-dashboard passes over bytes that are not UTF-8: /%FFartifacts/ would be an artifact to it.
        if not _is_path(path := environ.get("PATH_INFO", "")):
            return refuse(start_response, "404 Not Found", _NO_PATH, [])
        if path.startswith("/artifacts/"):
            start_response = _contain_artifact(start_response)
        if environ["REQUEST_METHOD"] not in READING:
            if is_of_another_site(environ):
                return refuse(start_response, "403 Forbidden", _OTHER_SITE, [])
            if not write:
                return refuse(start_response, "405 Method Not Allowed", _READ_ONLY, [("Allow", ", ".join(READING))])
        return page(environ, start_response)

    guarded_page = open_page if token is None else require_token(open_page, token)

    def logged_page(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        return guarded_page(environ | {"wsgi.errors": _Errors()}, start_response)

    def local_page(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not is_sent_to_loopback(environ):
            return refuse(start_response, "403 Forbidden", _LOCAL_ONLY, [])
        return logged_page(environ, start_response)

    return local_page if local else logged_page


def _is_path(path: str) -> bool:
    """Tell whether a path, in latin-1 as WSGI has it, can be one of a page."""
    try:
        path.encode("latin-1").decode()
    except UnicodeError:
        return False
    return _BEYOND.search(path) is None


class _Errors:
    """Stream that optuna-dashboard writes tracebacks to, with whatever a request or the database held in them."""

    def write(self, text: str) -> int:
        return sys.stderr.write(lines(text))

    def flush(self) -> None:
        sys.stderr.flush()


def _contain_artifact(start_response: "StartResponse") -> "StartResponse":
    """Let an artifact be shown as data: sandboxed, not sniffed, and not readable by other origins."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
        return start_response(status, kept + _ARTIFACT_HEADERS, *rest)

    return start


def listen(page: "WSGIApplication", host: str, port: int, *, write: bool = False) -> TcpWSGIServer:
    """Open a server whose connections, threads and buffers are bounded. Raises UsageError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {why}; choose another with --port, or --host"
        ) from error
    logging.getLogger("waitress").setLevel(logging.ERROR)  # a full queue is no fault of the person at the terminal
    server: TcpWSGIServer = create_server(
        page,
        sockets=[listener],
        threads=THREADS,
        connection_limit=min(_CONNECTIONS, _allow_files(_CONNECTIONS + _OTHER_FILES) - _OTHER_FILES),
        asyncore_use_poll=True,  # select() knows no file above 1,023
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=IDLE_SECONDS // 3,
        max_request_header_size=_MOST_HEADERS,
        max_request_body_size=_MOST_UPLOADED if write else _MOST_SENT,
        inbuf_overflow=_MOST_SENT,  # more of a body goes to a temporary file
        outbuf_high_watermark=1 << 30,  # never: above it, a client that does not read would keep a thread for good
        ident=None,
    )
    return server


def _allow_files(wanted: int) -> int:
    """Raise the number of files that this process may open, as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
