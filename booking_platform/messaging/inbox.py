"""The one place that decides whether an event was applied before, and that opens its transaction.

A group is one transaction: claim the events, let the rule decide and write, record the outcomes.
What fails is sorted by its cause. A database that is away is waited for, and a lost race is run again,
in place, for as long as it takes. After a bug each event is done again alone, so that only the events
that cause it are parked.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction

from booking_platform.contract.envelope import Event
from booking_platform.messaging import clock, dead_letters, metrics, outages
from booking_platform.messaging.arrivals import BUG, Arrival, Group, admit, read, worded
from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import insert_missing
from booking_platform.messaging.rules import Applied, Consumer, LostRace, Refused, reason

log = structlog.get_logger(__name__)

CONFLICT = reason(
    "conflict",
    "an id used before with other content",
    "The producer must publish it under an event id of its own. Discard this one then.",
)


class Known(NamedTuple):
    """What is remembered of an event that was applied before."""

    fingerprint: str
    processed_at: datetime


class Committed(NamedTuple):
    """What one transaction made of a group."""

    applied: list[Applied]
    duplicates: list[tuple[Event, Known]]
    parkings: list[Parking]
    repeats: list[Arrival]  # of events of this very group: the next transaction sees duplicates


def process(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    """Commit or park every event of a group, and do what is to follow; the return is the ack.

    Raises:
        SoftTimeLimitExceeded: the worker's time limit ended it. What is not committed has had no
            effect, and the broker delivers the group again.
    """
    now = outages.wait_out(clock.now, consumer=consumer.queue, events=len(deliveries))
    group: Group = [read(consumer, delivery, now) for delivery in deliveries]
    while group:
        repeats: list[Arrival] = []
        for committed in _commits(consumer, group):
            _follow(consumer, committed.applied)
            _tell(consumer, committed)
            repeats += committed.repeats
        group = repeats


def _commits(consumer: Consumer, group: Group) -> Iterator[Committed]:
    """Commit a group or, where the code fails, each of its events alone."""
    try:
        committed = _commit(consumer, group)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # a bug; MemoryError too, which would make Celery end the worker
        if len(group) > 1:
            log.warning("A group failed: applying its events one by one", events=len(group))
            for one in group:
                yield from _commits(consumer, [one])
            return
        [only] = group
        if isinstance(only, Parking):
            raise  # it can't even be parked; the broker's delivery limit keeps it
        log.exception("A bug: the event is parked", event_id=only.event.event_id)
        committed = _commit(consumer, [only.parking(consumer, Refused(BUG, worded(error)))])
    yield committed


def _commit(consumer: Consumer, group: Group) -> Committed:
    """Commit a group, as often as it takes. The last attempt locks first and can't lose a race."""
    pauses = Backoff(settings.LOCK_BASE_SECONDS, settings.LOCK_MAX_SECONDS)
    attempt = 0
    while True:
        attempt += 1
        apply = partial(_apply, consumer, group, lock=attempt >= settings.LOCK_ATTEMPTS)
        try:
            return outages.wait_out(apply, consumer=consumer.queue, events=len(group))
        except LostRace as race:
            pause = pauses.pause(attempt)
            metrics.OPTIMISTIC_LOCK_CONFLICTS.labels(race.resource_type).inc()
            log.info(
                f"Optimistic lock conflict on a {race.resource_type}: trying again",
                consumer=consumer.queue,
                attempt=attempt,
                of=settings.LOCK_ATTEMPTS,
                pause_ms=round(1000 * pause),
                **race.context,
            )
        time.sleep(pause)


def _apply(consumer: Consumer, group: Group, *, lock: bool) -> Committed:
    """Apply a group in one transaction."""
    now = clock.now()
    with transaction.atomic(durable=True):
        arrivals, parkings = admit(consumer, group, now)
        committed = Committed([], [], parkings, [])
        fresh = _claim_fresh(consumer, arrivals, now, committed)
        events = [arrival.event for arrival in fresh]
        results = consumer.rule(events, lock=lock) if events else ()
        outcomes: dict[str, str] = {}  # by event id; empty for what is refused
        for arrival, result in zip(fresh, results, strict=True):
            if isinstance(result, Refused):
                committed.parkings.append(arrival.parking(consumer, result))
                outcomes[arrival.event.event_id] = ""
            else:
                committed.applied.append(result)
                outcomes[arrival.event.event_id] = result.outcome
        _record(consumer, outcomes)
        dead_letters.park(committed.parkings)
    return committed


