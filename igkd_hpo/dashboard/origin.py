"""Where a request comes from: which name it was sent to, and which site's page sent it."""

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

# A name or an address and a port, and nothing else: in `evil.example@127.0.0.1` a URL's parser finds 127.0.0.1.
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://([^/@?#\\\s]+)")


def is_loopback(name: str) -> bool:
    """Tell whether a name is this machine's own, whoever says it."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def is_sent_to_loopback(environ: "WSGIEnvironment") -> bool:
    """Tell whether the browser was pointed at this machine by a name of its own.

    A page of another site whose name is made to point at 127.0.0.1 would otherwise count as the dashboard's own origin
    (DNS rebinding), and could read and change everything that the person at this browser can.
    """
    found = _AUTHORITY.fullmatch(environ.get("HTTP_HOST", ""))
    return found is not None and is_loopback(found[1] or found[2])


def is_of_another_site(environ: "WSGIEnvironment") -> bool:
    """Tell whether a page of another site sent a request that changes something; scripts name no site.

    Every browser sends Origin with each method but GET and HEAD, and Sec-Fetch-Site with all. The name alone is
    compared, not the scheme: a proxy in front of the dashboard takes HTTPS, and hands it on without.
    """
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") != "same-origin":
        return True
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return False
    found = _ORIGIN.fullmatch(origin)
    return found is None or found[1].lower() != environ.get("HTTP_HOST", "").lower()
