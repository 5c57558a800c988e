"""The demo's scenarios: what is published, and what the database must say in the end."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from django.db.models import Sum
from django.utils import timezone

from booking_platform.messaging import publisher
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.topology import EVENTS
from catalog.models import Reservation, Tour

PUBLISHERS = 20  # at once, for the concurrent scenario
RUN = uuid4().hex[:8]  # tells this run's rows from those of others in the same database

Body = tuple[str, bytes]  # a routing key, and what is published under it


@dataclass
class Scenario:
    """What happens, and the questions to the database with the answers that must come."""

    title: str
    publish: Callable[[], None]
    settled: Callable[[], bool]
    checks: list[tuple[str, object, Callable[[], object]]] = field(default_factory=list)


def scenarios() -> Iterator[Scenario]:
    """Make the tours and give the scenarios that use them."""
    yield _five_in_a_row()
    yield _rush()
    yield _five_cancellations()
    yield _cancelled_before_created()
    yield _refused()


def _five_in_a_row() -> Scenario:
    tour = _tour("Walk along the Seine", capacity=10)
    bodies = [_created(tour, f"a{number}") for number in range(5)]
    return Scenario(
        "five bookings of one seat, 50 ms apart, on a tour with 10 seats",
        lambda: _publish(bodies, pause=0.05),
        lambda: _processed("a") == 5,
        [
            ("seats available", 5, lambda: _seats(tour)),
            ("bookings reserved", 5, lambda: _bookings(tour, Reservation.State.RESERVED)),
        ],
    )


def _rush() -> Scenario:
    tour = _tour("Louvre by night", capacity=120)
    bodies = [_created(tour, f"b{number}") for number in range(200)]
    repeated = bodies + bodies[:30]
    return Scenario(
        "200 concurrent bookings on a tour with 120 seats, 30 of them sent twice",
        lambda: _publish_at_once(repeated),
        lambda: _processed("b") == 200,
        [
            ("seats available", 0, lambda: _seats(tour)),
            ("bookings reserved", 120, lambda: _bookings(tour, Reservation.State.RESERVED)),
            ("bookings rejected", 80, lambda: _bookings(tour, Reservation.State.REJECTED)),
            ("seats equal to the ledger", True, lambda: _adds_up(tour)),
            ("events processed", 200, lambda: _processed("b")),
        ],
    )


def _five_cancellations() -> Scenario:
    tour = _tour("Paris City Tour", capacity=20, available_seats=10)
    return Scenario(
        "the same cancellation five times on a tour with 10 of 20 seats free",
        lambda: _publish([_cancelled(tour, "c", seats=2)] * 5),
        lambda: _processed("c") == 1,
        [
            ("seats available", 12, lambda: _seats(tour)),
            ("events processed", 1, lambda: _processed("c")),
        ],
    )


def _cancelled_before_created() -> Scenario:
    tour = _tour("Versailles", capacity=10)

    def publish() -> None:
        _publish([_cancelled(tour, "d", seats=3, event="d-cancelled")])
        wait_for(lambda: _processed("d") == 1)
        _publish([_created(tour, "d", seats=3, event="d-created")])

    return Scenario(
        "a cancellation before its creation",
        publish,
        lambda: _processed("d") == 2,
        [
            ("seats available", 10, lambda: _seats(tour)),
            ("booking released", 1, lambda: _bookings(tour, Reservation.State.RELEASED)),
        ],
    )


def _refused() -> Scenario:
    tour = _tour("Montmartre", capacity=10)
    broken = f'{{"eventId": "{RUN}-e-broken", "payload": '.encode()
    first, other = _created(tour, "e1", event="e-used"), _created(tour, "e2", event="e-used")
    unknown = _created(2**62, "e3", event="e-unknown")

    def publish() -> None:
        _publish([first])
        wait_for(lambda: _processed("e") == 1)
        _publish([("booking.created", broken), unknown, other])

    def parked(reason: DeadLetter.Reason, **which: Any) -> Callable[[], int]:
        return lambda: DeadLetter.objects.filter(reason=reason, **which).count()

    malformed = parked(DeadLetter.Reason.MALFORMED, body=broken)
    no_tour = parked(DeadLetter.Reason.UNKNOWN_TOUR, event_id=f"{RUN}-e-unknown")
    conflict = parked(DeadLetter.Reason.CONFLICT, event_id=f"{RUN}-e-used")
    return Scenario(
        "broken JSON, an unknown tour, and an event id reused with another payload",
        publish,
        lambda: malformed() + no_tour() + conflict() == 3,
        [
            ("seats available", 9, lambda: _seats(tour)),
            ("broken JSON parked", 1, malformed),
            ("unknown tour parked", 1, no_tour),
            ("reused id parked", 1, conflict),
        ],
    )


# What is published.


def _tour(name: str, **seats: int) -> int:
    return Tour.objects.create(name=f"{name} (demo {RUN})", price="10.00", **seats).pk


def _created(tour: int, booking: str, *, seats: int = 1, event: str = "") -> Body:
    payload = {"bookingId": f"{RUN}-{booking}", "tourId": tour, "seatsBooked": seats}
    return "booking.created", _event(event or booking, "BookingCreated", payload)


def _cancelled(tour: int, booking: str, *, seats: int, event: str = "") -> Body:
    payload = {"bookingId": f"{RUN}-{booking}", "tourId": tour, "seatsReleased": seats}
    return "booking.cancelled", _event(event or booking, "BookingCancelled", payload)


def _event(event_id: str, event_type: str, payload: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "eventId": f"{RUN}-{event_id}",
            "eventType": event_type,
            "timestamp": timezone.now(),
            "payload": payload,
        }
    )


def _publish(bodies: Iterable[Body], *, pause: float = 0) -> None:
    with publisher.producer() as producer:
        for routing_key, body in bodies:
            publisher.publish(producer, body, exchange=EVENTS.name, routing_key=routing_key)
            time.sleep(pause)


def _publish_at_once(bodies: list[Body]) -> None:
    shares = [bodies[number::PUBLISHERS] for number in range(PUBLISHERS)]
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(_publish, shares))


# What the database says.


def _seats(tour: int) -> int:
    return Tour.objects.get(pk=tour).available_seats


def _bookings(tour: int, state: Reservation.State) -> int:
    return Reservation.objects.filter(tour=tour, state=state).count()


def _adds_up(tour: int) -> bool:
    held = Reservation.objects.filter(tour=tour, state=Reservation.State.RESERVED)
    total = held.aggregate(total=Sum("seats"))["total"] or 0
    return bool(Tour.objects.get(pk=tour).reserved_seats == total)


def _processed(scenario: str) -> int:
    """Count what the catalog processed of a scenario's events."""
    return ProcessedEvent.objects.filter(
        event_id__startswith=f"{RUN}-{scenario}", consumer__startswith="tour-catalog."
    ).count()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds; false if it did not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