def _claim_fresh(
    consumer: Consumer, arrivals: Sequence[Arrival], now: datetime, committed: Committed
) -> list[Arrival]:
    """Claim the events; return those that are new, and add the others to ``committed``."""
    known = _claim(consumer, [arrival.event for arrival in arrivals], now)
    fresh: dict[str, Arrival] = {}
    for arrival in arrivals:
        event = arrival.event
        before = known.get(event.event_id)
        if before is None and event.event_id not in fresh:
            fresh[event.event_id] = arrival
        elif before is None:
            committed.repeats.append(arrival)
        elif before.fingerprint == event.fingerprint:
            committed.duplicates.append((event, before))
        else:
            committed.parkings.append(arrival.parking(consumer, _conflict(before)))
    return list(fresh.values())


def _claim(consumer: Consumer, events: Iterable[Event], now: datetime) -> dict[str, Known]:
    """Claim the events for this transaction; return what is known of those claimed before.

    Sorted, so that two workers with overlapping groups wait for each other instead of
    deadlocking. Who waited sees the other's claim as a duplicate.
    """
    first = {event.event_id: event for event in reversed(list(events))}
    claims = [
        {
            "event_id": event_id,
            "consumer": consumer.queue,
            "event_type": event.event_type,
            "aggregate_id": event.aggregate_id,
            "fingerprint": event.fingerprint,
            "outcome": consumer.usual_outcome,
            "occurred_at": event.occurred_at,
            "processed_at": now,
        }
        for event_id, event in sorted(first.items())
    ]
    claimed = insert_missing(ProcessedEvent, claims, key="event_id")
    if len(claimed) == len(first):
        return {}
    lost = first.keys() - claimed
    before = ProcessedEvent.objects.filter(consumer=consumer.queue, event_id__in=lost)
    known = {
        event_id: Known(fingerprint, processed_at)
        for event_id, fingerprint, processed_at in before.values_list(
            "event_id", "fingerprint", "processed_at"
        )
    }
    if forgotten := lost - known.keys():  # by the cleanup, between the two statements
        raise LostRace("processed_event", event_id=min(forgotten))
    return known


def _record(consumer: Consumer, outcomes: dict[str, str]) -> None:
    """Correct the claims whose outcome is not the usual one; delete those of refused events."""
    unusual: dict[str, list[str]] = {}
    for event_id, outcome in outcomes.items():
        if outcome != consumer.usual_outcome:
            unusual.setdefault(outcome, []).append(event_id)
    for outcome, event_ids in unusual.items():
        claims = ProcessedEvent.objects.filter(consumer=consumer.queue, event_id__in=event_ids)
        if outcome:
            claims.update(outcome=outcome)
        else:
            claims.delete()


def _follow(consumer: Consumer, applied: Iterable[Applied]) -> None:
    """Do what is to follow the commit. An error there changes nothing of what was committed."""
    for then in filter(None, (each.then for each in applied)):
        try:
            then()
        except Exception:
            log.exception("What was to follow a commit failed", consumer=consumer.queue)


def _tell(consumer: Consumer, committed: Committed) -> None:
    """Log and count what was committed."""
    counts = Counter(str(each.outcome) for each in committed.applied)
    for outcome, count in counts.items():
        metrics.EVENTS.labels(consumer.queue, outcome).inc(count)
    if counts:
        log.info("Applied", consumer=consumer.queue, events=counts.total(), **counts)
    for event, before in committed.duplicates:
        metrics.DUPLICATE_EVENTS.labels(event.event_type).inc()
        log.info(
            "Duplicate event: applied before, no effect now",
            consumer=consumer.queue,
            event_id=event.event_id,
            aggregate_id=event.aggregate_id or None,
            first_processed_at=before.processed_at.isoformat(),
        )
    dead_letters.tell(committed.parkings)


def _conflict(before: Known) -> Refused:
    when = before.processed_at.isoformat()
    return Refused(CONFLICT, f"its eventId came with other content at {when}")
