"""The dead letters of one booking, and what an app says of a booking whose event is among them."""

from collections.abc import Iterator

from django.db.models import QuerySet

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import event_types
from booking_platform.operations.stories import MOST, Asked, Level, Link, Point, named

BOOKING = "bookingId"
SEE_LETTERS = "messaging.view_deadletter"
NAMED = 20  # letters of a queue that are named

State = DeadLetter.State


def of_bookings() -> QuerySet[ProcessedEvent]:
    """Return the processed events whose ``aggregate_id`` names a booking, and nothing else."""
    others = [
        each.__name__ for each in event_types().values() if each.named_by not in ("", BOOKING)
    ]
    return ProcessedEvent.objects.exclude(event_type__in=others).order_by()


# No query of a story sorts: PostgreSQL might walk the index of the times for that, past all other bookings.


def letters_of(booking: str) -> list[DeadLetter]:
    """Return the dead letters that name a booking, those of its events that name none, and corrected ones.

    Of more than ``MOST`` it is one more.
    """
    letters = DeadLetter.objects.defer("body", "edited_body").order_by()
    its_events = of_bookings().filter(aggregate_id=booking).values_list("event_id", flat=True)
    event_ids = list(its_events[:MOST])
    found = [
        *letters.filter(aggregate_id=booking)[: MOST + 1],
        *letters.filter(aggregate_id="", event_id__in=event_ids)[: MOST + 1],
        # Those that were corrected may have named another booking before.
        *letters.filter(edited_event_id__in=event_ids)[: MOST + 1],
    ]
    return list({letter.pk: letter for letter in found}.values())[: MOST + 1]


def missing(asked: Asked, queue: str, *, about: str, stored: bool) -> Iterator[Point]:
    """Yield what is not stored of a booking because its event is a dead letter of a queue.

    The last letter that is closed is told of only where nothing of the booking is ``stored``. Where
    nothing is, and no letter says why, none was asked for.
    """
    if asked.letters is None:
        if not stored:
            what = "None is stored. Your account may not see whether an event of it was parked."
            yield Point(about, what)
        return
    letters = [letter for letter in asked.letters if letter.queue == queue]
    waiting = [letter for letter in letters if letter.state == State.PARKED]
    last = [] if stored else sorted(letters, key=lambda letter: letter.pk)[-1:]
    for letter in (waiting or last)[:NAMED]:
        yield _missing(letter, about)
    if not letters and not stored:
        yield Point(about, "None was asked for.")


def _missing(letter: DeadLetter, about: str) -> Point:
    links = (Link(letter, named(letter)),)
    what = f"None is stored for an event that could not be applied: it is {named(letter)}"
    if letter.state == State.PARKED:
        then = " ".join(filter(None, ("Open the dead letter.", letter.why.advice)))
        return Point(about, f"{what}, which waits for a person.", Level.PERSON, then, links)
    return Point(about, f"{what} ({letter.get_state_display()}).", Level.ATTENTION, links=links)
