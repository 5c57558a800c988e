"""Sessions straight to PostgreSQL: what each transaction begins with, and what it costs."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DataError, Error, IntegrityError, OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from booking_platform.messaging.outages import passes
from catalog.models import Tour
from tests.factories import TourFactory
from tests.meddling import Meddler
from tests.servers import wait_until
from tests.sessions import ALIAS, OURS, ask, database_url, limits, session

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]


def round_trips(ours: BaseDatabaseWrapper, statements: list[str], trace: Path) -> int:
    """Return how often a transaction of these statements waits for the server."""
    with trace.open("wb") as file:
        ours.connection.pgconn.trace(file.fileno())
        with transaction.atomic(ALIAS):
            for statement in statements:
                ask(ours, statement)
        ours.connection.pgconn.untrace()
    return len(re.findall(r"\tB\t\d+\tReadyForQuery", trace.read_text()))


class TestTheLimits:
    def test_they_hold_in_the_session_and_in_each_transaction(self) -> None:
        with session(database_url()) as ours:
            assert limits(ours) == OURS
            with transaction.atomic(ALIAS):
                assert limits(ours) == OURS
            assert limits(ours) == OURS

    def test_a_transaction_does_not_inherit_what_was_set_meanwhile(self) -> None:
        with session(database_url()) as ours:
            with ours.cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
            with transaction.atomic(ALIAS):
                assert limits(ours) == OURS

    @pytest.mark.parametrize(
        ("query", "held"),
        [
            ("options=-c%20search_path%3Dpg_catalog", OURS),
            ("currentSchema=pg_catalog", OURS),
            ("connect_timeout=7&application_name=mine", OURS),
            ("options=-c%20statement_timeout%3D50", ("10s", "50ms", "30s")),
            ("options=--Lock-Timeout%3D5s%20-cstatement_timeout%3D1min", ("5s", "1min", "30s")),
            ("options=-c%20log_connections%3Doff%20-c%20lock_timeout%3D0", ("0", "30s", "30s")),
        ],
    )
    def test_the_url_changes_those_that_it_names(self, query: str, held: tuple[str, ...]) -> None:
        with session(database_url(query)) as ours:
            assert limits(ours) == held
            with transaction.atomic(ALIAS):
                assert limits(ours) == held
            if "pg_catalog" in query:
                assert ask(ours, "SHOW search_path") == "pg_catalog"

    def test_a_transaction_has_the_isolation_that_the_url_names(self) -> None:
        with session(database_url("isolation_level=4")) as ours, transaction.atomic(ALIAS):
            assert ask(ours, "SHOW transaction_isolation") == "serializable"
            assert limits(ours) == OURS

    def test_a_frozen_transaction_is_ended(self) -> None:
        query = "options=-c%20idle_in_transaction_session_timeout%3D50"
        with session(database_url(query)) as ours, psycopg.connect(database_url()) as other:
            other.autocommit = True

            def freeze() -> None:
                left = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
                with transaction.atomic(ALIAS):
                    pid = [ask(ours, "SELECT pg_backend_pid()")]
                    wait_until(
                        lambda: other.execute(left, pid).fetchone() == (0,),
                        what="the server has ended the session",
                    )
                    ask(ours, "SELECT 1")

            with pytest.raises(Error) as ended:
                freeze()
            assert passes(ended.value)

    def test_one_that_the_server_refuses_is_nobody_elses_fault(self) -> None:
        with session(database_url("options=-c%20lok_timeout%3D5")) as ours:
            for _ in range(2):
                with pytest.raises(OperationalError, match="lok_timeout") as refused:
                    ask(ours, "SELECT 1")
                assert "refuses the parameters of its sessions" in str(refused.value)
                assert passes(refused.value)

    def test_what_is_not_kept_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with (
            Meddler(database_url(), b"lock_timeout\" = '10000'", b"lock_timeout\" = '00000'") as it,
            session(it.url) as ours,
        ):
            assert ask(ours, "SELECT 1") == 1
        [said] = [record for record in caplog.records if "does not keep" in record.getMessage()]
        assert "lock_timeout" in said.getMessage()

    def test_nothing_is_said_where_all_is_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        with session(database_url("options=-c%20search_path%3Da,%5C%20b")) as ours:
            assert ask(ours, "SELECT 1") == 1
        assert not caplog.records


class TestTransactions:
    def test_they_cost_no_more_round_trips(self, tmp_path: Path) -> None:
        statements = ["SELECT 1", "SELECT 2"]
        with session(database_url()) as ours:
            ask(ours, "SELECT 0")
            ended = round_trips(ours, statements, tmp_path / "trace")
        assert ended == len(["BEGIN", *statements, "COMMIT"])

    def test_they_end_as_they_should(self) -> None:
        tour = Tour.objects.filter(pk=TourFactory.create().pk)

        def rename(name: str, then: Callable[[], object]) -> None:
            with transaction.atomic():
                tour.update(name=name)
                then()

        with transaction.atomic(durable=True):
            tour.update(name="outer")
            with pytest.raises(DataError):
                rename("inner", lambda: ask(connection, "SELECT 1 / 0"))
            assert tour.select_for_update().get().name == "outer"
        with pytest.raises(IntegrityError):
            rename("lost", lambda: tour.update(available_seats=-1))
        with pytest.raises(ZeroDivisionError):
            rename("lost", lambda: 1 / 0)
        assert tour.get().name == "outer"
        assert connection.get_autocommit()

    def test_a_durable_one_is_never_within_another(self) -> None:
        durable = transaction.atomic(durable=True)
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            durable.__enter__()

    def test_one_that_can_not_begin_leaves_nothing_behind(self) -> None:
        with session(database_url()) as ours:
            pid = ask(ours, "SELECT pg_backend_pid()")
            ask(connection, "SELECT pg_terminate_backend(%s, 5000)", pid)
            with pytest.raises(OperationalError) as broken, transaction.atomic(ALIAS):
                raise AssertionError
            assert passes(broken.value)
            assert not ours.in_atomic_block
            ours.close()
            with transaction.atomic(ALIAS):
                assert ask(ours, "SELECT 1") == 1

    def test_one_that_begins_after_a_refusal_of_its_parameters(self) -> None:
        with session(database_url()) as ours:
            ask(ours, "SELECT 1")
            good = ours._begin_message  # type: ignore[attr-defined]
            ours._begin_message = b"BEGIN; SET LOCAL lok_timeout = 1"  # type: ignore[attr-defined]
            with pytest.raises(OperationalError, match="refuses"), transaction.atomic(ALIAS):
                raise AssertionError
            ours._begin_message = good  # type: ignore[attr-defined]
            with transaction.atomic(ALIAS):
                assert limits(ours) == OURS

    def test_cursors_on_the_server_end_with_theirs(self) -> None:
        holdable = "SELECT is_holdable FROM pg_cursors WHERE name <> ''"
        with session(database_url()) as ours:
            with ours.chunked_cursor() as alone:
                alone.execute("SELECT generate_series(1, 3000)")
                assert ask(ours, holdable) is True
            with transaction.atomic(ALIAS), ours.chunked_cursor() as within:
                within.execute("SELECT generate_series(1, 3000)")
                assert ask(ours, holdable) is False


class TestThroughput:
    def test_statements_are_planned_once(self) -> None:
        with session(database_url()) as ours:
            for number in range(7):
                assert ask(ours, "SELECT %s::integer + 41", number) == number + 41
            prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%+ 41'"
            assert ask(ours, prepared) == 1


def test_it_is_the_backend_under_test() -> None:
    engine: Any = connection.settings_dict["ENGINE"]
    assert (engine, connection.vendor) == ("booking_platform.postgresql", "postgresql")
    assert os.environ["DATABASE_URL"].startswith("postgres")
