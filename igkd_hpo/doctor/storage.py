"""The database: whether it can be reached and written, is fast enough, and has connections for all workers."""

import os
import statistics
import timeit
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import SQLAlchemyError

from igkd_hpo.assets.pins import AssetPins, check_pins
from igkd_hpo.config.study import Study
from igkd_hpo.doctor.check import Check, failed, fault, grade, not_checked, ok, warning
from igkd_hpo.errors import IgkdError
from igkd_hpo.search.lease_table import LEASES
from igkd_hpo.search.optuna_internals import table_names
from igkd_hpo.search.storage import bare_connection, has_tables, open_storage
from igkd_hpo.search.storage_url import check_url, mask
from igkd_hpo.search.study import check_unchanged

_GROUP = "storage"
_PINGS = 7
_SLOW_SECONDS, _TOO_SLOW_SECONDS = 0.1, 1.0  # of one statement; reporting an epoch takes about ten
_CONNECTIONS = 2  # of each worker, and of the launch that watches them
_OLDEST_POSTGRESQL = 13
_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "lustre", "gpfs")  # beginnings of their names


def check_storage(study: Study | None, pins: AssetPins | None, url: str, *, workers: int) -> list[Check]:
    """Check the database and the study in it. Creates nothing.

    Args:
        study: None where its file has faults.
        pins: the content of data and teacher on this host; None while there is no teacher.
        url: SQLAlchemy URL of the database.
    """
    try:
        parsed = check_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        checks, has_studies = _check_sqlite(parsed) if is_sqlite else _check_postgresql(parsed, workers)
    except IgkdError as error:
        names = ("latency", "rights", "connections", "study")
        rest = [not_checked(_GROUP, name, "the database cannot be used") for name in names]
        return [failed(_GROUP, "reachable", error), *rest]
    return [*checks, _check_study(study, pins, url, has_studies=has_studies)]


def check_latency(seconds: float) -> Check:
    """Check whether a study can run at this time for one statement."""
    finding, advice = f"{1000 * seconds:.1f} ms for a statement", "run the workers nearer to the database"
    too_slow, slow = seconds > _TOO_SLOW_SECONDS, seconds > _SLOW_SECONDS
    return grade(_GROUP, "latency", finding, advice, faulty=too_slow, doubtful=slow)


def check_file_system(kind: str) -> Check:
    """Check whether SQLite's locks work on a file system of this kind."""
    if kind.startswith(_REMOTE):
        finding = f"the file is on {kind}, a network file system, where SQLite's locks do not work"
        return fault(_GROUP, "file system", finding, "name a file on a local disk with --storage, or use PostgreSQL")
    return ok(_GROUP, "file system", kind or "not known")


def check_version(number: int, version: str) -> Check:
    """Check whether PostgreSQL of this server_version_num, such as 160004, still gets corrections."""
    if number < _OLDEST_POSTGRESQL * 10_000:
        finding = f"PostgreSQL {version}, which gets no corrections any more"
        return warning(_GROUP, "version", finding, f"move to PostgreSQL {_OLDEST_POSTGRESQL} or newer")
    return ok(_GROUP, "version", f"PostgreSQL {version}")


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def can_write_in(path: Path) -> bool:
    """Return whether a path is a folder in which this user can make files."""
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _check_sqlite(url: URL) -> tuple[list[Check], bool]:
    path = Path(url.database or "")
    file_system = check_file_system(_file_system(path))
    if not path.exists():
        folder = nearest_folder(path.parent)
        if can_write_in(folder):
            rights = ok(_GROUP, "rights", f"{folder} can be written")
        else:
            rights = fault(_GROUP, "rights", f"nothing can be made in {folder}", "name another file with --storage")
        return [ok(_GROUP, "reachable", f"{path} will be made"), file_system, rights], False
    with bare_connection(url) as connection:
        has_studies = has_tables(connection)
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
        reachable = ok(_GROUP, "reachable", f"{path}, SQLite {version}")
        latency = check_latency(_latency(connection))
        connection.rollback()
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails where nothing can be written, and writes nothing
            rights = ok(_GROUP, "rights", f"{path} can be written")
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", error)).split())
            advice = "change its permissions, or end the process that holds it"
            rights = fault(_GROUP, "rights", f"{path} cannot be written: {reason}", advice)
        connection.rollback()
    return [reachable, file_system, latency, rights], has_studies


def _file_system(path: Path) -> str:
    folder = nearest_folder(path).resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _check_postgresql(url: URL, workers: int) -> tuple[list[Check], bool]:
    with bare_connection(url) as connection:
        number, version = connection.execute(
            text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        ).one()
        has_studies = has_tables(connection)
        return [
            ok(_GROUP, "reachable", mask(url)),
            check_version(number, version),
            check_latency(_latency(connection)),
            _check_rights(connection, has_studies=has_studies),
            _check_connections(connection, workers),
        ], has_studies


