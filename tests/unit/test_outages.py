"""Which errors of the database a group waits for, and which are a bug."""

import sqlite3

import psycopg
import pytest
from django.db import DatabaseError, Error

from booking_platform.messaging.outages import passes


def raised(cause: Exception) -> Error:
    """Return the error as Django raises it."""
    error = DatabaseError(str(cause))
    error.__cause__ = cause
    return error


def sqlite_error(code: int, text: str = "") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class TestPostgreSQL:
    @pytest.mark.parametrize(
        "error",
        [
            psycopg.errors.DeadlockDetected,
            psycopg.errors.SerializationFailure,
            psycopg.errors.LockNotAvailable,
            psycopg.errors.QueryCanceled,
            psycopg.errors.AdminShutdown,
            psycopg.errors.CannotConnectNow,
            psycopg.errors.TooManyConnections,
            psycopg.errors.DiskFull,
            psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.ReadOnlySqlTransaction,
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InsufficientPrivilege,
            psycopg.OperationalError,  # no state: the connection broke
            psycopg.InterfaceError,
        ],
        ids=lambda error: error.__name__,
    )
    def test_the_state_of_the_database_is_waited_for(self, error: type[psycopg.Error]) -> None:
        assert passes(raised(error("oh")))

    def test_a_plan_that_a_migration_made_invalid_is_waited_for(self) -> None:
        text = "cached plan must not change result type"
        assert passes(raised(psycopg.errors.FeatureNotSupported(text)))

    @pytest.mark.parametrize(
        "error",
        [
            psycopg.errors.CheckViolation,
            psycopg.errors.UniqueViolation,
            psycopg.errors.NumericValueOutOfRange,
            psycopg.errors.StringDataRightTruncation,
            psycopg.errors.SyntaxError,
            psycopg.errors.ProgramLimitExceeded,
            psycopg.errors.FeatureNotSupported,
        ],
        ids=lambda error: error.__name__,
    )
    def test_what_an_event_or_the_code_causes_is_a_bug(self, error: type[psycopg.Error]) -> None:
        assert not passes(raised(error("oh")))


class TestSQLite:
    @pytest.mark.parametrize(
        "error",
        [
            sqlite_error(sqlite3.SQLITE_BUSY),
            sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT),
            sqlite_error(sqlite3.SQLITE_IOERR),
            sqlite_error(sqlite3.SQLITE_FULL),
            sqlite_error(sqlite3.SQLITE_ERROR, "no such table: tours"),
        ],
        ids=lambda error: str(error.sqlite_errorcode),
    )
    def test_the_state_of_the_database_is_waited_for(self, error: Exception) -> None:
        assert passes(raised(error))

    def test_a_wrong_statement_is_a_bug(self) -> None:
        assert not passes(raised(sqlite_error(sqlite3.SQLITE_ERROR, 'near "SELEC"')))

    def test_an_error_of_no_driver_is_a_bug(self) -> None:
        assert not passes(DatabaseError("ours"))
