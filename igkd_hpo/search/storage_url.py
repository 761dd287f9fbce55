"""Check the URL of a database, and show it without its passwords."""

import re

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from igkd_hpo.errors import UsageError, did_you_mean
from igkd_hpo.files import user_path

_EXAMPLES = "sqlite:///storage/igkd_hpo.db or postgresql+psycopg://user:password@host/database"
_SECRET_QUERY_KEYS = {"password", "sslpassword"}
_TIMEOUT = re.compile(r"timeout=\d{1,6}(?:\.\d{1,6})?")


def check_url(url: str) -> URL:
    """Return the storage URL with the driver filled in. Raises UsageError that says what to write instead."""
    if not _is_utf8(url):
        raise UsageError(f"the storage URL is not UTF-8; write for example {_EXAMPLES}")
    if "://" not in url:
        shown = "the storage" if "@" in url else f"storage {url!r}"  # a password stands before an @
        raise UsageError(f"{shown} is not a URL; write for example {_EXAMPLES}")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError(f"the storage URL cannot be read; write for example {_EXAMPLES}") from None
    backend, _, driver = parsed.drivername.partition("+")
    if backend == "postgres":
        raise UsageError(f"{backend}:// is not a dialect of SQLAlchemy; write postgresql+psycopg:// and keep the rest")
    if backend == "postgresql":
        if driver not in {"", "psycopg"}:
            raise UsageError(
                f"driver {driver!r} is not used here: PostgreSQL is reached through psycopg 3; "
                "write postgresql+psycopg:// and keep the rest"
            )
        if parsed.host is not None and "@" in parsed.host:
            raise UsageError("the storage URL holds more than one '@'; in a user name or password write '@' as %40")
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and driver in {"", "pysqlite"}:
        return _check_sqlite(parsed, options=url.partition("?")[2])
    meant = "" if backend == "sqlite" else did_you_mean(backend, ["sqlite", "postgresql"]).replace("?", "://?")
    raise UsageError(f"storage dialect {parsed.drivername!r} is not supported{meant}; write for example {_EXAMPLES}")


def _is_utf8(url: str) -> bool:
    try:
        url.encode()
    except UnicodeEncodeError:  # bytes of a command line
        return False
    return True


def _check_sqlite(url: URL, *, options: str) -> URL:
    if url.host:
        raise UsageError(f"{mask(url)} names a host; a SQLite path follows three slashes: sqlite:///folder/file.db")
    if not url.database or url.database == ":memory:" or url.query.get("mode") == "memory":
        raise UsageError(
            "SQLite in memory cannot be shared by several processes; name a file: sqlite:///folder/file.db"
        )
    if url.database.startswith("file:"):
        raise UsageError(f"{mask(url)} is a SQLite URI; name the file plainly: sqlite:///folder/file.db")
    if options and not _TIMEOUT.fullmatch(options):
        # `mode` and `uri` belong to SQLite URIs: without one, mode=ro would be passed over, and the file written.
        raise UsageError(
            f"{url.database} has a '?' behind it, where only timeout=SECONDS can stand; in a path write '?' as %3F"
        )
    if "\0" in url.database:
        raise UsageError(f"{mask(url)} holds the character 0, which no path has; remove it")
    return url.set(database=str(user_path(url.database).absolute()))


def is_server(url: str) -> bool:
    """Tell whether a URL leads to a database server, where a database without our tables waits for its first study.

    A file that is not there is most likely another directory's. Raises UsageError.
    """
    return check_url(url).get_backend_name() == "postgresql"


def mask(url: str | URL) -> str:
    """Return a storage URL as it may be shown: passwords are hidden."""
    try:
        parsed = make_url(url)
        parsed.render_as_string()
    except (ArgumentError, ValueError):  # it is not UTF-8
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):  # the rest of a password with an @ in it
        return "(unreadable storage URL)"
    secret = {key: "***" for key in parsed.query if key in _SECRET_QUERY_KEYS}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)
