"""Token of the dashboard: who does not show it gets nothing.

A browser shows it once, as `?token=` in the address, and from then on as a cookie. A script sends it as a header.
"""

import hmac
import json
import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from igkd_hpo.errors import UsageError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

VARIABLE = "IGKD_HPO_DASHBOARD_TOKEN"

_FORM = re.compile(r"[A-Za-z0-9._~-]{16,}")  # what an address and a cookie hold as it is, and nobody guesses

_NEEDED = (
    "this dashboard needs its token: open its address once with ?token=TOKEN at the end, "
    "or send the header 'Authorization: Bearer TOKEN'"
)
_REFUSAL = [("WWW-Authenticate", 'Bearer realm="igkd-hpo dashboard"'), ("Cache-Control", "no-store")]

# Not a redirect: a browser that came by a link on another site does not send a SameSite=Strict cookie along with the
# request that a redirect makes, and would be refused. A page's own refresh is a request of this site. `?` is the
# address as it was without its query, so the token is gone from it, and nothing of the request is repeated here.
_ENTRANCE = (
    b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=?"><title>igkd-hpo</title>'
    b'<p><a href="?">To the dashboard</a></p>\n'
)


def check_token(token: str) -> str:
    """Return a token that can be one. Raises UsageError, which does not repeat it."""
    if not _FORM.fullmatch(token):
        raise UsageError(
            f"{VARIABLE} is no token: it takes 16 or more letters, digits, '.', '_', '~' or '-'; "
            "`openssl rand -hex 24` makes one"
        )
    return token


def new_token() -> str:
    """Make a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def require_token(page: "WSGIApplication", token: str) -> "WSGIApplication":
    """Let requests through that carry the token, and answer 401 to all others, whatever they ask for."""
    # Cookies are shared by all ports of a host: the name keeps two dashboards of one host apart.
    cookie = f"igkd_hpo_{sha256(token.encode()).hexdigest()[:12]}"

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        shown = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).get("token", [])
        if shown:
            if environ["REQUEST_METHOD"] == "GET" and len(shown) == 1 and _same(shown[0], token):
                return _enter(start_response, f"{cookie}={token}; Path=/; HttpOnly; SameSite=Strict")
        elif _same(_bearer(environ), token) or any(_same(value, token) for value in _cookies(environ, cookie)):
            return page(environ, start_response)
        return refuse(start_response, "401 Unauthorized", _NEEDED, _REFUSAL)

    return guarded


def refuse(
    start_response: "StartResponse", status: str, reason: str, headers: list[tuple[str, str]]
) -> Iterable[bytes]:
    """Answer in JSON with a `reason`, which optuna-dashboard's page itself shows to people when a request fails."""
    body = json.dumps({"reason": reason}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _bearer(environ: "WSGIEnvironment") -> str:
    scheme, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _cookies(environ: "WSGIEnvironment", wanted: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in environ.get("HTTP_COOKIE", "").split(";"))
    return [value for name, _, value in pairs if name == wanted]


def _enter(start_response: "StartResponse", cookie: str) -> Iterable[bytes]:
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(_ENTRANCE))),
        ("Set-Cookie", cookie),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),  # the address that leads on from here still holds the token
    ]
    start_response("200 OK", headers)
    return [_ENTRANCE]
