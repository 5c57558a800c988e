"""The history of seats, read: what a booking has changed, and the numbers of a tour over time."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import NamedTuple

import msgspec
from django.db.models import Q, QuerySet

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import newest_at
from catalog.bookings import Outcome
from catalog.models import Reservation, SeatChange

MOST_EVENTS = 250  # of a booking: more than a life has
USUAL_GROUP = timedelta(seconds=1)  # from the start of its transaction to its rows
LONGEST_GROUP = timedelta(minutes=1)
POINTS = 300  # of a plot: about one for each three pixels

_WITHOUT_CHANGE = (Outcome.UNCHANGED, Outcome.REMEMBERED)


class BookingChange(NamedTuple):
    """What one event of a booking did to its tour's seats."""

    at: datetime
    tour_id: int
    version: int  # of the tour, since the group of the event
    event_id: str
    outcome: str  # of catalog.bookings.Outcome
    seats: int  # taken, or below 0 given back; 0 where there were too few
    said: int  # the number of seats in the event
    available: int  # seats of the tour after the group of the event


def changes_of(booking_id: str) -> list[BookingChange]:
    """Return how a booking has changed seats, oldest first.

    Four statements at most, whatever its life. Each change is found by the time at which its event was
    processed, so it is known as long as the event is.
    """
    # Not sorted there: PostgreSQL might walk the index of the times for that, past all other bookings.
    events = ProcessedEvent.objects.filter(
        aggregate_id=booking_id, outcome__in=set(Outcome) - set(_WITHOUT_CHANGE)
    ).order_by()
    came = list(events.values_list("event_id", "outcome", "processed_at")[:MOST_EVENTS])
    tour_id = Reservation.objects.filter(booking_id=booking_id).values_list("tour_id", flat=True)
    if not came or (tour := tour_id.first()) is None:
        return []
    found = _within(USUAL_GROUP, tour, booking_id, [time for _, _, time in came])
    known = {(change.event_id, change.outcome) for change in found}
    if slow := [time for *event, time in came if tuple(event) not in known]:
        # A hot tour has many and large rows in a minute: only for what was not found in a second.
        more = _within(LONGEST_GROUP, tour, booking_id, slow)
        found += [change for change in more if (change.event_id, change.outcome) not in known]
    return sorted(found, key=lambda change: change.version)


def _within(
    span: timedelta, tour_id: int, booking_id: str, times: Iterable[datetime]
) -> list[BookingChange]:
    """Return the changes of a booking that were stored within a span after one of these times."""
    changes = SeatChange.objects.filter(
        reduce(or_, (Q(changed_at__range=(time, time + span)) for time in times)),
        tour_id=tour_id,
        causes__contains=msgspec.json.encode(booking_id).decode(),
    )
    return [each for change in changes.order_by("version") for each in _of(booking_id, change)]


def _of(booking_id: str, change: SeatChange) -> Iterator[BookingChange]:
    for cause in change.caused_by:
        if cause.booking_id == booking_id:
            yield BookingChange(
                change.changed_at,
                change.tour_id,
                change.version,
                cause.event_id,
                cause.outcome,
                cause.seats,
                cause.said,
                change.seats.available,
            )


def last_changes(
    tour_id: int, count: int, *, before: int | None = None, only: int | None = None
) -> list[SeatChange]:
    """Return the last changes of a tour's seats, newest first: all, those before a version, or one alone."""
    changes = SeatChange.objects.filter(tour_id=tour_id).order_by("-version")
    if only is not None:
        changes = changes.filter(version=only)
    elif before is not None:
        changes = changes.filter(version__lt=before)
    return list(changes[:count])


def points(tour_id: int) -> tuple[list[SeatChange], bool]:
    """Return the changes that draw the history of a tour's seats, oldest first, and whether these are all.

    Few are returned all. Of many: the first, the last, and the ones after which the tour had its numbers at
    evenly spaced times; of what happened in between the picture would show nothing either. No statement
    reads more of them than it returns, nor their causes.
    """
    changes = SeatChange.objects.filter(tour_id=tour_id).defer("causes").order_by("version")
    few = list(changes[: POINTS + 1])
    if len(few) <= POINTS:
        return few, True
    return list(changes.filter(version__in=_evenly_spaced(changes))), False


def _evenly_spaced(changes: "QuerySet[SeatChange]") -> set[int]:
    first, last = changes.first(), changes.last()
    assert first is not None
    assert last is not None
    moments = _moments(first.changed_at, last.changed_at, POINTS - 2)
    at = newest_at(
        SeatChange, moments, time="changed_at", key="version", of={"tour_id": first.tour_id}
    )
    return {first.version, last.version, *at}


def _moments(first: datetime, last: datetime, count: int) -> Iterable[datetime]:
    step = (last - first) / (count + 1)
    return (first + number * step for number in range(1, count + 1))
