"""Keep a password in `--storage URL` out of the process list, where every user of the machine could read it."""

import os
import sys

_FLAG = "--storage"
_VARIABLE = "_STORAGE_FLAG_OF_IGKD_HPO"  # holds the URL from one start to the next, and nothing else reads it


def leave_process_list() -> None:
    """Start this command again with `***` in its arguments for a password in `--storage URL`.

    The process stays the same one: its id, terminal and files remain. The URL goes through a variable, which only the
    same user and root can read, and is then taken for the flag's again. It was visible until here, for about a second.
    """
    if (moved := os.environ.pop(_VARIABLE, None)) is not None:
        sys.argv[:] = _replaced(sys.argv, moved)
        return
    arguments, url = without_password(sys.orig_argv)
    if url is not None:
        os.environ[_VARIABLE] = url
        os.execv(sys.executable, arguments)


def without_password(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments with the URL of `--storage` masked, and the URL; None where no URL holds a password."""
    urls = [url for _, url in _urls(arguments)]
    if not any(_has_password(url) for url in urls):
        return arguments, None
    from igkd_hpo.search.storage_url import mask

    return _replaced(arguments, mask(urls[-1])), urls[-1]  # of several, the command takes the last


def _urls(arguments: list[str]) -> list[tuple[int, str]]:
    """Return where the arguments have URLs of `--storage`, and these."""
    found = [(number, text.removeprefix(f"{_FLAG}=")) for number, text in enumerate(arguments)]
    after_flag = {number + 1 for number, text in enumerate(arguments) if text == _FLAG}
    return [(number, url) for number, url in found if number in after_flag or url != arguments[number]]


def _replaced(arguments: list[str], url: str) -> list[str]:
    replaced = list(arguments)
    for number, old in _urls(arguments):
        replaced[number] = replaced[number].removesuffix(old) + url
    return replaced


def _has_password(url: str) -> bool:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    return bool(parsed.password) or "password" in parsed.query or "sslpassword" in parsed.query
