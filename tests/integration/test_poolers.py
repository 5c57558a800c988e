"""Sessions behind PgBouncer, in both its modes."""

from datetime import UTC, datetime

import psycopg
import pytest
from django.db import Error, OperationalError, connection, transaction

from booking_platform.messaging.outages import passes
from tests.pgbouncer import PgBouncer
from tests.servers import wait_until
from tests.sessions import ALIAS, OURS, ask, database_url, limits, session

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]


class TestTheLimits:
    def test_they_hold_in_each_transaction(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url()) as ours:
            for _ in range(2):
                with transaction.atomic(ALIAS):
                    assert limits(ours) == OURS
                    with transaction.atomic(ALIAS):
                        assert limits(ours) == OURS

    def test_they_hold_for_a_statement_alone(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url("options=-c%20statement_timeout%3D50")) as ours:
            assert limits(ours) == ("10s", "50ms", "30s")
            with pytest.raises(OperationalError, match="statement timeout"):
                ask(ours, "SELECT pg_sleep(20)")
            assert ask(ours, "SELECT 1") == 1

    def test_they_hold_where_nothing_is_committed_by_itself(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url()) as ours:
            transaction.set_autocommit(False, ALIAS)
            for _ in range(2):
                assert limits(ours) == OURS
                transaction.commit(ALIAS)

    def test_those_of_the_url_go_before_ours(self, bouncer: PgBouncer) -> None:
        options = "options=-c%20search_path%3Dpg_catalog,public%20-clock_timeout%3D5"
        with session(bouncer.url(options)) as ours, transaction.atomic(ALIAS):
            assert limits(ours) == ("5ms", "30s", "30s")
            assert ask(ours, "SHOW search_path") == "pg_catalog,public"

    def test_no_other_client_inherits_what_is_ours(self, transaction_bouncer: PgBouncer) -> None:
        url = transaction_bouncer.url("assume_role=pg_monitor")
        with session(url) as ours, psycopg.connect(transaction_bouncer.url()) as other:
            assert ask(ours, "SELECT current_user") == "pg_monitor"
            with transaction.atomic(ALIAS):
                assert ask(ours, "SELECT current_user") == "pg_monitor"
            ours.close()
            shown = "SELECT current_setting('role'), current_setting('statement_timeout')"
            assert other.execute(shown).fetchone() == ("none", "0")


class TestWhatTheServerForgets:
    def test_statements_of_several_clients_do_not_clash(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url(), "one") as one, session(bouncer.url(), "two") as two:
            for number in range(10):
                for ours in (one, two):
                    with transaction.atomic(ours.alias):
                        assert ask(ours, "SELECT %s::integer + 1", number) == number + 1

    def test_rows_that_are_read_in_chunks_are_there_to_the_last(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url()) as ours, psycopg.connect(bouncer.url()) as other:
            with ours.chunked_cursor() as cursor:
                cursor.execute("SELECT generate_series(1, 3000)")
                rows = cursor.fetchmany(10)
                other.execute("SELECT 1")  # and stays in its transaction, on a server connection
                rows += cursor.fetchall()
            assert rows == [(number,) for number in range(1, 3001)]

    def test_rows_are_read_from_the_server_within_a_transaction(self, bouncer: PgBouncer) -> None:
        holdable = "SELECT is_holdable FROM pg_cursors WHERE name <> ''"
        with (
            session(bouncer.url()) as ours,
            transaction.atomic(ALIAS),
            ours.chunked_cursor() as cursor,
        ):
            cursor.execute("SELECT generate_series(1, 3000)")
            assert cursor.fetchmany(10)[-1] == (10,)
            assert ask(ours, holdable) is False

    def test_a_lock_is_waited_for_no_longer_than_allowed(self, bouncer: PgBouncer) -> None:
        options = "options=--lock-timeout%3D50"
        with psycopg.connect(database_url()) as other, session(bouncer.url(options)) as ours:
            other.execute("LOCK TABLE tours IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(OperationalError, match="lock timeout"):
                ask(ours, "SELECT count(*) FROM tours")
            other.rollback()
            assert ask(ours, "SELECT count(*) FROM tours") == 0


class TestItsErrors:
    @pytest.mark.parametrize("mode", ["session", "transaction"])
    def test_a_server_that_is_away_is_waited_for(self, mode: str, bouncer: PgBouncer) -> None:
        away = PgBouncer("postgres://postgres@127.0.0.1:9/none", mode=mode)
        try:
            with session(away.url()) as ours:
                for _ in range(2):  # at first it has not tried yet, then it knows
                    with pytest.raises(OperationalError) as error:
                        ask(ours, "SELECT 1")
                    assert passes(error.value)
        finally:
            away.remove()

    def test_a_server_connection_that_ends_is_waited_for(self, bouncer: PgBouncer) -> None:
        def cut() -> None:
            with transaction.atomic(ALIAS):
                pid = ask(ours, "SELECT pg_backend_pid()")
                ask(connection, "SELECT pg_terminate_backend(%s, 5000)", pid)
                ask(ours, "SELECT 1")

        with session(bouncer.url()) as ours:
            with pytest.raises(Error) as error:
                cut()
            assert passes(error.value)
            ours.close()
            assert ask(ours, "SELECT 1") == 1

    def test_a_kept_connection_that_it_closed_is_opened_again(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url()) as ours:
            assert ask(ours, "SELECT 1") == 1
            bouncer.stop()
            bouncer.start()
            ours.close_if_unusable_or_obsolete()  # as before each task and request
            with transaction.atomic(ALIAS):
                assert limits(ours) == OURS


class TestTime:
    def test_it_is_the_same_in_a_database_of_another_zone(self, bouncer: PgBouncer) -> None:
        database = connection.settings_dict["NAME"]
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'")
        try:
            with session(bouncer.url()) as ours, psycopg.connect(bouncer.url()) as other:
                moment = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
                for _ in range(2):
                    assert ask(ours, "SELECT %s::timestamptz", moment) == moment
                    assert ask(ours, "SHOW timezone") == "UTC"
                    assert other.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
                    other.rollback()
        finally:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER DATABASE {database} RESET timezone")


class TestStatementsAlone:
    def test_what_forbids_a_transaction_runs_without_one(self, bouncer: PgBouncer) -> None:
        with session(bouncer.url()) as ours:
            with ours.cursor() as cursor:
                cursor.execute("VACUUM tours")
            assert limits(ours) == OURS

    def test_what_fails_leaves_no_transaction_open(self, transaction_bouncer: PgBouncer) -> None:
        with session(transaction_bouncer.url()) as ours:
            with pytest.raises(Exception, match="division by zero"):
                ask(ours, "SELECT 1 / 0")
            with psycopg.connect(database_url(), autocommit=True) as server:
                open_ones = (
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND state LIKE 'idle in transaction%'"
                )
                wait_until(
                    lambda: server.execute(open_ones).fetchone() == (0,),
                    what="no transaction is open",
                )
