"""What could not be processed: parked for a person, replayed or discarded by one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.utils import timezone

from booking_platform.messaging import metrics, publisher
from booking_platform.messaging.consumers import CONSUMERS, Refused
from booking_platform.messaging.envelope import (
    Event,
    decode,
    identify,
    raw_fingerprint,
)
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rows import stored
from booking_platform.messaging.topology import EVENT_QUEUES

log = structlog.get_logger(__name__)

QUEUES = frozenset(queue.name for queue in EVENT_QUEUES)


class Parking(NamedTuple):
    """An event on its way to the dead letters."""

    queue: str
    body: bytes
    event: Event | None  # where the body could be read as one
    refused: Refused

    def identity(self) -> tuple[str, str, str, str]:
        """Give queue, event id, fingerprint and event type: the first three are unique."""
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
    now = stored(timezone.now())
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
            parking.refused.reason,
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
        metrics.DEAD_LETTERS.labels(queue, parking.refused.reason).inc()
        log.warning(
            "Event parked: it waits for a person under dead letters in the admin",
            queue=queue,
            event_id=event_id,
            event_type=event_type,
            reason=str(parking.refused.reason),
            detail=parking.refused.detail,
        )


def from_broker(delivery: Delivery) -> Parking:
    """Read a message that the broker gave up on. RabbitMQ puts the newest death first:
    https://www.rabbitmq.com/docs/dlx#effects
    """
    deaths: Any = delivery.headers.get("x-death")
    newest: Any = deaths[0] if isinstance(deaths, list) and deaths else {}
    newest = newest if isinstance(newest, dict) else {}
    queue, why = _storable(newest.get("queue", "")), _storable(newest.get("reason", "unknown"))
    if why == "delivery_limit":
        refused = Refused(
            DeadLetter.Reason.POISON,
            "its worker died or was stopped each time, until the broker's delivery limit",
        )
    else:
        refused = Refused(DeadLetter.Reason.BROKER, f"the broker gave it up: {why}")
    return Parking(queue, delivery.body, _as_event(queue, delivery.body), refused)


def _storable(text: object) -> str:
    """Make what a header says fit a column: whoever may publish can write it."""
    return str(text).encode(errors="replace").decode().replace("\0", "")[:100]


def _as_event(queue: str, body: bytes) -> Event | None:
    """Decode a body as its consumer would, so that it counts as the same dead letter."""
    consumer = CONSUMERS.get(queue)
    if consumer is None:
        return None
    try:
        return decode(body, consumer.queue.payload_type, now=timezone.now())
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # not only InvalidEvent: this is the last stop, it takes whatever comes
        return None


def was_parked(dead_letter_id: object, event: Event) -> bool:
    """Tell whether this event is the replay of a dead letter, as its header claims."""
    return (
        isinstance(dead_letter_id, int)
        and DeadLetter.objects.filter(
            pk=dead_letter_id, event_id=event.event_id, fingerprint=event.fingerprint
        ).exists()
    )


def replay(dead_letter: DeadLetter, *, by: str, why: str = "") -> bool:
    """Send the original body back to the one queue that it came from.

    Published and confirmed first, then closed: a crash between leaves it open, and a second
    replay of something done meanwhile is a duplicate without effect. It stays open too if it was
    parked again before it could be closed; then the answer is false.

    Raises:
        NotReplayable: it is closed, or its queue is none of ours.
    """
    if dead_letter.state != DeadLetter.State.PARKED:
        raise NotReplayable(f"{dead_letter} is {dead_letter.get_state_display()}")
    if dead_letter.queue not in QUEUES:
        raise NotReplayable(f"{dead_letter}: no consumer has a queue of that name")
    publisher.to_queue(
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
    """Close a dead letter for good; false if somebody else closed it or it came again."""
    closed = dead_letter.resolve(DeadLetter.State.DISCARDED, by=by, why=why)
    if closed:
        log.info(
            "Dead letter discarded",
            dead_letter=dead_letter.pk,
            event_id=dead_letter.event_id,
            by=by,
        )
    return closed
