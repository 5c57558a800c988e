"""What a tour's page in the admin says of the history of its seats."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Model
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from msgspec.structs import replace

from booking_platform.messaging import clock
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations.records import LISTED, exact, link, visible
from catalog import history, pictures
from catalog.bookings import Seats
from catalog.causes import NO_SEATS, Cause
from catalog.models import Reservation, SeatChange, Tour

MENTIONED = 5  # events of one change, where others are listed too
LONGEST, BRIEF = (
    255,
    13,
)  # characters of an id: of a booking, and of an event, which its page shows whole
MOST_DIGITS = 18  # of a version: it fits the column
BEFORE, ONLY = "seats_before", "seat_change"  # of the query: from which version on, or which alone


class Listed(NamedTuple):
    """One change as the page lists it."""

    when: str
    version: int
    what: list[str | SafeString]
    unmentioned: int  # events that are not listed here
    seats: Seats  # after it


def history_of(tour: Tour, query: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template of the history needs; a bounded number of statements, whatever the tour's life."""
    points, complete = history.points(tour.pk)
    if not points:
        return {}
    only, before = _version(query, ONLY), _version(query, BEFORE)
    changes = history.last_changes(tour.pk, LISTED + 1, before=before, only=only)
    return {
        "plot": pictures.plot([_moment(each) for each in points], clock.now()),
        "points": [
            {"when": pictures.shown(each.changed_at), "seats": each.seats} for each in points
        ],
        "complete": complete,
        "changes": _listed(changes[:LISTED], LISTED * LISTED if only else MENTIONED),
        "older": changes[LISTED - 1].version if len(changes) > LISTED else None,
        "only": only,
        "before": before,
        "days": settings.PROCESSED_EVENTS_RETENTION.days,
        "gap": _gap(tour, points[-1]),
    }


def _version(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name, "")
    sensible = value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS
    return int(value) if sensible else None


def _moment(change: SeatChange) -> pictures.Moment:
    return pictures.Moment(change.changed_at, change.seats)


def _gap(tour: Tour, newest: SeatChange) -> bool:
    """Return whether the tour has changed without a trace: its row was read before the change was."""
    unchanged = replace(newest.seats, version=0) == replace(tour.seats, version=0)
    return newest.version <= tour.optimistic_lock_version and not unchanged


def _listed(changes: Sequence[SeatChange], mentioned: int) -> list[Listed]:
    causes = {each.version: each.caused_by for each in changes}
    links = _Links([cause for each in causes.values() for cause in each[:mentioned]])
    return [
        Listed(
            pictures.shown(each.changed_at),
            each.version,
            [links.line(cause) for cause in causes[each.version][:mentioned]] or [_by_staff(each)],
            len(causes[each.version][mentioned:]),
            each.seats,
        )
        for each in changes
    ]


def _by_staff(change: SeatChange) -> str:
    return visible(f"{change.what}, by {change.changed_by}" if change.changed_by else change.what)


class _Links:
    """Makes the lines about events, with links to those records that are still there."""

    def __init__(self, causes: Sequence[Cause]) -> None:
        reservations = Reservation.objects.only("pk", "booking_id")
        self._bookings = reservations.in_bulk(
            {each.booking_id for each in causes}, field_name="booking_id"
        )
        events = ProcessedEvent.objects.filter(event_id__in={each.event_id for each in causes})
        self._events = {
            (each.event_id, each.outcome): each for each in events.only("event_id", "outcome")
        }

    def line(self, cause: Cause) -> SafeString:
        """Return a line about one event."""
        booking = self._bookings.get(cause.booking_id)
        event = self._events.get((cause.event_id, cause.outcome))
        return format_html(
            "{}: {}, {} (event {})",
            _linked(booking, cause.booking_id) if cause.booking_id else "A booking without an id",
            cause.outcome.replace("_", " "),
            _seats(cause),
            _linked(event, cause.event_id, chars=BRIEF),
        )


def _linked(record: Model | None, identifier: str, *, chars: int = LONGEST) -> str:
    text = Truncator(exact(identifier)).chars(chars)
    return link(record, text) if record else text


def _seats(cause: Cause) -> str:
    if cause.outcome in NO_SEATS:
        return f"asked for {cause.said}"
    return f"{cause.seats} taken" if cause.seats >= 0 else f"{-cause.seats} given back"
