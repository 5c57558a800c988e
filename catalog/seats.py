"""The rules of seats: who gets them, and who gives them back.

``decide`` is pure: state and events in, decisions and the new state out. With no shortage of seats
the end state depends neither on the order of the events nor on their repetition. With a shortage the
order decides who gets the last seat, and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from django.db import models

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingCreated
from booking_platform.messaging.rules import Refused, reason
from catalog.models import Reservation

State = Reservation.State

UNKNOWN_TOUR = reason(
    "unknown_tour",
    "names a tour that does not exist",
    "Add the tour, if it is missing here, and replay. If the id is wrong, the producer must correct it.",
)
OTHER_TOUR = reason(
    "other_tour",
    "names another tour than its booking did before",
    "A booking belongs to one tour: the producer must cancel it and book the other tour anew.",
)


class Outcome(models.TextChoices):
    """What an event did: the state that its booking came to, or nothing."""

    RESERVED = "reserved", "took its seats"
    REJECTED = "rejected", "found too few seats and took none"
    RELEASED = "released", "gave its seats back, or came after its own cancellation"
    CANCELLED = "cancelled", "cancelled a booking whose creation has not arrived"
    UNCHANGED = "unchanged", "said again what was known of its booking"


class Seats(NamedTuple):
    """A tour's numbers, as its row has them."""

    tour_id: int
    version: int
    capacity: int
    reserved: int
    unledgered: int

    @property
    def available(self) -> int:
        return max(0, self.capacity - self.reserved - max(0, self.unledgered))


class Booking(NamedTuple):
    """A reservation, as its row has it."""

    booking_id: str
    tour_id: int
    seats: int
    state: str
    seats_cancelled: int | None = None
    created_event_id: str = ""
    cancelled_event_id: str = ""


class Decision(NamedTuple):
    """What is decided about one event, and the numbers of its tour before and after it."""

    outcome: Outcome | Refused
    before: Seats | None = None
    after: Seats | None = None


class Decided(NamedTuple):
    """The decisions about events, one for each, and the state after all of them."""

    decisions: list[Decision]
    tours: dict[int, Seats]
    bookings: dict[str, Booking]


def decide(
    tours: Mapping[int, Seats], bookings: Mapping[str, Booking], events: Iterable[Event]
) -> Decided:
    """Decide events in their order, by the state of their tours and bookings."""
    decided = Decided([], dict(tours), dict(bookings))
    for event in events:
        decision, booking = _decide_one(decided.tours, decided.bookings, event)
        decided.decisions.append(decision)
        if decision.after is not None:
            decided.tours[decision.after.tour_id] = decision.after
        if booking is not None:
            decided.bookings[booking.booking_id] = booking
    return decided


def _decide_one(
    tours: Mapping[int, Seats], bookings: Mapping[str, Booking], event: Event
) -> tuple[Decision, Booking | None]:
    """Return the decision about one event, and its booking as it is after that."""
    payload: BookingCreated | BookingCancelled = event.payload
    tour = tours.get(payload.tour_id)
    if tour is None:
        detail = f"payload.tourId is {payload.tour_id}: there is no such tour"
        return Decision(Refused(UNKNOWN_TOUR, detail)), None
    booking = bookings.get(payload.booking_id) if payload.booking_id else None
    if booking is not None and booking.tour_id != tour.tour_id:
        detail = (
            f"payload.tourId is {tour.tour_id}: "
            f"booking {booking.booking_id!r} was for tour {booking.tour_id}"
        )
        return Decision(Refused(OTHER_TOUR, detail)), None
    if isinstance(payload, BookingCreated):
        outcome, after, booking = _create(tour, booking, event.event_id, payload)
    else:
        outcome, after, booking = _cancel(tour, booking, event.event_id, payload)
    return Decision(outcome, tour, after), booking


Change = tuple[Outcome, Seats, Booking | None]


def _create(tour: Seats, booking: Booking | None, event_id: str, payload: BookingCreated) -> Change:
    seats = payload.seats_booked
    if payload.booking_id is None:
        return _create_unledgered(tour, seats)
    if booking is None:
        fits = seats <= tour.available
        booking = Booking(
            payload.booking_id,
            tour.tour_id,
            seats,
            State.RESERVED if fits else State.REJECTED,
            created_event_id=event_id,
        )
        if fits:
            return Outcome.RESERVED, tour._replace(reserved=tour.reserved + seats), booking
        return Outcome.REJECTED, tour, booking
    if booking.state == State.CANCELLED:
        # The pair nets to zero: what the cancellation gave back is taken again, to the seat.
        booking = booking._replace(state=State.RELEASED, created_event_id=event_id)
        after = tour._replace(unledgered=tour.unledgered + booking.seats)
        return Outcome.RELEASED, after, booking
    return Outcome.UNCHANGED, tour, booking


def _create_unledgered(tour: Seats, seats: int) -> Change:
    """Decide a creation that names no booking, so that none can be looked up later."""
    after = tour._replace(unledgered=tour.unledgered + seats)
    takes = max(0, after.unledgered) - max(0, tour.unledgered)
    if takes <= tour.available:
        return Outcome.RESERVED, after, None
    return Outcome.REJECTED, tour, None


def _cancel(
    tour: Seats, booking: Booking | None, event_id: str, payload: BookingCancelled
) -> Change:
    seats = payload.seats_released
    if booking is None:
        booking = Booking(
            payload.booking_id,
            tour.tour_id,
            seats,
            State.CANCELLED,
            seats_cancelled=seats,
            cancelled_event_id=event_id,
        )
        after = tour._replace(unledgered=tour.unledgered - seats)
        return Outcome.CANCELLED, after, booking
    if booking.state == State.RESERVED:
        # The stored seats count, whatever the message says.
        after = tour._replace(reserved=tour.reserved - booking.seats)
        booking = booking._replace(
            state=State.RELEASED, seats_cancelled=seats, cancelled_event_id=event_id
        )
        return Outcome.RELEASED, after, booking
    return Outcome.UNCHANGED, tour, booking
