"""Events that could not be applied: parked for a person, who replays or discards them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

from booking_platform.contract.envelope import Event, decode, identify, raw_fingerprint
from booking_platform.messaging import broker, clock, metrics
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rows import stored
from booking_platform.messaging.rules import CONSUMERS, Refused, reason

log = structlog.get_logger(__name__)

POISON = reason(
    "poison",
    "killed its worker until the broker's delivery limit",
    "Look in the worker's log for what ended it. Replay it when the cause is gone.",
)
BROKER = reason(
    "broker",
    "given up by the broker",
    "The detail has the broker's word for it. Replay it when the cause is gone.",
)


class Parking(NamedTuple):
    """An event on its way to the dead letters."""

    queue: str
    body: bytes
    event: Event | None  # where the body could be read as one
    refused: Refused

    def identity(self) -> tuple[str, str, str, str]:
        """Return queue, event id, fingerprint and event type: the first three are unique."""
        if self.event is not None:
            return self.queue, self.event.event_id, self.event.fingerprint, self.event.event_type
        event_id, event_type = identify(self.body)
        return self.queue, event_id, raw_fingerprint(self.body), event_type


class NotReplayable(Exception):
    """The dead letter can't be sent to its queue again; the message says why."""


def park(parkings: Sequence[Parking]) -> None:
    """Record dead letters, within the transaction that gave up on them.

    One that is open already is counted, not repeated.
    """
    now = stored(clock.now())
    counts = Counter(parking.identity() for parking in parkings)
    by_identity = {parking.identity(): parking for parking in parkings}
    sql = (
        "INSERT INTO dead_letters (queue, event_id, fingerprint, event_type, body, reason, detail,"
        " attempts, state, parked_at, last_parked_at, resolved_by, resolution)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'parked', %s, %s, '', '')"
        " ON CONFLICT (queue, event_id, fingerprint) WHERE state = 'parked'"
        " DO UPDATE SET attempts = dead_letters.attempts + excluded.attempts,"
        " last_parked_at = excluded.last_parked_at, reason = excluded.reason,"
        " detail = excluded.detail"
    )
    rows = [
        (
            *identity,
            parking.body,
            parking.refused.reason.code,
            parking.refused.detail.replace("\0", "�"),
            counts[identity],
            now,
            now,
        )
        for identity, parking in sorted(by_identity.items())
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)


def tell(parkings: Sequence[Parking]) -> None:
    """Log and count what was parked, once it is committed."""
    for parking in parkings:
        queue, event_id, _, event_type = parking.identity()
        metrics.DEAD_LETTERS.labels(queue, parking.refused.reason.code).inc()
        log.warning(
            "Event parked: it waits for a person under dead letters in the admin",
            queue=queue,
            event_id=event_id,
            event_type=event_type,
            reason=parking.refused.reason.code,
            detail=parking.refused.detail,
        )


def from_broker(delivery: Delivery, now: datetime) -> Parking:
    """Return a message that the broker gave up on, to be parked. RabbitMQ puts the newest death first:
    https://www.rabbitmq.com/docs/dlx#effects
    """
    deaths: Any = delivery.headers.get("x-death")
    newest: Any = deaths[0] if isinstance(deaths, list) and deaths else {}
    newest = newest if isinstance(newest, dict) else {}
    queue, why = _storable(newest.get("queue", "")), _storable(newest.get("reason", "unknown"))
    if why == "delivery_limit":
        refused = Refused(
            POISON,
            "its worker died or was stopped each time, until the broker's delivery limit",
        )
    else:
        refused = Refused(BROKER, f"the broker gave it up: {why}")
    return Parking(queue, delivery.body, _as_event(queue, delivery.body, now), refused)


def _storable(text: object) -> str:
    """Return what a header says so that it fits a column: whoever may publish can write it."""
    return str(text).encode(errors="replace").decode().replace("\0", "")[:100]


def _as_event(queue: str, body: bytes, now: datetime) -> Event | None:
    """Return a body as the consumer of its queue reads it, so that it counts as the same dead letter."""
    consumer = CONSUMERS.get(queue)
    if consumer is None:
        return None
    try:
        return decode(body, consumer.payload, now=now)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # not only InvalidEvent: this is the last stop, it takes whatever comes
        return None


def was_parked(dead_letter_id: object, event: Event) -> bool:
    """Return whether this event is the replay of a dead letter, as its header claims."""
    return (
        isinstance(dead_letter_id, int)
        and DeadLetter.objects.filter(
            pk=dead_letter_id, event_id=event.event_id, fingerprint=event.fingerprint
        ).exists()
    )


def replay(dead_letter: DeadLetter, *, by: str, why: str = "") -> bool:
    """Send the original body back to the one queue that it came from.

    It is published and confirmed first, then closed. A crash between the two leaves it open, and a
    second replay of what was applied meanwhile is a duplicate without effect. It also stays open if
    it was parked again before it could be closed: then false is returned.

    Raises:
        NotReplayable: what came was removed, it is closed, or its queue is none of ours.
    """
    if dead_letter.forgotten_at is not None:
        raise NotReplayable(
            f"{dead_letter}: what came was removed on {dead_letter.forgotten_at:%Y-%m-%d}. The "
            "producer must publish the event again."
        )
    if dead_letter.state != DeadLetter.State.PARKED:
        raise NotReplayable(f"{dead_letter} is {dead_letter.get_state_display()}")
    if dead_letter.queue not in CONSUMERS:
        raise NotReplayable(f"{dead_letter}: no consumer has a queue of that name")
    broker.publish_to_queue(
        dead_letter.queue, bytes(dead_letter.body), headers={REPLAY_HEADER: dead_letter.pk}
    )
    closed = dead_letter.resolve(DeadLetter.State.REPLAYED, by=by, why=why)
    log.info(
        "Dead letter replayed",
        dead_letter=dead_letter.pk,
        queue=dead_letter.queue,
        event_id=dead_letter.event_id,
        by=by,
    )
    return closed


def discard(dead_letter: DeadLetter, *, by: str, why: str) -> bool:
    """Close a dead letter for good; return false if somebody else closed it or it came again."""
    closed = dead_letter.resolve(DeadLetter.State.DISCARDED, by=by, why=why)
    if closed:
        log.info(
            "Dead letter discarded",
            dead_letter=dead_letter.pk,
            event_id=dead_letter.event_id,
            by=by,
        )
    return closed
