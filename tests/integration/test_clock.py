"""The one clock: the database's, asked for now and then and carried on in between."""

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.messaging import clock, inbox, leases, retention
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import record_dead_letters
from catalog.models import Tour
from payments.models import Refund
from tests.events import body, created, deliveries
from tests.factories import RefundFactory, TourFactory
from tests.platform import parked

CREATED = "tour-catalog.booking-created"
SERVERS = pytest.mark.servers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a new process does."""
    monkeypatch.setattr(clock, "_known", None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the database was asked for its time, by ticks."""
    measure, times = clock._measure, list[float]()

    def counting() -> Any:
        times.append(clock.ticks())
        return measure()

    monkeypatch.setattr(clock, "_measure", counting)
    return times


@pytest.fixture(params=[timedelta(days=40), timedelta(minutes=10), timedelta(seconds=-90)], ids=str)
def shift(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """The clock of this process is wrong by so much; the database's is not."""
    true = timezone.now
    by: timedelta = request.param
    monkeypatch.setattr(timezone, "now", lambda: true() + by)
    return by


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many ticks pass."""
    steady = clock._steady
    monkeypatch.setattr(clock, "_steady", lambda: steady() + seconds)


def database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [moment] = cursor.fetchone()
    assert isinstance(moment, datetime)
    return moment


class TestWithoutServers:
    def test_it_is_the_time(self) -> None:
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


@SERVERS
class TestNow:
    def test_it_is_the_databases_time_whatever_this_machine_says(self, shift: timedelta) -> None:
        before = database_time()
        assert before - timedelta(seconds=1) < clock.now() < database_time() + timedelta(seconds=1)

    def test_it_goes_on_between_two_measurements(
        self, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = clock.now()
        later(monkeypatch, 50)
        assert timedelta(seconds=50) <= clock.now() - first < timedelta(seconds=55)
        assert len(asked) == 1

    def test_it_is_measured_anew_every_minute(
        self, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock.now()
        later(monkeypatch, 61)
        assert abs(clock.now() - database_time()) < timedelta(seconds=1)
        assert len(asked) == 2

    def test_it_is_measured_anew_on_a_new_connection(self, asked: list[float]) -> None:
        clock.now()
        connection.close()
        connection.ensure_connection()
        clock.now()
        assert len(asked) == 2

    def test_threads_share_a_measurement(self, asked: list[float]) -> None:
        clock.now()
        others = [threading.Thread(target=clock.now) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert len(asked) == 1

    def test_a_forked_process_measures_for_itself(self) -> None:
        clock.now()
        known = clock._known
        assert known is not None
        clock._known = known._replace(pid=os.getpid() + 1, moment=datetime(1999, 1, 1, tzinfo=UTC))
        assert clock.now().year > 2000

    def test_it_is_no_statement_of_the_work_at_hand(self, asked: list[float]) -> None:
        with CaptureQueriesContext(connection) as queries:
            clock.now()
        assert (len(asked), len(queries)) == (1, 0)

    def test_a_transaction_is_not_disturbed(
        self, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock.now()
        later(monkeypatch, 3600)
        with transaction.atomic():
            clock.now()
        assert len(asked) == 1

    def test_it_is_known_in_a_broken_transaction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock.now()
        key = RefundFactory.create().idempotency_key
        later(monkeypatch, 3600)

        def break_it() -> None:
            with transaction.atomic():
                with pytest.raises(IntegrityError):
                    Refund.objects.bulk_create([RefundFactory.build(idempotency_key=key)])
                clock.now()
                Refund.objects.count()

        with pytest.raises(DatabaseError, match="can't execute queries"):  # it was broken
            break_it()

    def test_it_goes_on_while_the_database_is_away(
        self, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = clock.now()
        later(monkeypatch, 3600)
        monkeypatch.setattr(clock, "_measure", away)
        assert clock.now() - first > timedelta(seconds=3600)

    def test_a_new_process_can_not_know_it_without_the_database(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clock, "_measure", away)
        with pytest.raises(OperationalError):
            clock.now()


def away() -> Any:
    raise OperationalError("away")


@SERVERS
class TestAnOutage:
    """A new pool process, and a database that is away when the first events come."""

    @pytest.fixture(autouse=True)
    def _away_at_first(self, tour: Tour, monkeypatch: pytest.MonkeyPatch) -> None:
        measure, outages = clock._measure, [1, 2]

        def at_first_away() -> Any:
            if outages:
                outages.pop()
                raise OperationalError("away") from psycopg.OperationalError("away")
            return measure()

        monkeypatch.setattr(clock, "_measure", at_first_away)

    def test_it_parks_nothing(self, tour: Tour) -> None:
        inbox.process(CONSUMERS[CREATED], deliveries(created(tour.pk, "B")))
        assert (parked(), tour.reservations.count()) == ([], 1)

    def test_what_the_broker_gave_up_on_is_the_dead_letter_that_it_was(self) -> None:
        event = body(created(4242, event_id="one"))
        record_dead_letters([Delivery(event, routing_key=CREATED, died_of="delivery_limit")])
        inbox.process(CONSUMERS[CREATED], [Delivery(event)])
        assert parked() == [("unknown_tour", "one")]


@SERVERS
class TestAMachineWhoseClockIsWrong:
    def test_it_forgets_nothing(self, shift: timedelta) -> None:
        inbox.process(CONSUMERS[CREATED], deliveries(created(TourFactory.create().pk)))
        for forget in retention.CLEANUP:
            forget()
        assert ProcessedEvent.objects.count() == 1

    def test_it_takes_what_is_neither_stale_nor_of_the_future(self, shift: timedelta) -> None:
        tour = TourFactory.create()
        for hours in (-1, 0, 23):
            stamp = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
            inbox.process(
                CONSUMERS[CREATED], deliveries(created(tour.pk, f"B{hours}", timestamp=stamp))
            )
        assert (parked(), tour.reservations.count()) == ([], 3)

    def test_it_steals_no_lease_and_leaves_none_that_has_ended(self, shift: timedelta) -> None:
        for booking, seconds in (("held", 5), ("ended", -5)):
            RefundFactory.create(
                booking_id=booking, lease_until=database_time() + timedelta(seconds=seconds)
            )
        rows = leases.due(Refund.objects.all(), clock.now())
        assert [row.booking_id for row in rows] == ["ended"]


class TestALease:
    def taken(self) -> Refund:
        RefundFactory.create(next_attempt_at=clock.now())
        row = leases._take(Refund.objects.all())
        assert row is not None
        return row

    @SERVERS
    def test_it_ends_by_no_clock_that_can_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        held: list[float] = []

        def attempt(row: Refund) -> leases.Conclusion:
            known = clock._known
            assert known is not None
            for days in (40, -40):
                clock._known = known._replace(moment=known.moment + timedelta(days=days))
                leases.still_held(row)
                held.append(leases.seconds_left(row))
            return leases.Conclusion()

        leases.carry_on(self.taken(), attempt)
        assert [round(seconds / 10) for seconds in held] == [18, 18]

    def test_it_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        row = self.taken()
        leases.still_held(row)
        later(monkeypatch, 181)
        with pytest.raises(leases.LeaseLost):
            leases.still_held(row)

    def test_it_is_begun_anew_before_a_message_goes_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = self.taken()
        leases.still_held(row)
        later(monkeypatch, 100)
        leases.begin_anew(row, last_error="sending")
        later(monkeypatch, 100)
        leases.still_held(row)
        stored = Refund.objects.get()
        assert (stored.lease_until, stored.last_error) == (row.lease_until, "sending")
