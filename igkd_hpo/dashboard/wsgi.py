"""WSGI helpers of the middlewares: buffer the wrapped application's response, and send JSON."""

import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_WORTH_COMPRESSING = 1000  # bytes


def buffer_response(page: "WSGIApplication", environ: "WSGIEnvironment") -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the status, the headers and the whole body of the wrapped application's response."""
    answer: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
        answer[:] = [status, headers]
        return lambda _: None

    body = page(environ, start)
    try:
        content = b"".join(body)
    finally:
        if (close := getattr(body, "close", None)) is not None:
            close()
    return answer[0], answer[1], content


def answer_json(body: bytes, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Send JSON, compressed where it is worth it and the browser takes it."""
    headers = [("Content-Type", "application/json"), ("Vary", "Accept-Encoding")]
    if len(body) >= _WORTH_COMPRESSING and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        # Level 1: 21 MB become 2.8 MB in 0.1 s; level 6 takes twice as long to make 2.2 MB.
        packer = zlib.compressobj(1, wbits=31)
        body = packer.compress(body) + packer.flush()
        headers.append(("Content-Encoding", "gzip"))
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]
