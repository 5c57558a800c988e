"""The one place that decides whether an event was applied before, and that opens its transaction.

A group is one transaction: claim the events, let the rule decide and write, record the outcomes.
What fails is sorted by whose fault it is. A lost race and a database that is away are tried again
in place, for as long as it takes. A bug is done again event by event, so that only the events that
cause it are parked.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from booking_platform.messaging import dead_letters, metrics
from booking_platform.messaging.consumers import Consumer, LostRace, Refused
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.envelope import Event, InvalidEvent, MalformedEvent, decode
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.outages import persevere
from booking_platform.messaging.rows import insert_missing

log = structlog.get_logger(__name__)


class Arrival(NamedTuple):
    """A delivery that holds a valid event."""

    delivery: Delivery
    event: Event


class Known(NamedTuple):
    """What is remembered of an event that was applied before."""

    fingerprint: str
    processed_at: datetime


def settle(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    """Commit or park every event of a group; return only when all of them are safe.

    Raises:
        SoftTimeLimitExceeded: the worker's time limit ended it. What is not committed has had no
            effect, and the broker delivers the group again.
    """
    group = [_read(consumer, delivery) for delivery in deliveries]
    while group:
        group = _settle(consumer, group)


def _read(consumer: Consumer, delivery: Delivery) -> Arrival | Parking:
    """Decode one delivery; what is no event that this consumer takes is to be parked."""

    def refuse(reason: DeadLetter.Reason, detail: str) -> Parking:
        return Parking(consumer.name, delivery.body, None, Refused(reason, detail))

    if "task" in delivery.headers:
        name = str(delivery.headers["task"])[:100]
        return refuse(DeadLetter.Reason.TASK, f"headers name the Celery task {name!r}")
    if len(delivery.body) > settings.EVENT_MAX_BYTES:
        size, limit = len(delivery.body), settings.EVENT_MAX_BYTES
        return refuse(DeadLetter.Reason.TOO_LARGE, f"{size:,} bytes: at most {limit:,} are read")
    try:
        payload_type = consumer.queue.payload_type
        return Arrival(delivery, decode(delivery.body, payload_type, now=timezone.now()))
    except MalformedEvent as error:
        return refuse(DeadLetter.Reason.MALFORMED, str(error))
    except InvalidEvent as error:
        return refuse(DeadLetter.Reason.INVALID, str(error))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # a bug in reading one event must not hold up its neighbours
        log.exception("A bug: the message is parked unread", consumer=consumer.name)
        return refuse(DeadLetter.Reason.BUG, _worded(error))


def _settle(consumer: Consumer, group: Sequence[Arrival | Parking]) -> list[Arrival | Parking]:
    """Apply a group, or where the code fails, each of its events alone."""
    try:
        return _persevere(consumer, group)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # a bug; MemoryError too, which would make Celery end the worker
        if len(group) > 1:
            log.warning("A group failed: applying its events one by one", events=len(group))
            return [late for one in group for late in _settle(consumer, [one])]
        [only] = group
        if isinstance(only, Parking):
            raise  # it can't even be parked; the broker's delivery limit keeps it
        log.exception("A bug: the event is parked", event_id=only.event.event_id)
        refused = Refused(DeadLetter.Reason.BUG, _worded(error))
        return _persevere(consumer, [_parking(consumer, only, refused)])


def _worded(error: Exception) -> str:
    """Give an error in a line; PostgreSQL's other lines hold the row, and the customer in it."""
    first_line, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first_line}"[:500]


def _parking(consumer: Consumer, arrival: Arrival, refused: Refused) -> Parking:
    return Parking(consumer.name, arrival.delivery.body, arrival.event, refused)


def _persevere(consumer: Consumer, group: Sequence[Arrival | Parking]) -> list[Arrival | Parking]:
    return persevere(
        lambda lock: _apply(consumer, group, lock=lock), consumer=consumer.name, events=len(group)
    )


def _apply(
    consumer: Consumer, group: Sequence[Arrival | Parking], *, lock: bool
) -> list[Arrival | Parking]:
    """Apply a group in one transaction; give back what repeats an event of this very group.

    In the next transaction those are repeats of what is committed, or of what was parked.
    """
    now = timezone.now()
    repeats: list[Arrival | Parking] = []
    duplicates: list[tuple[Event, Known]] = []
    fresh: dict[str, Arrival] = {}
    with transaction.atomic(durable=True):
        arrivals, parkings = _admit(consumer, group, now)
        known = _claim(consumer, [arrival.event for arrival in arrivals], now)
        for arrival in arrivals:
            event = arrival.event
            before = known.get(event.event_id)
            if before is None and event.event_id not in fresh:
                fresh[event.event_id] = arrival
            elif before is None:
                repeats.append(arrival)
            elif before.fingerprint == event.fingerprint:
                duplicates.append((event, before))
            else:
                parkings.append(_parking(consumer, arrival, _conflict(before)))
        events = [arrival.event for arrival in fresh.values()]
        answers = consumer.rule(events, lock=lock) if events else ()
        outcomes = dict(zip(fresh, answers, strict=True))
        parkings += [
            _parking(consumer, fresh[event_id], answer)
            for event_id, answer in outcomes.items()
            if isinstance(answer, Refused)
        ]
        _record(consumer, outcomes)
        dead_letters.park(parkings)
    _tell(consumer, outcomes, duplicates, parkings)
    return repeats


