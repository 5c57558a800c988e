"""Real workers behind PgBouncer, in both its modes."""

import psycopg
import pytest

from booking_platform.development.stripe_sandbox import Sandbox
from payments.models import Refund
from tests.events import cancelled, created
from tests.factories import TourFactory
from tests.pgbouncer import PgBouncer
from tests.platform import Platform, assert_adds_up, parked, processed

pytestmark = pytest.mark.servers

BOOKINGS = 1200
SLOWLY = 400  # of them
REFUNDS = 60


class TestUnderLoad:
    def test_every_event_is_applied_once_and_none_is_parked(
        self, platform: Platform, bouncer: PgBouncer
    ) -> None:
        tours = [TourFactory.create(capacity=BOOKINGS) for _ in range(4)]
        platform.environment["DATABASE_URL"] = bouncer.url()
        for _ in range(2):
            platform.start("-c", "2", "-Q", "catalog", wait=False)
        events = [created(tours[n % 4].pk, f"B{n}") for n in range(BOOKINGS)]
        for start in range(0, SLOWLY, 10):  # many small groups: each process prepares and repeats
            platform.publish(events[start : start + 10])
            platform.wait_for_processed(start + 10)
        platform.publish(events * 2)
        gone = [cancelled(tours[n % 4].pk, f"B{n}") for n in range(0, BOOKINGS, 2)]
        platform.publish(gone, key="booking.cancelled")
        platform.wait_for_processed(BOOKINGS + len(gone))
        for tour in tours:
            assert_adds_up(tour)
        assert sum(tour.reserved_seats for tour in tours) == BOOKINGS - len(gone)
        assert processed("tour-catalog.booking-created") == BOOKINGS
        assert parked() == []

    def test_refunds_are_made_once(
        self, platform: Platform, bouncer: PgBouncer, stripe: Sandbox
    ) -> None:
        platform.environment["DATABASE_URL"] = bouncer.url()
        platform.environment["STRIPE_API_BASE"] = stripe.url
        payments = [stripe.payment(amount=15_000, currency="eur") for _ in range(REFUNDS)]
        for _ in range(2):
            platform.start("-c", "2", "-Q", "payments", wait=False)
        events = [
            cancelled(1, f"B{n}", paymentId=payment, amount=60.0, currency="eur")
            for n, payment in enumerate(payments)
        ]
        platform.publish(events * 2, key="booking.cancelled")
        done = Refund.objects.filter(status=Refund.Status.COMPLETED)
        platform.wait_for(lambda: done.count() == REFUNDS, "all refunds are completed")
        assert parked() == []

    def test_a_restart_of_it_is_waited_out(self, platform: Platform, bouncer: PgBouncer) -> None:
        tour = TourFactory.create(capacity=BOOKINGS)
        platform.environment["DATABASE_URL"] = bouncer.url()
        worker = platform.start("-c", "2", "-Q", "catalog")
        bouncer.stop()
        platform.publish(created(tour.pk, f"B{n}") for n in range(BOOKINGS))
        platform.wait_for(lambda: "waiting in place" in worker.log, "the worker notices")
        bouncer.start()
        platform.wait_for_processed(BOOKINGS)
        assert_adds_up(tour)
        assert parked() == []


class TestAnExhaustedPool:
    def test_it_is_waited_out(self, platform: Platform, transaction_bouncer: PgBouncer) -> None:
        tour = TourFactory.create(capacity=BOOKINGS)
        platform.environment["DATABASE_URL"] = transaction_bouncer.url()
        with psycopg.connect(transaction_bouncer.url()) as hog:
            hog.execute("SELECT 1")  # and keeps the only connection to the server
            worker = platform.start("-c", "2", "-Q", "catalog")
            platform.publish([created(tour.pk, "B")])
            platform.wait_for(lambda: "query_wait_timeout" in worker.log, "PgBouncer's own error")
        platform.wait_for_processed(1)
        assert parked() == []
