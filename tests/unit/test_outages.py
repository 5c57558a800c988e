"""Which errors of the database a group waits for, and which are a bug."""

import re
import sqlite3
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, Error
from django.db.transaction import TransactionManagementError
from psycopg.pq import DiagnosticField

from booking_platform.messaging.outages import passes


def raised(cause: Exception) -> Error:
    """Return the error as Django raises it."""
    error = DatabaseError(str(cause))
    error.__cause__ = cause
    return error


def sqlite_error(code: int, text: str = "") -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = code
    return error


DECISION = Path(__file__).parents[2] / "docs/decisions/0020-poolers-and-database-errors.md"


def decided() -> dict[str, str]:
    """Return the verdicts of the decision's table, by state or class."""
    rows = re.findall(r"^\| ((?:`\w+` ?)+) \| (waits|parks) \|", DECISION.read_text(), re.MULTILINE)
    return {name: verdict for names, verdict in rows for name in re.findall(r"\w+", names)}


KNOWN = sorted(
    each.sqlstate
    for each in vars(psycopg.errors).values()
    if isinstance(each, type) and issubclass(each, psycopg.Error) and each.sqlstate
)


def state_error(state: str, source_function: str = "", text: str = "oh") -> psycopg.Error:
    """Return the error as psycopg raises it, in a language in which the server may speak."""
    info = {
        DiagnosticField.SQLSTATE: state.encode(),
        DiagnosticField.SOURCE_FUNCTION: source_function.encode(),
    }
    return psycopg.errors.lookup(state)(text, info={int(key): info[key] for key in info})


class TestPostgreSQL:
    @pytest.mark.parametrize("state", KNOWN)
    def test_every_state_has_the_verdict_of_the_decision(self, state: str) -> None:
        verdicts = decided()
        verdict = verdicts.get(state) or verdicts[state[:2]]
        assert passes(raised(state_error(state))) == (verdict == "waits")

    @pytest.mark.parametrize("state", ["2200H", "42P05", "42883", "28P01", "57014", "XX002"])
    def test_the_state_of_the_database_is_waited_for(self, state: str) -> None:
        assert passes(raised(state_error(state)))

    @pytest.mark.parametrize("state", ["22003", "23514", "25P02", "42601", "54000", "P0001"])
    def test_what_an_event_or_the_code_causes_is_a_bug(self, state: str) -> None:
        assert not passes(raised(state_error(state)))

    @pytest.mark.parametrize("error", [psycopg.OperationalError, psycopg.InterfaceError])
    def test_a_broken_connection_has_no_state(self, error: type[psycopg.Error]) -> None:
        assert passes(raised(error("the connection is closed")))

    def test_what_can_not_be_sent_has_no_state_either(self) -> None:
        assert not passes(raised(psycopg.DataError("PostgreSQL text fields cannot contain NUL")))

    @pytest.mark.parametrize(
        ("state", "source_function", "text"),
        [
            ("0A000", "RevalidateCachedQuery", "gecachter Plan darf den Ergebnistyp nicht ändern"),
            ("54000", "GetNewTransactionId", "Datenbank nimmt keine Befehle an, um Überlauf …"),
            ("54000", "GetNewMultiXactId", "multixact »members« Grenze überschritten"),
        ],
    )
    def test_what_an_operator_or_the_next_plan_mends_is_known_by_its_source(
        self, state: str, source_function: str, text: str
    ) -> None:
        assert passes(raised(state_error(state, source_function, text)))

    @pytest.mark.parametrize(
        "text",
        [
            "query_wait_timeout",
            "server login has been failing, try again later (server_login_retry)",
            "no more connections allowed (max_client_conn)",
            "pgbouncer database is paused",
        ],
    )
    def test_what_pgbouncer_says_of_itself_is_waited_for(self, text: str) -> None:
        assert passes(raised(state_error("08P01", text=text)))

    def test_a_transaction_broken_by_an_outage_is_waited_for(self) -> None:
        broken = TransactionManagementError("An error occurred in the current transaction.")
        broken.__cause__ = raised(state_error("57P01"))
        assert passes(broken)


class TestSQLite:
    @pytest.mark.parametrize(
        "error",
        [
            sqlite_error(sqlite3.SQLITE_BUSY),
            sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT),
            sqlite_error(sqlite3.SQLITE_IOERR),
            sqlite_error(sqlite3.SQLITE_FULL),
            sqlite_error(sqlite3.SQLITE_ERROR, "no such table: tours"),
            sqlite_error(sqlite3.SQLITE_ERROR, "no such column: seats"),
            sqlite_error(sqlite3.SQLITE_ERROR, "table tours has no column named seats"),
            sqlite_error(sqlite3.SQLITE_NOMEM),
            sqlite_error(sqlite3.SQLITE_CORRUPT),
            sqlite_error(sqlite3.SQLITE_NOTADB),
        ],
        ids=lambda error: str(error.sqlite_errorcode),
    )
    def test_the_state_of_the_database_is_waited_for(self, error: Exception) -> None:
        assert passes(raised(error))

    def test_a_row_that_is_refused_is_a_bug(self) -> None:
        assert not passes(raised(sqlite_error(sqlite3.SQLITE_CONSTRAINT_CHECK, "CHECK failed")))

    def test_a_wrong_statement_is_a_bug(self) -> None:
        assert not passes(raised(sqlite_error(sqlite3.SQLITE_ERROR, 'near "SELEC"')))

    def test_an_error_of_no_driver_is_a_bug(self) -> None:
        assert not passes(DatabaseError("ours"))
