"""What the catalog knows of a booking: the seats that it holds, and each change of them."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations.records import exact, visible
from booking_platform.operations.stories import (
    MOST,
    Asked,
    Chapter,
    Entry,
    Kind,
    Level,
    Link,
    Meaning,
    Point,
    resolves,
    seats,
    tells,
)
from catalog.announcing import key_of
from catalog.bookings import Outcome, State
from catalog.history import BookingChange, changes_of
from catalog.life import Kind as StepKind
from catalog.life import in_order, load, time_of
from catalog.models import Reservation, Tour

SEE = "catalog.view_reservation"
STANDS = "Seats"


@tells("seats", SEE)
def seats_of(asked: Asked) -> Chapter:
    """Return the seats of a booking: what it holds now, each change, and what was announced of it."""
    chapter = Chapter(
        points=[Point(STANDS, "The tour catalog does not know a booking of this id.")]
    )
    found = Reservation.objects.filter(booking_id=asked.booking).select_related("tour").first()
    changes = changes_of(asked.booking)
    chapter.entries += [_changed(change) for change in changes]
    if found is not None:
        chapter.points = [_stands(found)]
        chapter.records.append(found)
        if not changes:
            chapter.entries += _remembered(found)
    chapter.entries += _announced(asked, {change.event_id: change.at for change in changes})
    return chapter


def _stands(reservation: Reservation) -> Point:
    tour, count = reservation.tour, seats(reservation.seats)
    links = (Link(reservation, "reservation"), Link(tour, f"tour {tour.pk}"))
    of = f"tour {tour.pk} ({visible(tour.name)})"
    match reservation.state:
        case State.RESERVED:
            return Point(STANDS, f"Holds {count} of {of}.", links=links)
        case State.REJECTED:
            what = f"Holds none: it asked for {count}, and {of} had too few."
            then = "Nothing was sold. The tour's page says why it is full."
            return Point(STANDS, what, Level.ATTENTION, then, links)
        case State.CANCELLED:
            what = f"Holds none: {count} of {of} were cancelled before its creation arrived."
        case State.CHANGED:
            what = f"Holds none: it was changed to another number before its creation arrived, on {of}."
        case _:
            return Point(STANDS, f"Holds none: it was cancelled. It was on {of}.", links=links)
    then = "The creation is awaited. If it does not come, ask the producer for it."
    return Point(STANDS, what, Level.ATTENTION, then, links)


def _changed(change: BookingChange) -> Entry:
    count, tour, level = seats(abs(change.seats)), f"tour {change.tour_id}", Level.NORMAL
    match change.outcome:
        case Outcome.REJECTED:
            level = Level.ATTENTION
            what = f"The booking asked for {seats(change.said)} and got none: {tour} had too few"
        case Outcome.CHANGE_REJECTED:
            level = Level.ATTENTION
            what = f"A change to {seats(change.said)} was refused: {tour} had too few"
        case _ if change.seats < 0:
            what = f"{count} {_were(change)} given back to {tour}"
        case _:
            what = f"{count} of {tour} {_were(change)} taken"
    free = f"; it had {change.available} free {'after that' if change.seats else 'then'}."
    detail = (f"By event {exact(change.event_id)}", f"Version {change.version} of the tour")
    links = (Link(Tour(pk=change.tour_id), tour),)
    return Entry(change.at, Kind.SEATS, what + free, level, detail, links)


def _were(change: BookingChange) -> str:
    return "was" if abs(change.seats) == 1 else "were"


def _remembered(reservation: Reservation) -> Iterator[Entry]:
    """Yield what the reservation itself says of its life, where nothing else remembers it."""
    links = (Link(reservation, "reservation"),)
    asked = "" if reservation.booked is None else f", of {seats(reservation.booked)}"
    what = f"The catalog first heard of the booking{asked}."
    yield Entry(reservation.created_at, Kind.SEATS, what, links=links)
    for step in in_order(load(reservation.steps)):
        said = "changed" if step.kind is StepKind.TOTAL else "cancelled in part or whole"
        what = f"The booking was {said}, by the producer's own time: {step.words}."
        yield Entry(time_of(step), Kind.SEATS, what, links=links)


def _announced(asked: Asked, changed: Mapping[str, datetime]) -> Iterator[Entry]:
    """Yield what was announced of the booking: what each event did says it."""
    events = ProcessedEvent.objects.filter(aggregate_id=asked.booking, outcome__in=Outcome.values)
    told = events.order_by().values_list("outcome", "event_id", "processed_at")[:MOST]
    for outcome, event_id, at in told:
        if key := key_of(Outcome(outcome)):
            yield asked.announcement(changed.get(event_id, at), key)


@resolves("a booking id", permission=SEE)
def from_reservations(term: str) -> Iterator[Meaning]:
    """Yield the booking of this id."""
    if Reservation.objects.filter(booking_id=term).exists():
        yield Meaning(term, "the tour catalog knows a booking of this id")
