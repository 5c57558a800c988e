"""Which errors of the database a group waits for, and which are a bug."""

import sqlite3

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


# What passes by itself or is mended by an operator, state by state, as decision 20 has it.
WAITING = """
08000 08001 08003 08004 08006 08007 08P01 0B000 2200H 25006 25P03 25P04 26000 28000 28P01 34000 3D000
3F000 40000 40001 40002 40003 40P01 42501 42703 42704 42804 42846 42883 42P01 42P03 42P05 42P10 53000
53100 53200 53300 53400 55000 55006 55P02 55P03 55P04 57000 57014 57P01 57P02 57P03 57P04 57P05 58000
58030 58P01 58P02 58P03 72000 F0000 F0001 XX000 XX001 XX002
HV000 HV001 HV002 HV004 HV005 HV006 HV007 HV008 HV009 HV00A HV00B HV00C HV00D HV00J HV00K HV00L HV00M
HV00N HV00P HV00Q HV00R HV010 HV014 HV021 HV024 HV090 HV091
""".split()
PARKING = """
02000 03000 09000 0A000 0F000 0L000 0P000 0Z000 0Z002 20000 21000 22000 22001 22003 22008 22012 22021
22023 2202E 22P02 22P05 23000 23502 23503 23505 23514 23P01 24000 25000 25001 25P01 25P02 27000 2B000
2D000 2F000 38000 39000 39P01 3B000 3B001 42000 42601 42602 42702 42710 42725 42809 42830 428C9 42939
42P02 42P07 42P08 42P18 42P21 44000 54000 54001 54011 54023 P0000 P0001 P0002 P0003 P0004
""".split()
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
    @pytest.mark.parametrize("state", WAITING)
    def test_the_state_of_the_database_is_waited_for(self, state: str) -> None:
        assert passes(raised(state_error(state)))

    @pytest.mark.parametrize("state", PARKING)
    def test_what_an_event_or_the_code_causes_is_a_bug(self, state: str) -> None:
        assert not passes(raised(state_error(state)))

    def test_no_other_state_is_waited_for(self) -> None:
        assert [state for state in KNOWN if passes(raised(state_error(state)))] == sorted(WAITING)

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
