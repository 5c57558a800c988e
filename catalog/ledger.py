"""The ledger of seats in the database: read, decided about by ``seats``, and written back."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Sum
from msgspec.structs import asdict, replace

from booking_platform.contract.announcing import Announced
from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingChanged
from booking_platform.messaging import clock, outbox
from booking_platform.messaging.rows import EXPECTED, compare_and_set, insert_missing, read
from booking_platform.messaging.rules import Applied, LostRace, Refused, Result
from catalog import announcing, causes, life
from catalog.bookings import Booking, Decision, Outcome, Seats
from catalog.life import Kind, Step
from catalog.models import Reservation, SeatChange, Tour
from catalog.seats import Decided, decide

log = structlog.get_logger(__name__)


def apply(events: Sequence[Event], *, lock: bool) -> list[Result]:
    """Apply events to the seats of their tours, in the transaction of the caller.

    The number of statements is the same for one event as for hundreds. Every tour that an event
    speaks of gets a new version, even if its numbers stay: who decides by a reservation must notice
    that it changed.

    Raises:
        LostRace: a tour or a reservation changed since it was read.
    """
    tours = _read_tours({event.payload.tour_id for event in events}, lock=lock)
    # Only now, in a statement of its own: a join after a wait for the lock would pair a tour's
    # new version with an old reservation.
    bookings = _read_bookings({event.payload.booking_id for event in events} - {None})
    decided = decide(tours, bookings, events)
    touched = {decision.after.tour_id for decision in decided.decisions if decision.after}
    _write_tours([(tours[tour_id], decided.tours[tour_id]) for tour_id in sorted(touched)])
    _write_bookings(bookings, decided.bookings)
    _write_history(events, tours, decided)
    announced = _announced(events, tours, decided)
    return [
        _result(event, decision, announces)
        for event, decision, announces in zip(events, decided.decisions, announced, strict=True)
    ]


def recount(tour_id: int) -> tuple[Seats, Seats] | None:
    """Set a tour's reserved seats to what its reservations hold; return its numbers before and after.

    None is returned where there is no such tour. Only who has written past the platform makes it needed.
    """
    with transaction.atomic(durable=True):
        before = _read_tours({tour_id}, lock=True).get(tour_id)
        if before is None:
            return None
        held = Reservation.objects.filter(tour=tour_id, state=Reservation.State.RESERVED)
        after = replace(before, reserved=held.aggregate(held=Sum("seats"))["held"] or 0)
        _write_tours([(before, after)])
        after = replace(after, version=before.version + 1)
        outbox.store([announcing.of_tour(after, after.version, clock.now())])
        SeatChange.record(after, by="recount_seats", what=_counted_anew(before, after))
    return before, after


def _counted_anew(before: Seats, after: Seats) -> str:
    return f"counted anew: {before.reserved} were reserved, now {after.reserved} are"


def _read_tours(tour_ids: set[int], *, lock: bool) -> dict[int, Seats]:
    columns = ("id", "optimistic_lock_version", "capacity", "reserved_seats", "unledgered_seats")
    rows = read(Tour, columns, key="id", values=tour_ids, lock=lock)
    return {row[0]: Seats(*row) for row in rows}


def _read_bookings(booking_ids: set[str]) -> dict[str, Booking]:
    rows = read(Reservation, Booking.__struct_fields__, key="booking_id", values=booking_ids)
    return {row[0]: _booking(Booking(*row)) for row in rows}


def _booking(row: Booking) -> Booking:
    """Return a row of the database as the rules see it."""
    steps = life.load(str(row.steps))
    if row.state == Reservation.State.CANCELLED and not steps:  # by an older version, at some time
        steps = (Step(Kind.LESS, row.seats, at=0, released=row.seats),)
    return replace(row, steps=steps)


def _columns(booking: Booking) -> dict[str, Any]:
    return asdict(booking) | {"steps": life.dump(booking.steps)}


def _write_tours(changes: Sequence[tuple[Seats, Seats]]) -> None:
    """Compare and set each tour, in id order, as other groups do."""
    rows = [
        {
            "id": after.tour_id,
            "available_seats": after.available,
            "reserved_seats": after.reserved,
            "unledgered_seats": after.unledgered,
            "optimistic_lock_version": before.version + 1,
            EXPECTED: before.version,
        }
        for before, after in changes
    ]
    same = {"updated_at": clock.now()}
    written = compare_and_set(Tour, rows, key="id", guard="optimistic_lock_version", same=same)
    for before, _ in changes:
        if before.tour_id not in written:
            raise LostRace("tour", tour_id=before.tour_id, version=before.version)


def _write_bookings(before: Mapping[str, Booking], after: Mapping[str, Booking]) -> None:
    now = clock.now()
    changed = [after[key] for key in sorted(after) if after[key] != before.get(key)]
    new = [_columns(booking) for booking in changed if booking.booking_id not in before]
    old = [
        {**_columns(booking), EXPECTED: before[booking.booking_id].state}
        for booking in changed
        if booking.booking_id in before
    ]
    key, created = "booking_id", {"created_at": now, "updated_at": now}
    written = insert_missing(Reservation, new, key=key, same=created, unique=(key,))
    written |= compare_and_set(Reservation, old, key=key, guard="state", same={"updated_at": now})
    for booking in changed:
        if booking.booking_id not in written:
            raise LostRace("reservation", booking_id=booking.booking_id, tour_id=booking.tour_id)


def _write_history(events: Sequence[Event], tours: Mapping[int, Seats], decided: Decided) -> None:
    """Store what the events changed, in one statement: a row for each tour.

    A row whose version is there already is left out: then somebody has set the version back, and no
    booking is to suffer from that.
    """
    caused = causes.by_tour(events, decided.decisions)
    rows = [
        {
            "tour_id": tour_id,
            "version": tours[tour_id].version + 1,
            "capacity": tours[tour_id].capacity,
            "reserved": decided.tours[tour_id].reserved,
            "unledgered": decided.tours[tour_id].unledgered,
            "causes": causes.dump(caused[tour_id]),
        }
        for tour_id in sorted(caused)
    ]
    insert_missing(SeatChange, rows, key="version", same={"changed_at": clock.now()})


def _announced(
    events: Sequence[Event], tours: Mapping[int, Seats], decided: Decided
) -> list[list[Announced]]:
    """Return what is announced with each event: a tour whose numbers changed, with its last one."""
    now = clock.now()
    announced = [
        announcing.of_booking(event, decision, now)
        for event, decision in zip(events, decided.decisions, strict=True)
    ]
    last = {each.after.tour_id: at for at, each in enumerate(decided.decisions) if each.after}
    for tour_id, at in last.items():
        before, after = tours[tour_id], decided.tours[tour_id]
        if after != before:
            announced[at].append(announcing.of_tour(after, before.version + 1, now))
    return announced


def _result(event: Event, decision: Decision, announces: Sequence[Announced]) -> Result:
    """Return the result of an event; what a person should know of it is logged after the commit."""
    outcome, before = decision.outcome, decision.before
    if isinstance(outcome, Refused):
        return outcome
    if before is None:
        return Applied(outcome)
    if outcome in (Outcome.REJECTED, Outcome.CHANGE_REJECTED):
        return Applied(outcome, partial(_tell_of_rejection, event, outcome, before), announces)
    released = -decision.taken
    payload = event.payload
    if isinstance(payload, BookingCancelled) and released not in (0, payload.seats_released):
        return Applied(outcome, partial(_tell_of_other_seats, event, released), announces)
    return Applied(outcome, announces=announces)


def _tell_of_rejection(event: Event, outcome: Outcome, tour: Seats) -> None:
    line = "Booking rejected: not enough seats"
    if outcome == Outcome.CHANGE_REJECTED:
        line = "Change of a booking rejected: not enough seats, it stays as it is"
    payload = event.payload
    log.warning(
        line,
        event_id=event.event_id,
        booking_id=payload.booking_id,
        tour_id=tour.tour_id,
        seats=payload.seats if isinstance(payload, BookingChanged) else payload.seats_booked,
        available=tour.available,
        version=tour.version,
    )


def _tell_of_other_seats(event: Event, released: int) -> None:
    log.warning(
        "Cancellation names other seats than its booking gives back",
        event_id=event.event_id,
        booking_id=event.payload.booking_id,
        tour_id=event.payload.tour_id,
        seats=released,
        seats_cancelled=event.payload.seats_released,
    )
