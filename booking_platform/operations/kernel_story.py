"""What the kernel knows of a booking: its events, how often they came, and those that could not be applied."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Model, Q
from django.utils.timezone import localtime

from booking_platform.contract.announcing import EventDiscarded, EventParked
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import meanings
from booking_platform.operations.booking_letters import SEE_LETTERS, of_bookings
from booking_platform.operations.records import LISTED, exact, visible
from booking_platform.operations.stories import (
    MOST,
    Asked,
    Chapter,
    Decision,
    Entry,
    Kind,
    Level,
    Link,
    Meaning,
    Point,
    named,
    resolves,
    tells,
    times,
)

SEE_EVENTS = "messaging.view_processedevent"

State = DeadLetter.State


@tells("events", SEE_EVENTS)
def events(asked: Asked) -> Chapter:
    """Return each event that came, with what each consumer made of it, and how often it came again."""
    found = list(of_bookings().filter(aggregate_id=asked.booking)[: MOST + 1])
    by_id: dict[str, list[ProcessedEvent]] = {}
    for event in sorted(found[:MOST], key=lambda event: (event.processed_at, event.pk)):
        by_id.setdefault(event.event_id, []).append(event)
    entries = [entry for same in by_id.values() for entry in _came(same)]
    return Chapter(entries=entries, more=len(found) > MOST)


def _came(same: list[ProcessedEvent]) -> Iterator[Entry]:
    """Yield the entries of one event, which each consumer has had for itself."""
    event, words = same[0], meanings()
    name = f"{exact(event.event_type)} (event {exact(event.event_id)})"
    detail = [f"{each.consumer}: {words.get(each.outcome, exact(each.outcome))}" for each in same]
    if event.occurred_at is not None:
        detail.append(f"By its own timestamp it happened at {_moment(event.occurred_at)}")
    links = tuple(Link(each, f"{each.consumer}") for each in same)
    yield Entry(event.processed_at, Kind.EVENT, f"{name} came.", detail=tuple(detail), links=links)
    repeats = max(each.repeats for each in same)
    if repeats:
        at = max(each.last_repeated_at for each in same if each.last_repeated_at)
        what = f"{name} came again, {times(repeats)} by now: it was known, and had no effect."
        heard = tuple(f"{each.consumer}: {times(each.repeats)}" for each in same if each.repeats)
        yield Entry(at, Kind.EVENT, what, detail=heard, links=links)


@tells("dead letters", SEE_LETTERS)
def dead_letters(asked: Asked) -> Chapter:
    """Return the events that could not be applied, and what became of them."""
    found = asked.letters or ()
    letters = found[:MOST]
    chapter = Chapter(records=list[Model](letters), more=len(found) > MOST)
    for letter in letters:
        chapter.entries += _parked(letter)
        if letter.event_type != EventParked.__name__:
            chapter.entries.append(asked.announcement(letter.parked_at, EventParked.routing_key))
        if letter.resolved_at is not None:
            chapter.decisions.append(_resolved(letter))
        if letter.resolved_at is not None and letter.state == State.DISCARDED:
            key = EventDiscarded.routing_key
            chapter.entries.append(asked.announcement(letter.resolved_at, key))
    waiting = [letter for letter in letters if letter.state == State.PARKED]
    if waiting:
        chapter.points.append(_waits(waiting))
    return chapter


def _parked(letter: DeadLetter) -> Iterator[Entry]:
    waits = letter.state == State.PARKED
    level = Level.PERSON if waits else Level.ATTENTION
    event, event_id = exact(letter.event_type) or "A message", exact(letter.event_id)
    what = f"{event} (event {event_id or 'without a readable id'}) could not be applied"
    queue, links = visible(letter.queue), (Link(letter, named(letter)),)
    detail = tuple(filter(None, (visible(letter.detail), letter.why.advice if waits else "")))
    words = f"{what} by {queue}, and was parked: {letter.why.meaning}."
    yield Entry(letter.parked_at, Kind.DEAD_LETTER, words, level, detail, links)
    if letter.attempts > 1:
        again = f"{what} by {queue} again; it has come {times(letter.attempts)} by now."
        yield Entry(letter.last_parked_at, Kind.DEAD_LETTER, again, Level.ATTENTION, links=links)


def _resolved(letter: DeadLetter) -> Decision:
    assert letter.resolved_at is not None
    did = {
        State.REPLAYED: "sent it to its queue again",
        State.EDITED: f"corrected it, and sent it as event {exact(letter.edited_event_id)}",
        State.DISCARDED: "discarded it",
    }
    why = f": {visible(letter.resolution)}" if letter.resolution else ""
    who = visible(letter.resolved_by) or "Somebody"
    what = f"{who} looked at {named(letter)} and {did.get(State(letter.state), 'closed it')}{why}"
    links = (Link(letter, named(letter)),)
    entry = Entry(letter.resolved_at, Kind.STAFF, what, links=links)
    return Decision(letter, letter.resolved_by, entry)


def _waits(waiting: list[DeadLetter]) -> Point:
    whys = dict.fromkeys(f"{visible(letter.queue)}: {letter.why.meaning}" for letter in waiting)
    count = "One event" if len(waiting) == 1 else f"{len(waiting)} events"
    verb = "has" if len(waiting) == 1 else "have"
    what = f"{count} of this booking could not be applied and {verb} had no effect there ({'; '.join(whys)})."
    advice = dict.fromkeys(letter.why.advice for letter in waiting if letter.why.advice)
    links = tuple(Link(letter, named(letter)) for letter in waiting[:LISTED])
    return Point("Dead letters", what, Level.PERSON, " ".join(advice), links)


@resolves("a booking id", "an event id", permission=SEE_EVENTS)
def from_events(term: str) -> Iterator[Meaning]:
    """Yield the booking of this id, and those that an event of this id is about."""
    if of_bookings().filter(aggregate_id=term).exists():
        yield Meaning(term, "events came about the booking of this id")
    for event in of_bookings().filter(event_id=term)[:MOST]:
        kind = exact(event.event_type)
        if event.aggregate_id:
            yield Meaning(event.aggregate_id, f"{kind} of this event id was about it")
        else:
            yield Meaning("", f"{kind} of this event id names no booking", event)


@resolves("a booking id", "an event id", permission=SEE_LETTERS)
def from_dead_letters(term: str) -> Iterator[Meaning]:
    """Yield the booking that dead letters name, and what dead letters of this event id are about."""
    letters = DeadLetter.objects.order_by()
    if letters.filter(aggregate_id=term).exists():
        yield Meaning(term, "dead letters name the booking of this id")
    either = letters.filter(Q(event_id=term) | Q(edited_event_id=term))
    for letter in either.only("aggregate_id", "event_id", "queue")[:MOST]:
        if letter.aggregate_id:
            yield Meaning(letter.aggregate_id, "a dead letter of this event id names it")
        else:
            yield Meaning("", "a dead letter of this event id names no booking", letter)


def _moment(at: datetime) -> str:
    return f"{localtime(at):%Y-%m-%d %H:%M:%S %Z}"
