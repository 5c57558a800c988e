"""The demo's scenarios of seats."""

from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import Sum

from booking_platform.development.scenario import (
    RUN,
    Scenario,
    cancelled,
    created,
    new_tour,
    publish,
    publish_at_once,
    wait_for,
)
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from catalog.models import Reservation, Tour


def seat_scenarios() -> Iterator[Scenario]:
    """Create the tours, and yield the scenarios that use them."""
    yield _five_in_a_row()
    yield _rush()
    yield _five_cancellations()
    yield _cancelled_before_created()
    yield _refused()


def _five_in_a_row() -> Scenario:
    tour = new_tour("Walk along the Seine", capacity=10)
    bodies = [created(tour, f"a{number}") for number in range(5)]
    return Scenario(
        "five bookings of one seat, 50 ms apart, on a tour with 10 seats",
        lambda: publish(bodies, pause=0.05),
        lambda: _processed("a") == 5,
        [
            ("seats available", 5, lambda: _seats(tour)),
            ("bookings reserved", 5, lambda: _bookings(tour, Reservation.State.RESERVED)),
        ],
    )


def _rush() -> Scenario:
    tour = new_tour("Louvre by night", capacity=120)
    bodies = [created(tour, f"b{number}") for number in range(200)]
    repeated = bodies + bodies[:30]
    return Scenario(
        "200 concurrent bookings on a tour with 120 seats, 30 of them sent twice",
        lambda: publish_at_once(repeated),
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
    tour = new_tour("Paris City Tour", capacity=20, available_seats=10)
    return Scenario(
        "the same cancellation five times on a tour with 10 of 20 seats free",
        lambda: publish([cancelled(tour, "c", seats=2)] * 5),
        lambda: _processed("c") == 1,
        [
            ("seats available", 12, lambda: _seats(tour)),
            ("events processed", 1, lambda: _processed("c")),
        ],
    )


def _cancelled_before_created() -> Scenario:
    tour = new_tour("Versailles", capacity=10)

    def play() -> None:
        publish([cancelled(tour, "d", seats=3, event="d-cancelled")])
        wait_for(lambda: _processed("d") == 1)
        publish([created(tour, "d", seats=3, event="d-created")])

    return Scenario(
        "a cancellation before its creation",
        play,
        lambda: _processed("d") == 2,
        [
            ("seats available", 10, lambda: _seats(tour)),
            ("booking released", 1, lambda: _bookings(tour, Reservation.State.RELEASED)),
        ],
    )


def _refused() -> Scenario:
    tour = new_tour("Montmartre", capacity=10)
    broken = f'{{"eventId": "{RUN}-e-broken", "payload": '.encode()
    first, other = created(tour, "e1", event="e-used"), created(tour, "e2", event="e-used")
    unknown = created(2**62, "e3", event="e-unknown")

    def play() -> None:
        publish([first])
        wait_for(lambda: _processed("e") == 1)
        publish([("booking.created", broken), unknown, other])

    def parked(reason: str, **which: Any) -> Callable[[], int]:
        return lambda: DeadLetter.objects.filter(reason=reason, **which).count()

    malformed = parked("malformed", body=broken)
    no_tour = parked("unknown_tour", event_id=f"{RUN}-e-unknown")
    conflict = parked("conflict", event_id=f"{RUN}-e-used")
    return Scenario(
        "broken JSON, an unknown tour, and an event id reused with another payload",
        play,
        lambda: malformed() + no_tour() + conflict() == 3,
        [
            ("seats available", 9, lambda: _seats(tour)),
            ("broken JSON parked", 1, malformed),
            ("unknown tour parked", 1, no_tour),
            ("reused id parked", 1, conflict),
        ],
    )


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
