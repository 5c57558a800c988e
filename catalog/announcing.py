"""What the catalog announces: what became of a booking's seats, and the numbers of its tour."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from booking_platform.contract.announcements import (
    SeatsChanged,
    SeatsRejected,
    SeatsReleased,
    SeatsReserved,
    TourAvailabilityChanged,
)
from booking_platform.contract.announcing import Announced, announced
from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCreated
from catalog.bookings import Decision, Outcome, Seats

NOT_ENOUGH_SEATS = "not_enough_seats"
NOT_CREATED_YET = "not_created_yet"
CANCELLED_BEFORE = "cancelled_before"

REASONS = {
    NOT_ENOUGH_SEATS: "the tour has fewer seats left",
    NOT_CREATED_YET: "the creation of the booking has not arrived; it will find what was said of it",
    CANCELLED_BEFORE: "the booking was cancelled before its creation arrived",
}


def of_booking(event: Event, decision: Decision, at: datetime) -> list[Announced]:
    """Return what is announced of a decision about an event: nothing where it had no effect."""
    make = _MAKERS.get(decision.outcome) if isinstance(decision.outcome, Outcome) else None
    if make is None:
        return []
    cause = f"{event.event_type}\0{event.event_id}"
    return [announced(make(event, decision), cause=cause, at=at)]


def key_of(outcome: Outcome) -> str:
    """Return the routing key under which an outcome is announced; empty where it is not."""
    return _KEYS.get(outcome, "")


def of_tour(tour: Seats, version: int, at: datetime) -> Announced:
    """Return the announcement of the numbers that a tour has from this version on."""
    payload = TourAvailabilityChanged(
        tour_id=tour.tour_id,
        capacity=tour.capacity,
        available=tour.available,
        reserved=tour.reserved,
        unledgered=tour.unledgered,
        overbooked=tour.overbooked,
        version=version,
    )
    return announced(payload, cause=f"{tour.tour_id}\0{version}", at=at)


def _reserved(event: Event, decision: Decision) -> SeatsReserved:
    payload: BookingCreated = event.payload
    # Nobody keeps what a booking without an id holds.
    held = decision.held if decision.booking else payload.seats_booked
    return SeatsReserved(**_named(event) | {"seats_held": held}, seats=payload.seats_booked)


def _rejected(event: Event, decision: Decision) -> SeatsRejected:
    payload = event.payload
    asked = payload.seats_booked if isinstance(payload, BookingCreated) else payload.seats
    available = decision.before.available if decision.before else 0
    return SeatsRejected(
        **_named(event, decision), seats=asked, available=available, reason=NOT_ENOUGH_SEATS
    )


def _released(event: Event, decision: Decision) -> SeatsReleased:
    late = isinstance(event.payload, BookingCreated)
    return SeatsReleased(
        **_named(event, decision),
        seats=max(0, -decision.taken),
        reason=CANCELLED_BEFORE if late else None,
    )


def _released_nothing_yet(event: Event, decision: Decision) -> SeatsReleased:
    return SeatsReleased(**_named(event, decision), seats=0, reason=NOT_CREATED_YET)


def _changed(event: Event, decision: Decision) -> SeatsChanged:
    before = decision.held - decision.taken
    return SeatsChanged(**_named(event, decision), seats=event.payload.seats, seats_before=before)


def _changed_nothing_yet(event: Event, decision: Decision) -> SeatsChanged:
    return SeatsChanged(
        **_named(event, decision), seats=event.payload.seats, seats_before=0, reason=NOT_CREATED_YET
    )


def _named(event: Event, decision: Decision | None = None) -> dict[str, Any]:
    payload = event.payload
    named = {
        "booking_id": payload.booking_id,
        "tour_id": payload.tour_id,
        "caused_by": event.event_id,
    }
    return named if decision is None else named | {"seats_held": decision.held}


_MAKERS: dict[Outcome, Callable[[Event, Decision], Any]] = {
    Outcome.RESERVED: _reserved,
    Outcome.REJECTED: _rejected,
    Outcome.CHANGE_REJECTED: _rejected,
    Outcome.RELEASED: _released,
    Outcome.REDUCED: _released,
    Outcome.CANCELLED: _released_nothing_yet,
    Outcome.CHANGED: _changed,
    Outcome.REMEMBERED: _changed_nothing_yet,
}

_KEYS: dict[Outcome, str] = {
    Outcome.RESERVED: SeatsReserved.routing_key,
    Outcome.REJECTED: SeatsRejected.routing_key,
    Outcome.CHANGE_REJECTED: SeatsRejected.routing_key,
    Outcome.RELEASED: SeatsReleased.routing_key,
    Outcome.REDUCED: SeatsReleased.routing_key,
    Outcome.CANCELLED: SeatsReleased.routing_key,
    Outcome.CHANGED: SeatsChanged.routing_key,
    Outcome.REMEMBERED: SeatsChanged.routing_key,
}
