"""Sessions with a database that a URL names, beside the one under test."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from django.db import Error, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from booking_platform import databases

ALIAS = "other"  # for `transaction.atomic` and the like
LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
OURS = ("10s", "30s", "30s")


def database_url(query: str = "") -> str:
    """Return the URL of the database under test."""
    known = connection.settings_dict
    user = f"{known['USER']}:{quote(known['PASSWORD'])}"
    return f"postgres://{user}@{known['HOST']}:{known['PORT']}/{known['NAME']}?{query}"


@contextmanager
def session(url: str, alias: str = ALIAS) -> Iterator[BaseDatabaseWrapper]:
    """Connect as the platform does to what ``DATABASE_URL`` names."""
    wrapper = ConnectionHandler({"default": databases.from_url(url)})["default"]
    wrapper.alias = alias
    connections[alias] = wrapper
    try:
        yield wrapper
    finally:
        with suppress(Error):
            wrapper.close()
        del connections[alias]


def ask(session: BaseDatabaseWrapper, statement: str, *values: Any) -> Any:
    """Return the only row of a statement; the value alone where the row has one."""
    with session.cursor() as cursor:
        cursor.execute(statement, values or None)
        [row] = cursor.fetchall()
        return row[0] if len(row) == 1 else row


def limits(session: BaseDatabaseWrapper) -> tuple[str, ...]:
    shown = ", ".join(f"current_setting('{name}')" for name in LIMITS)
    return tuple(ask(session, f"SELECT {shown}"))