def _latency(connection: Connection) -> float:
    seconds = timeit.repeat(lambda: connection.execute(text("SELECT 1")).all(), repeat=_PINGS, number=1)
    return statistics.median(seconds)


def _check_rights(connection: Connection, *, has_studies: bool) -> Check:
    """Check the rights to read and write every table and sequence, or, without studies, to make tables."""

    def ask(statement: str, **values: Any) -> Any:
        return connection.execute(text(statement), values).scalar()

    name = "rights"
    user, schema = ask("SELECT current_user"), ask("SELECT current_schema()")
    if ask("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"):
        return fault(_GROUP, name, f"{user} can only read here", "use the primary server, and a role that may write")
    if not has_studies:
        if schema is not None and ask("SELECT has_schema_privilege(:schema, 'CREATE')", schema=schema):
            return ok(_GROUP, name, f"{user} can make tables in the schema {schema}")
        finding = f"{user} cannot make tables in the schema {schema or '(none)'}"
        return fault(_GROUP, name, finding, f"run GRANT CREATE, USAGE ON SCHEMA {schema or 'public'} TO {user}")
    places = {"schema": schema, "tables": sorted([*table_names(), LEASES.name])}
    closed = ask(
        """
        SELECT string_agg(relname || ' (' || p || ')', ', ' ORDER BY relname)
        FROM pg_class CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
        WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relname = ANY(:tables)
          AND NOT has_table_privilege(pg_class.oid, p)
        """,
        **places,
    ) or ask(
        """
        SELECT string_agg(s.relname || ' (USAGE)', ', ' ORDER BY s.relname)
        FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
        JOIN pg_class t ON t.oid = d.refobjid
        WHERE t.relnamespace = to_regnamespace(quote_ident(:schema)) AND t.relname = ANY(:tables)
          -- in this order: the function refuses what is no sequence
          AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') ELSE false END
        """,
        **places,
    )
    if closed:
        first, *others = str(closed).split(", ")
        finding = f"{user} lacks rights on {first}{f' and {len(others)} more' if others else ''}"
        return fault(_GROUP, name, finding, f"grant {user} what it lacks on all tables and sequences of {schema}")
    return ok(_GROUP, name, f"{user} can read and write all tables")


def _check_connections(connection: Connection, workers: int) -> Check:
    """Check the smallest of three limits: the server's, the database's and the role's; -1 is no limit."""
    row = connection.execute(
        text(
            """
            SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                     - coalesce(current_setting('reserved_connections', true)::int, 0) AS server,
                   (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') - 1 AS server_used,
                   (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database,
                   (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) - 1 AS database_used,
                   (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role,
                   (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) - 1 AS role_used
            """
        )
    ).one()
    need = _CONNECTIONS * (workers + 1)
    limits = {
        "max_connections of the server": row.server - row.server_used,
        "the database's CONNECTION LIMIT": row.database - row.database_used if row.database >= 0 else need,
        "the role's CONNECTION LIMIT": row.role - row.role_used if row.role >= 0 else need,
    }
    limit = min(limits, key=lambda name: limits[name])
    free = max(0, limits[limit])
    if free < need:
        finding = f"{workers} workers need {need} connections, and {limit} leaves {free}"
        most = free // _CONNECTIONS - 1
        fewer = f", or start {most} workers" if most > 0 else ""
        return fault(_GROUP, "connections", finding, f"raise {limit}{fewer}")
    return ok(_GROUP, "connections", f"{row.server - row.server_used} free, {need} needed for {workers} workers")


def _check_study(study: Study | None, pins: AssetPins | None, url: str, *, has_studies: bool) -> Check:
    if study is None:
        return not_checked(_GROUP, "study", "the study file has faults")
    will_be_made = ok(_GROUP, "study", f"{study.name} will be made")
    if not has_studies:
        return will_be_made
    try:
        storage = open_storage(url, create=False)
        try:
            existing = check_unchanged(storage, study)
            if existing is None:
                return will_be_made
            record, finished = existing.read(), existing.counts().finished
            if pins is not None and record.pins is not None:
                check_pins(study.name, record.pins, pins)
            stopped = f", stopped: {record.stopped}" if record.stopped is not None else ""
            progress = f"{study.name}, {finished} of {record.n_trials} trials finished{stopped}"
            return ok(_GROUP, "study", progress)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except IgkdError as error:
        return failed(_GROUP, "study", error)
