"""The memory that makes a repeat harmless: which events a consumer has claimed, and what they did."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import F

from booking_platform.contract.envelope import Event
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import EXPECTED, compare_and_set, insert_missing
from booking_platform.messaging.rules import Consumer, LostRace


class Known(NamedTuple):
    """What is remembered of an event that was applied before."""

    fingerprint: str
    processed_at: datetime


def claim(consumer: Consumer, events: Iterable[Event], now: datetime) -> dict[str, Known]:
    """Claim the events for this transaction; return what is known of those claimed before.

    Sorted, so that two workers with overlapping groups wait for each other instead of
    deadlocking. Who waited sees the other's claim as a duplicate.
    """
    first = {event.event_id: event for event in reversed(list(events))}
    claims = [
        {
            "event_id": event_id,
            "event_type": event.event_type,
            "aggregate_id": event.aggregate_id,
            "fingerprint": event.fingerprint,
            "occurred_at": event.occurred_at,
        }
        for event_id, event in sorted(first.items())
    ]
    same = {
        "consumer": consumer.queue,
        "outcome": str(consumer.usual_outcome),
        "processed_at": now,
    }
    claimed = insert_missing(
        ProcessedEvent, claims, key="event_id", same=same, unique=("event_id", "consumer")
    )
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


def told_before(event: Event, outcomes: Iterable[str]) -> bool:
    """Return whether an event was applied before that says the same of the same moment.

    Such a repeat has the type, payload and timestamp of this event, under another event id.
    ``outcomes`` are those of the consumer that asks: each remembers for itself.
    """
    same = ProcessedEvent.objects.filter(
        aggregate_id=event.aggregate_id,
        event_type=event.event_type,
        fingerprint=event.fingerprint,
        occurred_at=event.occurred_at,
        outcome__in=list(outcomes),
    )
    return same.exclude(event_id=event.event_id).exists()


def count_repeats(consumer: Consumer, event_ids: Iterable[str], now: datetime) -> None:
    """Store that events came again which were applied before.

    Call it last in a transaction: the rows stay locked until it ends. They are locked in order, so that two
    workers with the same events wait for each other instead of deadlocking.
    """
    times = Counter(event_ids)
    rows = ProcessedEvent.objects.filter(consumer=consumer.queue, event_id__in=times)
    locked = rows.order_by("event_id").select_for_update(no_key=True).values_list("pk", "event_id")
    pks_by_times: dict[int, list[int]] = {}
    for pk, event_id in locked:
        pks_by_times.setdefault(times[event_id], []).append(pk)
    for more, pks in pks_by_times.items():
        repeated = ProcessedEvent.objects.filter(pk__in=pks)
        repeated.update(repeats=F("repeats") + more, last_repeated_at=now)


def record(consumer: Consumer, outcomes: dict[str, str]) -> None:
    """Correct the claims whose outcome is not the usual one; delete those of refused events."""
    unusual = [
        {"event_id": event_id, "outcome": outcome, EXPECTED: consumer.queue}
        for event_id, outcome in sorted(outcomes.items())
        if outcome and outcome != consumer.usual_outcome
    ]
    compare_and_set(ProcessedEvent, unusual, key="event_id", guard="consumer")
    if refused := [event_id for event_id, outcome in outcomes.items() if not outcome]:
        claims = ProcessedEvent.objects.filter(consumer=consumer.queue, event_id__in=refused)
        claims.delete()
