"""Waiting in place for a database that is away.

Nothing is sent back to the broker meanwhile. A group that waits holds its deliveries, so that the
broker keeps the rest, and there is no retry message that could be lost.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import structlog
from django.conf import settings
from django.db import Error, connection

from booking_platform.messaging.backoff import Backoff

log = structlog.get_logger(__name__)

T = TypeVar("T")

# SQLSTATE classes: 08 connection, 40 rollback (deadlock, serialization), 53 resources, 55 object
# state (lock timeout), 57 operator intervention (shutdown, statement timeout), 58 system error.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_CLASSES = ("08", "40", "53", "55", "57", "58")

# Single states: the transaction idled too long; the server is read-only (a failover); the schema
# and its grants are not there yet (the worker was deployed before its migration); a statement
# planned before a migration or a failover is not valid any more, and is planned anew on the next
# connection.
_PASSING_STATES = ("25P03", "25006", "42P01", "42703", "42501", "3D000", "26000")
_OUTDATED_PLAN = "cached plan"  # the only one of 0A000, feature not supported, that passes

_PASSING_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR,
                   sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # fmt: skip


def wait_out(work: Callable[[], T], **waits: Any) -> T:
    """Call ``work``, again and again while the database is away, and return what it returns.

    ``waits`` says in the log what has to wait. Errors that are the fault of the work are raised.
    """
    pauses = Backoff(settings.OUTAGE_BASE_SECONDS, settings.OUTAGE_MAX_SECONDS)
    attempt = 0
    while True:
        attempt += 1
        try:
            return work()
        except Error as error:
            if not passes(error):
                raise
            pause = pauses.pause(attempt)
            connection.close()
            log.warning(
                "The database can't be written to now: waiting in place",
                **waits,
                attempt=attempt,
                pause_ms=round(1000 * pause),
                error=" ".join(str(error).split())[:200],
            )
        time.sleep(pause)


def passes(error: Error) -> bool:
    """Return whether the error will pass by itself rather than being caused by the event."""
    cause = error.__cause__
    if isinstance(cause, psycopg.Error):
        state = cause.sqlstate
        if state is None:  # the connection broke, or there was none
            return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        if state == "0A000":
            return _OUTDATED_PLAN in str(cause)
        return state[:2] in _PASSING_CLASSES or state in _PASSING_STATES
    if isinstance(cause, sqlite3.OperationalError):
        # The low byte is the primary code; a missing table has none of its own but a message.
        primary = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return primary in _PASSING_SQLITE or "no such table" in str(cause)
    return False
