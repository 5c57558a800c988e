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

from booking_platform.messaging import clock, metrics
from booking_platform.messaging.backoff import Backoff

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Which SQLSTATEs pass by themselves or are mended by an operator. All others are the fault of the event
# or of our code. docs/decisions/0020-poolers-and-database-errors.md goes through them one by one.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_CLASSES = frozenset(
    {
        "08",  # connection, and whatever PgBouncer says of itself
        "0B",  # a transaction can't begin
        "28",  # a login is refused, as after a change of the password
        "3D",  # the database is not there
        "3F",  # the schema is not there
        "40",  # rolled back: deadlock, serialization
        "53",  # resources
        "55",  # object state: lock timeout
        "57",  # operator intervention: shutdown, statement timeout
        "58",  # system error
        "72",  # the snapshot is too old
        "F0",  # the server's configuration file
        "HV",  # a foreign server, behind a trigger of an operator's
        "XX",  # the server's own fault: a damaged index or table
    }
)
_PASSING_STATES = frozenset(
    {
        "2200H",  # a sequence is at its end
        "25006",  # the server is read-only: a failover
        "25P03",  # the transaction was idle for too long
        "25P04",  # the transaction took too long
        # What a pooler has lost or given to another: the next connection has none of it.
        "26000",  # a prepared statement is not there
        "34000",  # a cursor is not there
        "42P03",  # a cursor is there already
        "42P05",  # a prepared statement is there already
        # The texts of our statements are constants, and no event's fault: the worker was deployed
        # before its migration, or without a right.
        "42501",  # insufficient privilege
        "42703",  # undefined column
        "42704",  # undefined object, such as a type
        "42804",  # a column has another type
        "42846",  # a column has another type, which can't be converted
        "42883",  # undefined function, or an operator for another type
        "42P01",  # undefined table
        "42P10",  # ON CONFLICT names a constraint that is not there
    }
)

# Of these states only what certain functions of the server say passes. Texts depend on its language.
_PASSING_SOURCES = {
    "0A000": {"RevalidateCachedQuery"},  # a plan made before a migration; the next is made anew
    "54000": {"GetNewTransactionId", "GetNewMultiXactId"},  # until a VACUUM frees numbers
}

_PASSING_SQLITE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
_NOT_MIGRATED_SQLITE = ("no such table", "no such column", "has no column named")


LOCKED, AWAY = CAUSES = ("locked", "away")  # why work waits for the database

_HELD_UP = ("55P03", "40P01", "40001")  # a lock that others have; the connection is as it was


def wait_out(work: Callable[[], T], **waits: Any) -> T:
    """Call ``work``, again and again while the database is away, and return what it returns.

    ``waits`` says in the log what has to wait. Errors that are the fault of the work are raised.
    """
    pauses = Backoff(settings.OUTAGE_BASE_SECONDS, settings.OUTAGE_MAX_SECONDS)
    attempt = 0
    while True:
        attempt += 1
        begun = clock.ticks()
        try:
            return work()
        except Error as error:
            if not passes(error):
                raise
            pause = pauses.pause(attempt)
            held_up = _state(error) in _HELD_UP
            if not held_up:
                connection.close()
            log.warning(
                "Others are at work on the same rows: waiting in place"
                if held_up
                else "The database can't be written to now: waiting in place",
                **waits,
                attempt=attempt,
                pause_ms=round(1000 * pause),
                error=" ".join(str(error).split())[:200],
            )
        time.sleep(pause)
        cause = LOCKED if held_up else AWAY
        metrics.DATABASE_WAIT_SECONDS.labels(cause).inc(clock.ticks() - begun)


def _state(error: Error) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def passes(error: Error) -> bool:
    """Return whether the error will pass by itself, or once an operator has mended the database.

    Otherwise it is caused by the event, or by our code.
    """
    cause: BaseException | None = error
    while isinstance(cause, Error):  # Django's, which may name an earlier one of its own
        cause = cause.__cause__
    if isinstance(cause, psycopg.Error):
        return _passes_in_postgresql(cause)
    if isinstance(cause, sqlite3.DatabaseError):
        # The low byte is the primary code; a missing table has none of its own but a message.
        primary = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        unmigrated = any(words in str(cause) for words in _NOT_MIGRATED_SQLITE)
        return primary in _PASSING_SQLITE or unmigrated
    return False


def _passes_in_postgresql(cause: psycopg.Error) -> bool:
    state = cause.sqlstate
    if state is None:  # the connection broke, or there was none
        return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
    if state in _PASSING_SOURCES:
        return cause.diag.source_function in _PASSING_SOURCES[state]
    return state[:2] in _PASSING_CLASSES or state in _PASSING_STATES
