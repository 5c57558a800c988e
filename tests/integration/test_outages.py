"""Errors that the server itself raises: which of them a group waits for, and until when."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import Error, OperationalError, connection

from booking_platform.messaging.inbox import process
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.outages import passes
from booking_platform.messaging.rules import CONSUMERS
from catalog.models import Reservation, Tour
from tests.events import created, deliveries
from tests.factories import TourFactory
from tests.servers import wait_until
from tests.sessions import ask, database_url, session

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]

SEQUENCE = "pg_get_serial_sequence('reservations', 'id')"


def execute(statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def raised(statement: str) -> Error:
    with pytest.raises(Error) as error:
        execute(statement)
    return error.value


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP SEQUENCE s MAXVALUE 2; SELECT nextval('s'), nextval('s'), nextval('s')",
        "SELECT not_migrated_yet()",
        "SELECT not_migrated_yet FROM tours",
        "SELECT 1 FROM not_migrated_yet",
        "SELECT 1 FROM not_migrated_yet.tours",
        "CREATE TABLE not_migrated_yet.tours ()",
        "SELECT NULL::not_migrated_yet",
        "SELECT 1 FROM tours WHERE name = 1",
        "UPDATE tours SET id = now()",
        "INSERT INTO tours (name) VALUES ('') ON CONFLICT (name) DO NOTHING",
        "DO $$ BEGIN RAISE EXCEPTION 'index' USING ERRCODE = 'index_corrupted'; END $$",
        "SET ROLE pg_monitor; SELECT 1 FROM tours",
        "BEGIN READ ONLY; UPDATE tours SET name = ''",
        "EXECUTE not_there",
        "FETCH not_there",
    ],
)
def test_what_the_database_is_in_need_of_is_waited_for(statement: str) -> None:
    try:
        assert passes(raised(statement))
    finally:
        connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 / 0",
        "SELECT 'x'::integer",
        "SELECT 'x'::jsonb",
        "SELEC 1",
        "DO $$ BEGIN RAISE EXCEPTION 'a trigger refuses the row'; END $$",
        "INSERT INTO tours (name) VALUES ('')",
    ],
)
def test_what_an_event_or_our_code_causes_is_not(statement: str) -> None:
    assert not passes(raised(statement))


@pytest.mark.parametrize("change", [{"path": "/no_such_database"}, {"netloc": "no_such_role@{}"}])
def test_a_login_that_is_refused_is_waited_for(change: dict[str, str]) -> None:
    known = urlsplit(database_url())
    at = f"{known.hostname}:{known.port}"
    url = known._replace(**{part: text.format(at) for part, text in change.items()}).geturl()
    with session(url) as refused, pytest.raises(OperationalError) as error:
        ask(refused, "SELECT 1")
    assert "no_such" in str(error.value)
    assert passes(error.value)


@pytest.fixture
def sequence_at_its_end(transactional_db: None) -> Iterator[str]:
    [(name,)] = execute(f"SELECT {SEQUENCE}")
    [(last,)] = execute(f"SELECT last_value + 1 FROM {name}")
    execute(f"ALTER SEQUENCE {name} MAXVALUE {last} RESTART {last}")
    execute(f"SELECT nextval('{name}')")
    mended = f"ALTER SEQUENCE {name} NO MAXVALUE"
    try:
        yield mended
    finally:
        execute(mended)


def test_an_event_waits_until_an_operator_has_mended_the_sequence(
    sequence_at_its_end: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OUTAGE_MAX_SECONDS = 0.1
    tour: Tour = TourFactory.create(capacity=10)
    consumer = CONSUMERS["tour-catalog.booking-created"]

    def worker() -> None:
        try:
            process(consumer, deliveries(created(tour.pk, "B")))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(worker)
        wait_until(
            lambda: done.done() or "waiting in place" in caplog.text,
            what="the event waits",
        )
        assert not done.done()
        execute(sequence_at_its_end)
        done.result(timeout=60)
    assert Reservation.objects.get().state == Reservation.State.RESERVED
    assert not DeadLetter.objects.exists()
