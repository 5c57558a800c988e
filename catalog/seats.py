"""The rules of seats: who gets them, who gives them back, and how that is written.

``decide`` is pure: state and events in, answers and state out. With no shortage of seats the end
state depends neither on the order of the events nor on their repetition; with a shortage the order
decides who gets the last seat, and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog
from django.db import models, transaction
from django.utils import timezone

from booking_platform.messaging.consumers import LostRace, Refused
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.events import BookingCancelled, BookingCreated
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rows import compare_and_set, insert_missing, read
from catalog.models import Reservation, Tour

log = structlog.get_logger(__name__)

State = Reservation.State


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
    """The answer to one event, and its tour's numbers before and after it."""

    answer: str | Refused
    before: Seats | None = None
    after: Seats | None = None


def decide(
    tours: dict[int, Seats], bookings: dict[str, Booking], events: Iterable[Event]
) -> list[Decision]:
    """Decide events in their order; ``tours`` and ``bookings`` become the state after them."""
    return [_decide_one(tours, bookings, event) for event in events]


def _decide_one(tours: dict[int, Seats], bookings: dict[str, Booking], event: Event) -> Decision:
    payload: BookingCreated | BookingCancelled = event.payload
    tour = tours.get(payload.tour_id)
    if tour is None:
        detail = f"payload.tourId is {payload.tour_id}: there is no such tour"
        return Decision(Refused(DeadLetter.Reason.UNKNOWN_TOUR, detail))
    booking = bookings.get(payload.booking_id) if payload.booking_id else None
    if booking is not None and booking.tour_id != tour.tour_id:
        detail = (
            f"payload.tourId is {tour.tour_id}: "
            f"booking {booking.booking_id!r} was for tour {booking.tour_id}"
        )
        return Decision(Refused(DeadLetter.Reason.OTHER_TOUR, detail))
    if isinstance(payload, BookingCreated):
        outcome, after, booking = _create(tour, booking, event.event_id, payload)
    else:
        outcome, after, booking = _cancel(tour, booking, event.event_id, payload)
    tours[tour.tour_id] = after
    if booking is not None:
        bookings[booking.booking_id] = booking
    return Decision(outcome, tour, after)


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
    """Take seats for an event that names no booking, so that none can be looked up later."""
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


def apply(events: Sequence[Event], *, lock: bool) -> list[str | Refused]:
    """Read, decide and write, in the caller's transaction, with the same number of statements for
    one event as for hundreds.

    Every tour that an event speaks of gets a new version, even if its numbers stay: who decides
    by a reservation must notice that it changed.

    Raises:
        LostRace: a tour or a reservation changed since it was read.
    """
    tours = _read_tours({event.payload.tour_id for event in events}, lock=lock)
    # Only now, in a statement of its own: a join after a wait for the lock would pair a tour's
    # new version with an old reservation.
    bookings = _read_bookings({event.payload.booking_id for event in events} - {None})
    tours_after, bookings_after = dict(tours), dict(bookings)
    decisions = decide(tours_after, bookings_after, events)
    touched = sorted({decision.after.tour_id for decision in decisions if decision.after})
    _write_tours([(tours[tour_id], tours_after[tour_id]) for tour_id in touched])
    _write_bookings(bookings, bookings_after)
    transaction.on_commit(lambda: _tell(events, decisions))
    return [decision.answer for decision in decisions]


def _read_tours(tour_ids: set[int], *, lock: bool) -> dict[int, Seats]:
    columns = ("id", "optimistic_lock_version", "capacity", "reserved_seats", "unledgered_seats")
    rows = read(Tour, columns, key="id", values=tour_ids, lock=lock)
    return {row[0]: Seats(*row) for row in rows}


def _read_bookings(booking_ids: set[str]) -> dict[str, Booking]:
    rows = read(Reservation, Booking._fields, key="booking_id", values=booking_ids)
    return {row[0]: Booking(*row) for row in rows}


def _write_tours(changes: Sequence[tuple[Seats, Seats]]) -> None:
    """Compare and set each tour, in id order, as other groups do."""
    now = timezone.now()
    written = compare_and_set(
        Tour,
        (
            "id",
            "available_seats",
            "reserved_seats",
            "unledgered_seats",
            "optimistic_lock_version",
            "updated_at",
        ),
        [
            (
                after.tour_id,
                after.available,
                after.reserved,
                after.unledgered,
                before.version + 1,
                now,
            )
            for before, after in changes
        ],
        key="id",
        guard="optimistic_lock_version",
        guards=[before.version for before, _ in changes],
    )
    for before, _ in changes:
        if before.tour_id not in written:
            raise LostRace("tour", tour_id=before.tour_id, version=before.version)


def _write_bookings(before: Mapping[str, Booking], after: Mapping[str, Booking]) -> None:
    now = timezone.now()
    changed = sorted(
        (booking for key, booking in after.items() if booking != before.get(key)),
        key=lambda booking: booking.booking_id,
    )
    new = [booking for booking in changed if booking.booking_id not in before]
    inserted = insert_missing(
        Reservation,
        (*Booking._fields, "created_at", "updated_at"),
        [(*booking, now, now) for booking in new],
        key="booking_id",
    )
    old = [booking for booking in changed if booking.booking_id in before]
    updated = compare_and_set(
        Reservation,
        (*Booking._fields, "updated_at"),
        [(*booking, now) for booking in old],
        key="booking_id",
        guard="state",
        guards=[before[booking.booking_id].state for booking in old],
    )
    written = inserted | updated
    for booking in changed:
        if booking.booking_id not in written:
            raise LostRace("reservation", booking_id=booking.booking_id, tour_id=booking.tour_id)


def _tell(events: Sequence[Event], decisions: Sequence[Decision]) -> None:
    """Log what a person should know: refused customers, and cancellations that don't add up."""
    for event, (answer, before, after) in zip(events, decisions, strict=True):
        if before is None or after is None:
            continue
        payload = event.payload
        if answer == Outcome.REJECTED:
            log.warning(
                "Booking rejected: not enough seats",
                event_id=event.event_id,
                booking_id=payload.booking_id,
                tour_id=before.tour_id,
                seats=payload.seats_booked,
                available=before.available,
                version=before.version,
            )
        elif answer == Outcome.RELEASED and isinstance(payload, BookingCancelled):
            released = before.reserved - after.reserved
            if released != payload.seats_released:
                log.warning(
                    "Cancellation names other seats than were booked: those booked are released",
                    event_id=event.event_id,
                    booking_id=payload.booking_id,
                    tour_id=before.tour_id,
                    seats=released,
                    seats_cancelled=payload.seats_released,
                )
