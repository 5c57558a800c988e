"""The one place that decides whether an event was applied before, and that opens its transaction.

A group is one transaction: claim the events, let the rule decide and write, record the outcomes.
What fails is sorted by its cause. A database that is away is waited for, and a lost race is run again,
in place, for as long as it takes. After a bug each event is done again alone, so that only the events
that cause it are parked.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction

from booking_platform.contract.envelope import Event
from booking_platform.messaging import (
    bound,
    clock,
    contention,
    dead_letters,
    metrics,
    outages,
    outbox,
    tracing,
)
from booking_platform.messaging.arrivals import BUG, Arrival, Group, admit, read, worded
from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.claims import Known, claim, count_repeats, record
from booking_platform.messaging.dead_letters import POISON, Parking
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.publishing import Outgoing
from booking_platform.messaging.relaying import RELAY
from booking_platform.messaging.rules import (
    Applied,
    Consumer,
    EventRefused,
    LostRace,
    Refused,
    reason,
)
from booking_platform.messaging.suspects import Portion, Trial, portions
from booking_platform.messaging.tallies import DUPLICATES, TALLIES
from booking_platform.messaging.telling import safely
from booking_platform.messaging.tracing import Settled, ToldGroup

log = structlog.get_logger(__name__)

CONFLICT = reason(
    "conflict",
    "an id used before with other content",
    "The producer must publish it under an event id of its own. Discard this one then.",
)
DUPLICATE, PARKED = "duplicate", "parked"


class Committed(NamedTuple):
    """What one transaction made of a group."""

    applied: list[Applied]
    arrivals: list[Arrival]  # that were applied, one for each of ``applied``
    duplicates: list[tuple[Event, Known]]
    parkings: list[Parking]
    repeats: list[Arrival]  # of events of this very group: the next transaction sees duplicates


def process(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    """Commit or park every event of a group, and do what is to follow; the return is the ack.

    Raises:
        SoftTimeLimitExceeded: the worker's time limit ended it. What is not committed has had no
            effect, and the broker delivers the group again.
    """
    begun = clock.ticks()
    with bound.group(consumer.queue, deliveries):
        now = outages.wait_out(clock.now, consumer=consumer.queue, events=len(deliveries))
        with tracing.group(consumer.queue, consumer.routing_key, deliveries) as told:
            full = len(deliveries) == consumer.batch > 1
            for portion in portions(consumer.queue, told.deliveries):
                for committed in _commits_of(consumer, portion, now):
                    at = clock.ticks()
                    _finish(consumer, committed, told, full=full)
                    safely(_count_latency, consumer, committed, at)
        safely(_count_group, consumer, len(deliveries), clock.ticks() - begun)


def _commits_of(consumer: Consumer, portion: Portion, now: datetime) -> Iterator[Committed]:
    """Commit what is to be begun together; repeats of an event in it come after the event."""
    if portion.poison:
        # Its marks stay, until it is replayed: it may come back with a neighbour that dies.
        group: Group = [Parking(consumer.queue, portion.deliveries[0], None, _poison())]
    else:
        group = [read(consumer, delivery, now) for delivery in portion.deliveries]
    while group:
        repeats: list[Arrival] = []
        for committed in _commits(consumer, group, None if portion.poison else portion.trial):
            yield committed
            repeats += committed.repeats
        group = repeats


def apply(consumer: Consumer, delivery: Delivery, *, park: bool) -> str | None:
    """Apply one event and return its outcome: ``duplicate`` for a repeat, none where it is parked.

    Raises:
        EventRefused: without ``park``, it can't be applied. It has no effect then.
    """
    with (
        bound.group(consumer.queue, [delivery]),
        tracing.group(consumer.queue, consumer.routing_key, [delivery]) as told,
    ):
        group = [read(consumer, each, clock.now()) for each in told.deliveries]
        commits = _commits(consumer, group) if park else [_commit(consumer, group, strict=True)]
        [committed] = commits
        _finish(consumer, committed, told)
    if committed.applied:
        return str(committed.applied[0].outcome)
    return DUPLICATE if committed.duplicates else None


def _finish(
    consumer: Consumer, committed: Committed, told: ToldGroup, *, full: bool = False
) -> None:
    """Do what follows a commit. A group that was as large as may be says that more is waiting."""
    told.settle(partial(_settled, committed))
    RELAY.nudge(busy=full)
    if _follow(consumer, committed):
        RELAY.nudge()
    safely(_tell, consumer, committed)


def _commits(consumer: Consumer, group: Group, trial: Trial | None = None) -> Iterator[Committed]:
    """Commit a group or, where the code fails, each of its events alone."""
    try:
        committed = _commit(consumer, group, trial)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # a bug; MemoryError too, which would make Celery end the worker
        if len(group) > 1:
            log.warning("A group failed: applying its events one by one", events=len(group))
            if trial is not None:
                trial.withdraw()
            for one in group:
                alone = Trial(consumer.queue, [one.delivery]) if trial else None
                yield from _commits(consumer, [one], alone)
            return
        [only] = group
        if isinstance(only, Parking):
            raise  # it can't even be parked: its queue keeps it
        log.exception("A bug: the event is parked", event_id=only.event.event_id)
        parking = only.parking(consumer, Refused(BUG, worded(error)))
        committed = _commit(consumer, [parking], trial)
    yield committed


def _commit(
    consumer: Consumer, group: Group, trial: Trial | None = None, *, strict: bool = False
) -> Committed:
    """Commit a group, as often as it takes. The last attempt locks first and can't lose a race;
    where races were lost lately, each does.

    A ``strict`` one commits nothing of an event that would be parked.
    """
    with bound.alone([each.event for each in group]):
        return _commit_bound(consumer, group, trial, strict=strict)


def _commit_bound(
    consumer: Consumer, group: Group, trial: Trial | None, *, strict: bool
) -> Committed:
    pauses = Backoff(settings.LOCK_BASE_SECONDS, settings.LOCK_MAX_SECONDS)
    locks_first = contention.locks_first(consumer.queue)
    attempt = 0
    while True:
        attempt += 1
        lock = locks_first or attempt >= settings.LOCK_ATTEMPTS
        apply = partial(_apply, consumer, group, lock=lock, trial=trial, strict=strict)
        try:
            work = partial(trial.attempt, apply) if trial else apply
            return outages.wait_out(work, consumer=consumer.queue, events=len(group))
        except LostRace as race:
            pause = pauses.pause(attempt)
            contention.lost(consumer.queue, race, attempt=attempt, pause=pause)
        time.sleep(pause)


def _apply(
    consumer: Consumer, group: Group, *, lock: bool, trial: Trial | None, strict: bool
) -> Committed:
    """Apply a group in one transaction."""
    now = clock.now()
    with transaction.atomic(durable=True):
        if trial is not None:
            trial.end()
        arrivals, parkings = admit(consumer, group, now)
        committed = Committed([], [], [], parkings, [])
        fresh = _claim_fresh(consumer, arrivals, now, committed)
        events = [arrival.event for arrival in fresh]
        results = consumer.rule(events, lock=lock) if events else ()
        outcomes: dict[str, str] = {}  # by event id; empty for what is refused
        outgoing: list[Outgoing] = []
        for arrival, result in zip(fresh, results, strict=True):
            if isinstance(result, Refused):
                committed.parkings.append(arrival.parking(consumer, result))
                outcomes[arrival.event.event_id] = ""
            else:
                committed.applied.append(result)
                committed.arrivals.append(arrival)
                outcomes[arrival.event.event_id] = result.outcome
                trace = arrival.event.trace
                outgoing += (Outgoing(*announced, trace) for announced in result.announces)
        if strict and committed.parkings:
            raise EventRefused(committed.parkings[0].refused)
        record(consumer, outcomes)
        outgoing += dead_letters.park(committed.parkings)
        outbox.store_all(outgoing)
        if committed.duplicates:
            count_repeats(consumer, (event.event_id for event, _ in committed.duplicates), now)
    return committed


def _claim_fresh(
    consumer: Consumer, arrivals: Sequence[Arrival], now: datetime, committed: Committed
) -> list[Arrival]:
    """Claim the events; return those that are new, and add the others to ``committed``."""
    known = claim(consumer, [arrival.event for arrival in arrivals], now)
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


def _follow(consumer: Consumer, committed: Committed) -> bool:
    """Do what is to follow the commit; return whether there was anything.

    An error there changes nothing of what was committed.
    """
    follows = [
        (arrival.event, applied.then)
        for arrival, applied in zip(committed.arrivals, committed.applied, strict=True)
        if applied.then
    ]
    for event, then in follows:
        with bound.event(event):
            try:
                then()
            except Exception:
                log.exception("What was to follow a commit failed", consumer=consumer.queue)
    return bool(follows)


def _settled(committed: Committed) -> Iterator[Settled]:
    for arrival, applied in zip(committed.arrivals, committed.applied, strict=True):
        yield Settled(arrival.event.trace, str(applied.outcome))
    for event, _ in committed.duplicates:
        yield Settled(event.trace, DUPLICATE)
    for parking in committed.parkings:
        yield Settled(parking.delivery.trace, PARKED, parking.refused.reason.code)


def _count_latency(consumer: Consumer, committed: Committed, at: float) -> None:
    """Count how old events were when they were committed, ``at`` ticks; a producer's clock may be ahead of ours."""
    now = clock.now() - timedelta(seconds=clock.ticks() - at)
    ages = [
        max(0.0, (now - arrival.event.occurred_at).total_seconds())
        for arrival in committed.arrivals
        if not arrival.delivery.replay_of  # it has waited for a person
    ]
    if ages:
        metrics.EVENT_LATENCY.observe(ages, consumer.queue)


