"""The rules of seats: who gets them, and who gives them back.

``decide`` is pure: state and events in, decisions and the new state out. With no shortage of seats
the end state depends neither on the order of the events nor on their repetition. With a shortage the
order decides who gets the last seat, and nothing else. ``docs/seats.md`` has the whole table.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from booking_platform.messaging.rules import AMBIGUOUS, DIFFERS, Refused
from catalog.bookings import (
    AWAITED,
    BOOKING_OVER,
    IMPLAUSIBLE,
    OTHER_TOUR,
    UNKNOWN_TOUR,
    Booking,
    Decision,
    Outcome,
    Seats,
    State,
)
from catalog.life import MOST_STEPS, Kind, Step, moment


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
        decision = _decide_one(decided.tours, decided.bookings, event)
        decided.decisions.append(decision)
        if decision.after is not None:
            decided.tours[decision.after.tour_id] = decision.after
        if decision.booking is not None:
            decided.bookings[decision.booking.booking_id] = decision.booking
    return decided


class Change(Struct, frozen=True):
    """What an event makes of its tour and its booking."""

    outcome: Outcome
    tour: Seats
    booking: Booking | None


def _decide_one(
    tours: Mapping[int, Seats], bookings: Mapping[str, Booking], event: Event
) -> Decision:
    """Return the decision about one event."""
    payload = event.payload
    tour = tours.get(payload.tour_id)
    if tour is None:
        detail = f"payload.tourId is {payload.tour_id}: there is no such tour"
        return Decision(Refused(UNKNOWN_TOUR, detail))
    booking = bookings.get(payload.booking_id) if payload.booking_id else None
    if booking is not None and booking.tour_id != tour.tour_id:
        detail = (
            f"payload.tourId is {tour.tour_id}: "
            f"booking {booking.booking_id!r} was for tour {booking.tour_id}"
        )
        return Decision(Refused(OTHER_TOUR, detail))
    change = _RULES[type(payload)](tour, booking, event)
    if isinstance(change, Refused):
        return Decision(change)
    return Decision(change.outcome, tour, change.tour, change.booking)


# Creations.


def _create(tour: Seats, booking: Booking | None, event: Event) -> Change | Refused:
    payload: BookingCreated = event.payload
    if payload.booking_id is None:
        return _create_unledgered(tour, payload.seats_booked)
    booking = booking or Booking(payload.booking_id, tour.tour_id, 0, State.REJECTED)
    if booking.state == State.RELEASED and booking.ended_before(event.occurred_at):
        return _over(booking)
    if booking.state in (State.RESERVED, State.RELEASED):
        if payload.seats_booked == booking.asked:
            return Change(Outcome.UNCHANGED, tour, booking)
        return _other_seats(booking, payload.seats_booked)
    given_back = 0
    if booking.steps and booking.state == State.REJECTED:
        # What was said before it is asked for again is over.
        since = moment(event.occurred_at)
        booking = replace(booking, steps=tuple(s for s in booking.steps if s.at > since))
    if booking.state == State.CANCELLED:
        # The pair nets to zero: what the cancellation gave back is taken again, to the seat.
        given_back = booking.seats
        tour = replace(tour, unledgered=tour.unledgered + given_back)
    created = replace(booking, booked=payload.seats_booked, created_event_id=event.event_id)
    return _seat(tour, created, given_back)


def _seat(tour: Seats, created: Booking, given_back: int) -> Change:
    """Give a new booking the seats that its life leaves to it, if they are there."""
    held = created.life.held
    if not held:
        over = replace(created, state=State.RELEASED, seats=given_back or created.asked)
        return Change(Outcome.RELEASED, tour, over)
    if held > tour.available:
        return Change(Outcome.REJECTED, tour, replace(created, state=State.REJECTED, seats=held))
    return Change(Outcome.RESERVED, *_hold(tour, created, held))


def _create_unledgered(tour: Seats, seats: int) -> Change:
    """Decide a creation that names no booking, so that none can be looked up later."""
    after = replace(tour, unledgered=tour.unledgered + seats)
    takes = max(0, after.unledgered) - max(0, tour.unledgered)
    if takes <= tour.available:
        return Change(Outcome.RESERVED, after, None)
    return Change(Outcome.REJECTED, tour, None)


def _over(booking: Booking) -> Refused:
    return Refused(BOOKING_OVER, f"booking {booking.booking_id!r} was cancelled before that")


def _other_seats(booking: Booking, seats: int) -> Refused:
    detail = (
        f"payload.seatsBooked is {seats}: booking {booking.booking_id!r} was created with "
        f"{booking.asked}; BookingChanged gives it another number"
    )
    return Refused(DIFFERS, detail)


# Cancellations.


def _cancel(tour: Seats, booking: Booking | None, event: Event) -> Change | Refused:
    payload: BookingCancelled = event.payload
    booking = booking or Booking(payload.booking_id, tour.tour_id, 0, State.CANCELLED)
    step = _cancellation(event)
    repeated = _repeated(booking, step)
    if isinstance(repeated, Refused):
        return repeated
    if repeated == step or booking.ended_by_older_version:
        return Change(Outcome.UNCHANGED, tour, booking)
    if len(booking.steps) >= MOST_STEPS:
        return _too_many_steps(booking)
    cancelled = booking.with_step(step)  # a repeat too: it may say so after a change
    if not repeated:
        cancelled = replace(
            cancelled, seats_cancelled=payload.seats_released, cancelled_event_id=event.event_id
        )
    if booking.state in AWAITED:
        return _give_back(tour, cancelled, 0 if repeated else payload.seats_released)
    return _give_up(tour, cancelled)


def _cancellation(event: Event) -> Step:
    payload: BookingCancelled = event.payload
    at, revision, released = moment(event.occurred_at), payload.revision, payload.seats_released
    if payload.seats_remaining is not None:
        return Step(Kind.LEFT, payload.seats_remaining, at, revision, released)
    return Step(Kind.LESS, released, at, revision, released, event.fingerprint[:32])


def _repeated(booking: Booking, step: Step) -> Step | Refused | None:
    """Return the step of a booking that a cancellation says again, if it does.

    One that names its step says it again whenever it comes. One that does not is a repeat where it is of
    the same moment, and may be one where it is not.
    """
    alike = [each for each in booking.steps if _may_be_one(each, step)]
    if not alike or step in alike:
        return step if alike else None
    known = alike[0]
    if step.kind is Kind.LEFT:
        if booking.state in AWAITED and known.released != step.released:
            return _other_release(booking, known, step)
        return known
    for each in alike:
        if each.at == step.at and each.said in ("", step.said):
            return each
    if booking.state == State.RELEASED:  # no seats to give, whichever it is
        return step
    detail = (
        f"booking {booking.booking_id!r} has given {step.seats} seats back before: without "
        "payload.seatsRemaining this may be a repeat or another step"
    )
    return Refused(AMBIGUOUS, detail)


def _may_be_one(one: Step, other: Step) -> bool:
    """Return whether two steps may be one cancellation; of one moment also where one is not named."""
    kinds, revisions = {one.kind, other.kind}, {one.revision, other.revision} - {None}
    if Kind.TOTAL in kinds or len(revisions) > 1:
        return False
    if len(kinds) == 1:
        return one.seats == other.seats
    return (one.at, one.released) == (other.at, other.released)


def _other_release(booking: Booking, known: Step, step: Step) -> Refused:
    detail = (
        f"payload.seatsReleased is {step.released}: the step that leaves booking "
        f"{booking.booking_id!r} {step.seats} seats has released {known.released}"
    )
    return Refused(DIFFERS, detail)


def _give_back(tour: Seats, booking: Booking, seats: int) -> Change | Refused:
    """Give back seats of a booking that is not known: it may have been sold outside the ledger."""
    if seats > tour.capacity:
        detail = f"payload.seatsReleased is {seats}, of a tour with {tour.capacity} seats"
        return Refused(IMPLAUSIBLE, detail)
    after = replace(tour, unledgered=tour.unledgered - seats)
    cancelled = replace(booking, state=State.CANCELLED, seats=booking.seats + seats)
    return Change(Outcome.CANCELLED if seats else Outcome.UNCHANGED, after, cancelled)


def _give_up(tour: Seats, booking: Booking) -> Change:
    """Leave a booking that was created what its life leaves it, which is no more than it holds."""
    held = min(booking.life.held, booking.seats)
    if booking.state != State.RESERVED:
        state = booking.state if held else State.RELEASED
        return Change(Outcome.UNCHANGED, tour, replace(booking, state=state))
    if held == booking.seats:
        return Change(Outcome.UNCHANGED, tour, booking)
    return Change(Outcome.REDUCED if held else Outcome.RELEASED, *_hold(tour, booking, held))


# Changes.


def _change(tour: Seats, booking: Booking | None, event: Event) -> Change | Refused:
    payload: BookingChanged = event.payload
    booking = booking or Booking(payload.booking_id, tour.tour_id, 0, State.CHANGED)
    step = Step(Kind.TOTAL, payload.seats, moment(event.occurred_at), payload.revision)
    for each in booking.steps:
        if each.kind is Kind.TOTAL and each.revision == step.revision:
            if each.seats == step.seats:
                return Change(Outcome.UNCHANGED, tour, booking)
            return _other_total(booking, each, step)
    if len(booking.steps) >= MOST_STEPS:
        return _too_many_steps(booking)
    changed = booking.with_step(step)
    if booking.ended_by_older_version or step in changed.life.too_late:
        return _over(booking)
    return _give_other_number(tour, booking, changed)


def _give_other_number(tour: Seats, booking: Booking, changed: Booking) -> Change:
    """Give a booking the seats that its life leaves it with one more change, if they are there."""
    held = changed.life.held
    more = held - booking.held
    if booking.state in AWAITED:
        return Change(Outcome.REMEMBERED, tour, changed)
    if more > tour.available:  # not remembered: it may be asked for again
        return Change(Outcome.CHANGE_REJECTED, tour, booking)
    if not more:
        return Change(Outcome.UNCHANGED, tour, changed)
    return Change(Outcome.CHANGED if held else Outcome.RELEASED, *_hold(tour, changed, held))


def _other_total(booking: Booking, known: Step, step: Step) -> Refused:
    detail = (
        f"payload.seats is {step.seats}: revision {step.revision} of booking "
        f"{booking.booking_id!r} has said {known.seats}"
    )
    return Refused(DIFFERS, detail)


def _too_many_steps(booking: Booking) -> Refused:
    detail = f"booking {booking.booking_id!r} has been cancelled or changed {MOST_STEPS} times"
    return Refused(IMPLAUSIBLE, detail)


def _hold(tour: Seats, booking: Booking, held: int) -> tuple[Seats, Booking]:
    """Return a tour and a booking that holds so many of its seats; one that is over keeps its number."""
    after = replace(tour, reserved=tour.reserved + held - booking.held)
    if held:
        return after, replace(booking, state=State.RESERVED, seats=held)
    return after, replace(booking, state=State.RELEASED)


_RULES: dict[type, Callable[[Seats, Booking | None, Event], Change | Refused]] = {
    BookingCreated: _create,
    BookingCancelled: _cancel,
    BookingChanged: _change,
}