def _admit(
    consumer: Consumer, group: Sequence[Arrival | Parking], now: datetime
) -> tuple[list[Arrival], list[Parking]]:
    """Part what may be applied from what is parked, stale events among it."""
    arrivals: list[Arrival] = []
    parkings: list[Parking] = []
    for item in group:
        if isinstance(item, Parking):
            parkings.append(item)
        elif item.event.occurred_at < now - settings.PROCESSED_EVENTS_RETENTION and (
            not dead_letters.was_parked(item.delivery.headers.get(REPLAY_HEADER), item.event)
        ):
            parkings.append(_parking(consumer, item, _stale(item.event)))
        else:
            arrivals.append(item)
    return arrivals, parkings


def _stale(event: Event) -> Refused:
    days = settings.PROCESSED_EVENTS_RETENTION.days
    return Refused(
        DeadLetter.Reason.STALE,
        f"timestamp is {event.occurred_at.isoformat()}: a repeat is recognised for {days} days only",
    )


def _conflict(before: Known) -> Refused:
    return Refused(
        DeadLetter.Reason.CONFLICT,
        f"its eventId came with other content at {before.processed_at.isoformat()}",
    )


def _claim(consumer: Consumer, events: Iterable[Event], now: datetime) -> dict[str, Known]:
    """Claim the events for this transaction; tell what is known of those that were claimed before.

    Sorted, so that two workers with overlapping groups wait for each other instead of
    deadlocking; who waited sees the other's claim as a duplicate.
    """
    first = {event.event_id: event for event in reversed(list(events))}
    claimed = insert_missing(
        ProcessedEvent,
        (
            "event_id",
            "consumer",
            "event_type",
            "aggregate_id",
            "fingerprint",
            "outcome",
            "occurred_at",
            "processed_at",
        ),
        [
            (
                event_id,
                consumer.name,
                event.event_type,
                getattr(event.payload, "booking_id", None) or "",
                event.fingerprint,
                consumer.usual_outcome,
                event.occurred_at,
                now,
            )
            for event_id, event in sorted(first.items())
        ],
        key="event_id",
    )
    if len(claimed) == len(first):
        return {}
    lost = first.keys() - claimed
    before = ProcessedEvent.objects.filter(consumer=consumer.name, event_id__in=lost)
    known = {
        event_id: Known(fingerprint, processed_at)
        for event_id, fingerprint, processed_at in before.values_list(
            "event_id", "fingerprint", "processed_at"
        )
    }
    if forgotten := lost - known.keys():  # by the cleanup, between the two statements
        raise LostRace("processed_event", event_id=min(forgotten))
    return known


def _record(consumer: Consumer, outcomes: dict[str, str | Refused]) -> None:
    """Correct the claims whose outcome is not the usual one; drop those of refused events."""
    claims = ProcessedEvent.objects.filter(consumer=consumer.name)
    unusual: dict[str, list[str]] = {}
    for event_id, outcome in outcomes.items():
        if isinstance(outcome, Refused):
            unusual.setdefault("", []).append(event_id)
        elif outcome != consumer.usual_outcome:
            unusual.setdefault(outcome, []).append(event_id)
    for outcome, event_ids in unusual.items():
        if outcome:
            claims.filter(event_id__in=event_ids).update(outcome=outcome)
        else:
            claims.filter(event_id__in=event_ids).delete()


def _tell(
    consumer: Consumer,
    outcomes: dict[str, str | Refused],
    duplicates: Sequence[tuple[Event, Known]],
    parkings: Sequence[Parking],
) -> None:
    """Log and count what was committed."""
    counts = Counter(outcome for outcome in outcomes.values() if isinstance(outcome, str))
    for outcome, count in counts.items():
        metrics.EVENTS.labels(consumer.name, outcome).inc(count)
    if counts:
        log.info("Applied", consumer=consumer.name, events=counts.total(), **counts)
    for event, before in duplicates:
        metrics.DUPLICATE_EVENTS.labels(event.event_type).inc()
        log.info(
            "Duplicate event: applied before, no effect now",
            consumer=consumer.name,
            event_id=event.event_id,
            booking_id=getattr(event.payload, "booking_id", None),
            first_processed_at=before.processed_at.isoformat(),
        )
    dead_letters.tell(parkings)
