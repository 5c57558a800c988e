"""Producers and listeners of other teams, in Python and in Node.js, on a real broker."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest

from booking_platform.contract.announcements import (
    RefundAnnouncement,
    RefundCompleted,
    RefundFailed,
    RefundNeedsReview,
    RefundRequested,
    RefundSettled,
    TourAvailabilityChanged,
)
from booking_platform.contract.announcing import Announced, announced
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.publishing import Outgoing, Publisher
from catalog.models import Tour
from payments.answers import GIVEN_BACK
from payments.models import Refund
from tests import foreign
from tests.events import cancelled, changed, created
from tests.factories import TourFactory
from tests.foreign import LANGUAGES, Listener, Said, book
from tests.platform import Platform

pytestmark = pytest.mark.servers

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AT_STRIPE: dict[type[RefundAnnouncement], Literal["completed", "failed"]] = {
    RefundCompleted: "completed",
    RefundFailed: "failed",
}
STATUS = {
    RefundRequested: "requested",
    RefundCompleted: "completed",
    RefundFailed: "failed",
    RefundNeedsReview: "needs_review",
    RefundSettled: "settled",
}


@pytest.fixture(scope="module", autouse=True)
def _their_users() -> Iterator[None]:
    with foreign.users():
        yield


@pytest.fixture(autouse=True)
def _their_queues(platform: Platform) -> Iterator[None]:
    yield
    for queue in foreign.QUEUES:
        platform.delete_queue(queue)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def listener(language: str, tmp_path: Path, platform: Platform) -> Iterator[Listener]:
    """A listener whose queue is there, so that nothing is missed."""
    listener = Listener(language, tmp_path)
    listener.start()
    queue = "warehouse.announcements" if language == "python" else "web.announcements"
    try:
        platform.wait_for(lambda: consumers(platform, queue) == 1, f"a consumer of {queue}")
        yield listener
        assert "Not an announcement" not in listener.log
    finally:
        listener.kill()


def consumers(platform: Platform, queue: str) -> int:
    try:
        with platform.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).consumer_count)
    except Exception:  # it is not there yet
        return 0


def wait_until_equal(platform: Platform, actual: Any, expected: Any, what: str) -> None:
    try:
        platform.wait_for(lambda: actual() == expected(), what)
    except AssertionError:
        assert actual() == expected()  # shows in what they differ


class TestAProducer:
    def test_it_hears_what_became_of_its_bookings(self, language: str, platform: Platform) -> None:
        tour = TourFactory.create(capacity=3)
        platform.start()

        reserved = book(language, "BK-1", tour.pk, 2)
        rejected = book(language, "BK-2", tour.pk, 2)
        refused = book(language, "BK-3", tour.pk, 0)

        assert reserved[:2] == (0, "SeatsReserved")
        assert reserved.payload["seatsHeld"] == 2
        assert rejected[:2] == (1, "SeatsRejected")
        assert (rejected.payload["available"], rejected.payload["reason"]) == (
            1,
            "not_enough_seats",
        )
        assert refused[:2] == (1, "EventParked")
        assert refused.payload["detail"].startswith("payload.seatsBooked is 0: expected")

    def test_the_same_booking_again_is_the_same_event(
        self, language: str, platform: Platform
    ) -> None:
        tour = TourFactory.create(capacity=3)
        platform.start()

        assert book(language, "BK-1", tour.pk, 2).status == 0
        assert book(language, "BK-1", tour.pk, 2, wait=2) == Said(2, "", {})

        tour.refresh_from_db()
        assert tour.reserved_seats == 2

    def test_what_came_while_it_was_away_waits_for_it(
        self, language: str, platform: Platform
    ) -> None:
        tour = TourFactory.create(capacity=3)
        assert book(language, "BK-1", tour.pk, 2, wait=0.1).status == 2  # nobody works

        platform.start()
        platform.wait_for_processed(1)

        assert book(language, "BK-1", tour.pk, 2)[:2] == (0, "SeatsReserved")


class TestAListener:
    def test_it_knows_the_end_however_it_is_told(
        self, platform: Platform, listener: Listener
    ) -> None:
        """Repeated, tours out of order, and killed in between."""
        random = Random(12)
        said, tours, refunds = history(random)
        for start in range(0, len(said), 100):
            publish(said[start : start + 100])
            if random.random() < 0.5:
                listener.kill()
                listener.start()

        wait_until_equal(platform, lambda: listener.tours, lambda: tours, "the tours")
        wait_until_equal(platform, lambda: listener.refunds, lambda: refunds, "the refunds")

    def test_it_ignores_what_it_does_not_know(self, platform: Platform, listener: Listener) -> None:
        told = availability(1, 1)
        more = told.body[:-2] + b',"new":{"a":[1]}},"more":null}'
        unknown = more.replace(b"TourAvailabilityChanged", b"TourRenamed")
        with_id = unknown.replace(b'"eventId":"', b'"eventId":"another-')

        publish([Announced(told.routing_key, with_id), Announced(told.routing_key, more)])

        wait_until_equal(
            platform, lambda: listener.tours, lambda: {1: (20, 19, 1, 0, 1)}, "the tour"
        )

    def test_seats_are_those_of_the_tables(self, platform: Platform, listener: Listener) -> None:
        tours = [TourFactory.create(capacity=60) for _ in range(4)]
        random = Random(5)
        platform.start()
        bookings = {f"B{n}": (random.choice(tours).pk, random.randint(1, 4)) for n in range(150)}
        platform.publish(created(tour, booking, n) for booking, (tour, n) in bookings.items())
        platform.publish(
            (changed(tour, booking, n + 1, revision=1)
             for booking, (tour, n) in list(bookings.items())[:40]),
            key="booking.changed",
        )  # fmt: skip
        listener.kill()
        platform.publish(
            (cancelled(tour, booking, n, seatsRemaining=0, revision=2)
             for booking, (tour, n) in list(bookings.items())[20:60]),
            key="booking.cancelled",
        )  # fmt: skip
        listener.start()
        platform.wait_for_processed(230)

        wait_until_equal(
            platform,
            lambda: {tour: numbers[:-1] for tour, numbers in listener.tours.items()},
            seats_in_the_tables,
            "the seats",
        )
        assert len(listener.tours) == len(tours)

    def test_refunds_are_those_of_the_tables(
        self, platform: Platform, listener: Listener, stripe: Sandbox
    ) -> None:
        tour = TourFactory.create(capacity=100)
        platform.environment["STRIPE_API_BASE"] = stripe.url
        platform.start()
        payments = {
            "B1": ("pi_sandbox_15000_eur_1", 60), "B2": ("pi_sandbox_15000_eur_2", "150.00"),
            "B3": ("pi_sandbox_15000_eur_3", 151), "B4": ("pi_sandbox_15000_jpy_4", 15_000),
            "B5": ("no_such_payment", 10),
        }  # fmt: skip
        platform.publish(created(tour.pk, booking, 4) for booking in payments)
        platform.wait_for_processed(len(payments))
        platform.publish(
            (cancelled(tour.pk, booking, 1, seatsRemaining=3, paymentId=payment, amount=amount)
             for booking, (payment, amount) in payments.items()),
            key="booking.cancelled",
        )  # fmt: skip
        again = {"B1": (payments["B1"][0], 90), "B2": ("pi_sandbox_5000_eur_6", 50)}
        platform.publish(
            (cancelled(tour.pk, booking, 3, seatsRemaining=0, paymentId=payment, amount=amount)
             for booking, (payment, amount) in again.items()),
            key="booking.cancelled",
        )  # fmt: skip
        platform.wait_for(
            lambda: (
                Refund.objects.count() == 7
                and not Refund.objects.filter(status="in_progress", needs_review=False).exists()
            ),
            "all refunds have come to an end",
        )

        wait_until_equal(platform, lambda: listener.refunds, refunds_in_the_tables, "the refunds")
        statuses = {status for status, _, _ in listener.refunds.values()}
        assert statuses == {"completed", "failed", "needs_review"}


def seats_in_the_tables() -> dict[int, tuple[int, ...]]:
    """Without the version, which also grows where a group has changed no number."""
    return {
        tour.pk: (
            tour.capacity,
            tour.available_seats,
            tour.reserved_seats,
            tour.overbooked_seats,
        )
        for tour in Tour.objects.all()
    }


def refunds_in_the_tables() -> dict[tuple[str, str, int], tuple[str, Decimal, str | None]]:
    def status(refund: Refund) -> str:
        if refund.settled_at and not refund.needs_review:
            return "settled"
        if refund.status == Refund.Status.FAILED or refund.stripe_status in GIVEN_BACK:
            return "failed"
        if refund.needs_review:
            return "needs_review"
        return {"in_progress": "requested"}.get(refund.status, refund.status)

    return {
        (refund.booking_id, refund.payment_id, refund.seats_remaining): (
            status(refund),
            Decimal(str(refund.amount_asked)).normalize(),
            refund.currency or None,
        )
        for refund in Refund.objects.all()
    }


def publish(announcements: list[Announced]) -> None:
    """Publish as the platform does: in order, confirmed."""
    outgoing = [Outgoing(*each) for each in announcements]
    publisher = Publisher()
    try:
        assert publisher.publish(outgoing) == len(outgoing)
    finally:
        publisher.close()


def availability(tour: int, version: int) -> Announced:
    payload = TourAvailabilityChanged(
        tour_id=tour,
        capacity=20,
        available=20 - version % 20,
        reserved=version % 20,
        unledgered=0,
        overbooked=0,
        version=version,
    )
    return announced(payload, cause=f"{tour} {version}", at=NOON)


Refunds = dict[tuple[str, str, int], tuple[str, Decimal, str | None]]


def history(random: Random) -> tuple[list[Announced], dict[int, tuple[int, ...]], Refunds]:
    """Return announcements as an outbox may publish them, and what is true in the end.

    Those of one booking are in order, and may be repeated from any on; those of tours come anyhow.
    """
    tours = [availability(tour, version) for tour in range(1, 6) for version in range(1, 41)]
    random.shuffle(tours)
    refunds: Refunds = {}
    lives = []
    for number in range(40):
        booking, amount = f"B{number}", Decimal(random.randint(1, 99_999)) / 100
        currency = random.choice(["eur", "jpy", None])
        life = []
        for step in random.sample([0, 1, 2], random.randint(1, 3)):
            key = (booking, f"pi_{number}", step)
            ends = [RefundRequested, *random.choices(list(STATUS), k=random.randint(0, 4))]
            for at, kind in enumerate(ends):
                life.append(refund(kind, key, amount, currency, at))
            refunds[key] = (STATUS[ends[-1]], amount, currency)
        again = random.randrange(len(life))
        lives.append(life + life[again:])
    said = tours + random.sample(tours, 50)
    for life in lives:
        places = sorted(random.choices(range(len(said) + 1), k=len(life)), reverse=True)
        for place, each in zip(places, reversed(life), strict=True):
            said.insert(place, each)
    last: dict[int, tuple[int, ...]] = dict.fromkeys(range(1, 6), (20, 20, 0, 0, 40))
    return said, last, refunds


def refund(
    kind: type[RefundAnnouncement],
    key: tuple[str, str, int],
    amount: Decimal,
    currency: str | None,
    at: int,
) -> Announced:
    booking, payment, step = key
    payload = kind(
        booking_id=booking,
        payment_id=payment,
        seats_remaining=step,
        amount=amount,
        currency=currency,
        status=AT_STRIPE.get(kind, "in_progress"),
        version=at + 1,
    )
    return announced(payload, cause=f"{key} {at}", at=NOON + timedelta(minutes=at))
