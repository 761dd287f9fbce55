"""Deadline of a study, by the clock of its database: those of the hosts may differ."""

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select


def database_time(connection: Connection) -> datetime:
    """Return what the database's clock says, in UTC; SQLite's is that of this host."""
    now: datetime = connection.execute(select(func.current_timestamp())).scalar_one()
    return now.astimezone(UTC) if now.tzinfo is not None else now.replace(tzinfo=UTC)


def in_words(deadline: datetime) -> str:
    """Write a time for people on hosts of any zone: 2026-11-30 06:25 UTC."""
    return f"{deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
