"""Events of bookings' lives, and the ledger that they are decided by, with what must always hold in it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any

import msgspec

from booking_platform.contract.envelope import Event, Payload
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from catalog.bookings import AWAITED, Booking, Decision, Outcome, Seats, State
from catalog.seats import decide

TOUR = 1
PLENTY = 10_000  # seats; more than any example here asks for

NOW = datetime(2026, 11, 22, tzinfo=UTC)
EARLY, LATE, LATER = (NOW + timedelta(hours=hours) for hours in (1, 2, 3))

_numbers = count()


def event(payload: Payload, at: datetime = NOW) -> Event:
    """Return an event with a new id, as a producer that repeats itself may."""
    said = sha256(msgspec.json.encode([type(payload).__name__, payload])).hexdigest()
    return Event(f"e-{next(_numbers)}", type(payload).__name__, at, payload, said)


def created(booking: str | None, seats: int, tour: int = TOUR, *, at: datetime = NOW) -> Event:
    return event(BookingCreated(tour_id=tour, seats_booked=seats, booking_id=booking), at)


def cancelled(
    booking: str, seats: int, tour: int = TOUR, *, at: datetime = NOW, **optional: Any
) -> Event:
    payload = BookingCancelled(booking_id=booking, tour_id=tour, seats_released=seats, **optional)
    return event(payload, at)


def changed(
    booking: str, seats: int, revision: int, tour: int = TOUR, *, at: datetime = NOW
) -> Event:
    payload = BookingChanged(booking_id=booking, tour_id=tour, seats=seats, revision=revision)
    return event(payload, at)


def repeated(one: Event, at: datetime | None = None) -> Event:
    """Return an event that says the same under an id of its own, of the same moment or another."""
    return event(one.payload, at or one.occurred_at)


def tour(capacity: int = 20, reserved: int = 0, unledgered: int = 0, tour_id: int = TOUR) -> Seats:
    return Seats(tour_id, 7, capacity, reserved, unledgered)


class Ledger:
    """The state that ``decide`` is given, and what must hold in it after every event."""

    def __init__(self, *tours: Seats, bookings: tuple[Booking, ...] = ()) -> None:
        self.tours = {seats.tour_id: seats for seats in tours}
        self.bookings = {booking.booking_id: booking for booking in bookings}
        self._sold_outside = sum(seats.unledgered for seats in tours) + self._waiting()

    @property
    def tour(self) -> Seats:
        return self.tours[TOUR]

    @property
    def states(self) -> dict[str, str]:
        return {name: str(booking.state) for name, booking in self.bookings.items()}

    @property
    def held(self) -> dict[str, int]:
        return {name: booking.held for name, booking in self.bookings.items()}

    def take(self, event: Event) -> Decision:
        """Decide one event, and check what must hold whatever it was."""
        [decision], self.tours, self.bookings = decide(self.tours, self.bookings, [event])
        if isinstance(event.payload, BookingCreated) and event.payload.booking_id is None:
            self._sold_outside += event.payload.seats_booked * (
                decision.outcome == Outcome.RESERVED
            )
        for seats in self.tours.values():
            self._check(seats)
        assert sum(seats.unledgered for seats in self.tours.values()) == (
            self._sold_outside - self._waiting()
        )
        return decision

    def take_all(self, events: Iterable[Event]) -> "Ledger":
        for each in events:
            self.take(each)
        return self

    def _check(self, seats: Seats) -> None:
        own = [booking for booking in self.bookings.values() if booking.tour_id == seats.tour_id]
        assert seats.reserved == sum(booking.held for booking in own)
        sold = seats.reserved + max(0, seats.unledgered)
        assert seats.available == max(0, seats.capacity - sold)
        assert 0 <= seats.available <= seats.capacity
        for booking in own:
            if booking.state == State.RESERVED:
                assert booking.seats == booking.life.held > 0
            assert booking.state not in AWAITED or not booking.created_event_id

    def _waiting(self) -> int:
        """Count the seats of cancellations whose creation has not come."""
        return sum(b.seats for b in self.bookings.values() if b.state == State.CANCELLED)