def _count_group(consumer: Consumer, size: int, seconds: float) -> None:
    metrics.GROUP_SIZE.observe([size], consumer.queue)
    metrics.GROUP_SECONDS.observe([seconds], consumer.queue)


def _tell(consumer: Consumer, committed: Committed) -> None:
    """Log and count what was committed."""
    counts = Counter(str(each.outcome) for each in committed.applied)
    for outcome, count in counts.items():
        metrics.EVENTS.labels(consumer.queue, outcome).inc(count)
    if counts:
        with bound.alone([arrival.event for arrival in committed.arrivals]):
            log.bind(**counts).info("Applied", consumer=consumer.queue, events=counts.total())
    repeated = Counter(event.event_type for event, _ in committed.duplicates)
    for event_type, count in repeated.items():
        metrics.DUPLICATE_EVENTS.labels(event_type).inc(count)
        TALLIES.add(DUPLICATES, consumer.queue, count)
    for event, before in committed.duplicates:
        log.info(
            "Duplicate event: applied before, no effect now",
            consumer=consumer.queue,
            event_id=event.event_id,
            aggregate_id=event.aggregate_id or None,
            first_processed_at=before.processed_at.isoformat(),
        )
    dead_letters.tell(committed.parkings)


def _poison() -> Refused:
    times = settings.EVENT_DELIVERY_LIMIT
    return Refused(
        POISON, f"begun {times} times on record, and its worker died or was stopped each time"
    )


def _conflict(before: Known) -> Refused:
    when = before.processed_at.isoformat()
    return Refused(CONFLICT, f"its eventId came with other content at {when}")
