"""Keep a password in `--storage URL` out of the process list, where every user of the machine could read it."""

import os
import sys

_FLAG = "--storage"


def leave_process_list() -> None:
    """Start this command again without the URL among its arguments, if that holds a password.

    The process stays the same one: its id, terminal and files remain. The URL moves to IGKD_HPO_STORAGE, which only
    the same user and root can read. It was visible until here, for about a second.
    """
    arguments, url = without_password(sys.orig_argv)
    if url is not None:
        os.environ["IGKD_HPO_STORAGE"] = url
        os.execv(sys.executable, arguments)


def without_password(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments without `--storage URL`, and the URL; unchanged, and None, where no URL holds a password."""
    kept: list[str] = []
    urls: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, joined, url = argument.partition("=")
        if flag == _FLAG:
            urls.append(url if joined else next(rest, ""))
        else:
            kept.append(argument)
    if any(_has_password(url) for url in urls):
        return kept, urls[-1]  # of several, the command takes the last
    return arguments, None


def _has_password(url: str) -> bool:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    return bool(parsed.password) or "password" in parsed.query or "sslpassword" in parsed.query
