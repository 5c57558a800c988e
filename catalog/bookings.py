"""What the rules of seats speak of: tours and bookings as their rows have them, outcomes, reasons."""

from datetime import datetime

from django.db import models
from msgspec import Struct
from msgspec.structs import replace

from booking_platform.contract.events import MAX_SEATS
from booking_platform.messaging.rules import Refused, reason
from catalog.life import Life, Step, live, moment


class State(models.TextChoices):
    """What the platform knows of a booking."""

    RESERVED = "reserved", "reserved: holds its seats"
    REJECTED = "rejected", "rejected: there were not enough seats"
    RELEASED = "released", "released: cancelled, its seats are free again"
    CANCELLED = "cancelled", "cancelled before its creation arrived"
    CHANGED = "changed", "changed before its creation arrived"


AWAITED = (State.CANCELLED, State.CHANGED)  # bookings whose creation has not arrived

UNKNOWN_TOUR = reason(
    "unknown_tour",
    "names a tour that does not exist",
    "If the tour was published before it was added here, add it, see that it got this id, and replay. Else "
    "edit each with the right id and replay it, and have the producer correct the id.",
)
OTHER_TOUR = reason(
    "other_tour",
    "names another tour than its booking did before",
    "A booking belongs to one tour: the producer must cancel it and book the other tour anew.",
)
BOOKING_OVER = reason(
    "booking_over",
    "is about a booking that was cancelled before",
    "A cancelled booking stays cancelled: the producer must give the new one an id of its own.",
)
IMPLAUSIBLE = reason(
    "implausible",
    "says more of a booking's seats than can be",
    "Compare it with the booking system. If the tour is larger than here, raise its capacity and replay.",
)


class Outcome(models.TextChoices):
    """What an event did: the state that its booking came to, or nothing."""

    RESERVED = "reserved", "took its seats"
    REJECTED = "rejected", "found too few seats and took none"
    RELEASED = "released", "gave its seats back, or came after its own cancellation"
    REDUCED = "reduced", "gave a part of its booking's seats back"
    CHANGED = "changed", "gave its booking another number of seats"
    CHANGE_REJECTED = "change_rejected", "found too few seats for the change and changed nothing"
    CANCELLED = "cancelled", "cancelled a booking whose creation has not arrived"
    REMEMBERED = "remembered", "changed a booking whose creation has not arrived"
    UNCHANGED = "unchanged", "said again what was known of its booking, or what is out of date"


class Seats(Struct, frozen=True):
    """A tour's numbers, as its row has them."""

    tour_id: int
    version: int
    capacity: int
    reserved: int
    unledgered: int

    @property
    def available(self) -> int:
        return max(0, self.capacity - self.sold)

    @property
    def overbooked(self) -> int:
        return max(0, self.sold - self.capacity)

    @property
    def sold(self) -> int:
        return self.reserved + max(0, self.unledgered)


class Booking(Struct, frozen=True):
    """A reservation, as its row has it."""

    booking_id: str
    tour_id: int
    seats: int
    state: str
    seats_cancelled: int | None = None
    created_event_id: str = ""
    cancelled_event_id: str = ""
    booked: int | None = None
    steps: tuple[Step, ...] = ()

    @property
    def asked(self) -> int:
        """Return the seats that its creation asked for, before any step of its life.

        While that has not arrived, it may be any number. Rows of an older version say it as ``seats``.
        """
        if self.state in AWAITED and self.booked is None:
            return MAX_SEATS + 1
        return self.seats if self.booked is None else self.booked

    @property
    def life(self) -> Life:
        return live(self.asked, self.steps)

    @property
    def held(self) -> int:
        return self.seats if self.state == State.RESERVED else 0

    @property
    def ended_by_older_version(self) -> bool:
        """Return whether it was cancelled, though none of its steps says when."""
        return self.state == State.RELEASED and self.life.over is None

    def ended_before(self, when: datetime) -> bool:
        """Return whether it was cancelled before a time, or may have been."""
        over = self.life.over
        return over is None or over.at < moment(when)

    def with_step(self, step: Step) -> "Booking":
        """Return the booking with one more step; what it was created with does not change by that."""
        booked = self.booked if self.state in AWAITED else self.asked
        return replace(self, steps=(*self.steps, step), booked=booked)


class Decision(Struct, frozen=True):
    """What is decided about one event: its tour before and after it, and its booking after it."""

    outcome: Outcome | Refused
    before: Seats | None = None
    after: Seats | None = None
    booking: Booking | None = None

    @property
    def taken(self) -> int:
        """Return the seats that its booking holds more than before; below 0: less."""
        return self.after.reserved - self.before.reserved if self.after and self.before else 0

    @property
    def held(self) -> int:
        """Return the seats that its booking holds now."""
        return self.booking.held if self.booking else 0
