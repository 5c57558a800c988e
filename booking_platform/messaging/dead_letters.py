"""Events that could not be applied: parked for a person, who replays or discards them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction
from django.db.models import Count, Q
from kombu import Producer

from booking_platform.contract import trace_context
from booking_platform.contract.announcing import Announced, EventDiscarded, EventParked, announced
from booking_platform.contract.envelope import (
    Event,
    Payload,
    decode,
    identify,
    raw_fingerprint,
)
from booking_platform.contract.identity import LONGEST_ID, subject
from booking_platform.messaging import broker, clock, metrics, outbox, topology
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter, Suspect
from booking_platform.messaging.publishing import Outgoing
from booking_platform.messaging.rows import stored
from booking_platform.messaging.rules import (
    CONSUMERS,
    LONGEST_QUEUE,
    Consumer,
    Refused,
    event_types,
    reason,
)
from booking_platform.redaction import redacted_text

log = structlog.get_logger(__name__)

POISON = reason(
    "poison",
    "its worker died over it, again and again",
    "Look in the worker's log for what ended it. Replay it when the cause is gone.",
)
BROKER = reason(
    "broker",
    "given up by the broker",
    "The detail has the broker's word for it. Replay it when the cause is gone.",
)
UNROUTABLE = reason(
    "unroutable",
    "published under a routing key that no consumer has",
    "The producer must correct its routing key. A replay goes to the consumers of this event type.",
)


Identity = tuple[str, str, str, str]  # queue, event id, fingerprint, event type


class Parking(NamedTuple):
    """An event on its way to the dead letters."""

    queue: str
    delivery: Delivery
    event: Event | None  # where the body could be read as one
    refused: Refused

    def identity(self) -> Identity:
        """Return queue, event id, fingerprint and event type: the first three are unique."""
        if self.event is not None:
            return self.queue, self.event.event_id, self.event.fingerprint, self.event.event_type
        body = self.delivery.body
        event_id, event_type = identify(body)
        fingerprint = self.delivery.digest or raw_fingerprint(body)
        return self.queue, event_id, fingerprint, event_type

    @property
    def aggregate_id(self) -> str:
        """Return what the event speaks of; empty where that can't be read or stored.

        No bug in an app's payload may keep an event from being parked.
        """
        try:
            about = self.event.aggregate_id if self.event else _subject(self.delivery.body)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            return ""
        return about if _storable(about, LONGEST_ID) == about else ""


class NotReplayable(Exception):
    """The dead letter can't be sent to its queue again; the message says why."""


def park(parkings: Sequence[Parking]) -> list[Outgoing]:
    """Record dead letters, within the transaction that gave up on them; return what is to be announced.

    One that is open already is counted, not repeated.
    """
    if not parkings:
        return []
    moment = clock.now()
    now = stored(moment)
    counts = Counter(parking.identity() for parking in parkings)
    by_identity = {parking.identity(): parking for parking in parkings}
    sql = (
        "INSERT INTO dead_letters (queue, event_id, fingerprint, event_type, aggregate_id, body, size, reason, detail,"
        " attempts, state, parked_at, last_parked_at, resolved_by, resolution, trace)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'parked', %s, %s, '', '', %s)"
        " ON CONFLICT (queue, event_id, fingerprint) WHERE state = 'parked'"
        " DO UPDATE SET attempts = dead_letters.attempts + excluded.attempts,"
        " last_parked_at = excluded.last_parked_at, reason = excluded.reason,"
        " detail = excluded.detail, trace = excluded.trace, aggregate_id = excluded.aggregate_id"
    )
    rows = [
        (
            *identity,
            parking.aggregate_id,
            parking.delivery.body,
            parking.delivery.size or None,
            parking.refused.reason.code,
            parking.refused.detail.replace("\0", "�"),
            counts[identity],
            now,
            now,
            trace_context.parent(parking.delivery.trace),
        )
        for identity, parking in sorted(by_identity.items())
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)
    return _announced(by_identity, moment)


def _announced(parkings: Mapping[Identity, Parking], moment: datetime) -> list[Outgoing]:
    """Return what is to be announced of dead letters.

    Their causes tell the times apart at which a message was parked anew, after its dead letter was
    closed; that it came again while it was open is no news.
    """
    closed = _closed(parkings)
    outgoing = []
    for (queue, event_id, fingerprint, event_type), parking in sorted(parkings.items()):
        if event_type == EventParked.__name__:  # nobody is told that nobody could be told
            continue
        reason = parking.refused.reason
        payload = EventParked(
            **_named(queue, event_id, event_type),
            reason=reason.code,
            detail=redacted_text(parking.refused.detail) if not reason.ours else None,
        )
        times = closed.get((queue, event_id, fingerprint), 0)
        # With another reason it is another announcement: the same id never comes with other content.
        cause = "\0".join(
            (queue, event_id, fingerprint, str(times), reason.code, payload.detail or "")
        )
        trace = parking.delivery.trace
        outgoing.append(Outgoing(*announced(payload, cause=cause, at=moment), trace))
    return outgoing


def _named(queue: str, event_id: str, event_type: str) -> dict[str, Any]:
    """Return what announcements call an event by; whoever published it may have written an address."""
    return {
        "queue": redacted_text(queue),
        "caused_by": event_id or None,
        "event_type": redacted_text(event_type) or None,
    }


def _closed(parkings: Iterable[Identity]) -> dict[tuple[str, str, str], int]:
    """Return how often each was closed. Others of the same event id, or of none, are not read."""
    events, fingerprints = {each[1] for each in parkings}, {each[2] for each in parkings}
    found = (
        DeadLetter.objects.filter(event_id__in=events, fingerprint__in=fingerprints)
        .exclude(state=DeadLetter.State.PARKED)
        .values_list("queue", "event_id", "fingerprint")
        .annotate(times=Count("pk"))
    )
    return {(queue, event_id, fingerprint): n for queue, event_id, fingerprint, n in found}


def tell(parkings: Sequence[Parking]) -> None:
    """Log and count what was parked, once it is committed."""
    for parking in parkings:
        queue, event_id, _, event_type = parking.identity()
        # Anybody may name a queue to the broker, and each value of a label is kept for ever.
        ours = queue in CONSUMERS or parking.refused.reason is UNROUTABLE
        counted = queue if ours else "none of ours"
        metrics.DEAD_LETTERS.labels(counted, parking.refused.reason.code).inc()
        log.warning(
            "Event parked: it waits for a person under dead letters in the admin",
            queue=queue,
            event_id=event_id,
            event_type=event_type,
            reason=parking.refused.reason.code,
            detail=parking.refused.detail,
        )


def from_broker(delivery: Delivery, now: datetime) -> Parking:
    """Return a message that the broker gave up on, to be parked.

    The broker sends it under the name of the queue that gave it up. Where that queue is older than
    this rule, the newest of its deaths names it: https://www.rabbitmq.com/docs/dlx#effects
    """
    queue = _origin(delivery) or _storable(delivery.died_in)
    why = _storable(delivery.died_of) or "unknown"
    if why == "delivery_limit":
        detail = "handed over until the broker's delivery limit, and never answered"
    else:
        detail = f"the broker gave it up: {why}"
    consumer = CONSUMERS.get(queue)
    event = _as_event(consumer.payload, consumer.uses, delivery.body, now) if consumer else None
    return Parking(queue, delivery, event, Refused(BROKER, detail))


def unroutable(delivery: Delivery, now: datetime) -> Parking:
    """Return a message that no queue takes, to be parked."""
    _, event_type = identify(delivery.body)
    known = [each for each in event_types().values() if each.__name__ == event_type]
    event = _as_event(known[0], (), delivery.body, now) if known else None
    detail = f"no consumer has the routing key {_storable(delivery.routing_key)!r}"
    return Parking(topology.unroutable_queue().name, delivery, event, Refused(UNROUTABLE, detail))


def unread(queue: str, delivery: Delivery, _now: datetime) -> Parking:
    """Return a message that ended whoever looked into it, to be parked unread."""
    origin = _origin(delivery) or queue
    return Parking(origin, delivery, None, Refused(POISON, "it ended whoever tried to record it"))


def _origin(delivery: Delivery) -> str:
    """Return the consumer's queue that a message was for which the broker gave up on; empty: none of ours."""
    if delivery.routing_key in CONSUMERS:
        return delivery.routing_key
    consumer = topology.consumer_of(
        delivery.died_in, delivery.routing_key
    )  # a partition, among others
    return consumer.queue if consumer else ""


def _subject(body: bytes) -> str:
    """Return what a body speaks of that is no event, by the names that the payloads give it."""
    names = {each.named_by for each in event_types().values()} - {""}
    found = (subject(body, name) for name in sorted(names))
    return next(filter(None, found), "")


def _storable(text: str, longest: int = LONGEST_QUEUE) -> str:
    """Return what a header says so that it fits a column: whoever may publish can write it."""
    return text.encode(errors="replace").decode().replace("\0", "")[:longest]


def _as_event(
    payload: type[Payload], uses: tuple[str, ...] | None, body: bytes, now: datetime
) -> Event | None:
    """Return a body as its consumer reads it, so that it counts as the same dead letter."""
    try:
        return decode(body, payload, uses=uses, now=now)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # not only InvalidEvent: this is the last stop, it takes whatever comes
        return None


def was_parked(token: str, event: Event) -> bool:
    """Return whether this event is the replay of a dead letter, which alone knows the token."""
    letters = DeadLetter.objects.exclude(state=DeadLetter.State.DISCARDED)
    named = Q(event_id=event.event_id) | Q(edited_event_id=event.event_id)
    return bool(token) and letters.filter(named, replay_token=token).exists()


def replay(
    dead_letter: DeadLetter, *, by: str, why: str = "", producer: Producer | None = None
) -> bool:
    """Send the original body back to the one queue that it came from.

    It is published and confirmed first, then closed. A crash between the two leaves it open, and a
    second replay of what was applied meanwhile is a duplicate without effect. It also stays open if
    it was parked again before it could be closed: then false is returned.

    Raises:
        NotReplayable: what came was removed or cut, it is closed, its queue is none of ours, or it was
            edited, and what was made of it may have been sent.
    """
    send(dead_letter, producer=producer)
    closed = dead_letter.resolve(DeadLetter.State.REPLAYED, by=by, why=why)
    log.info(
        "Dead letter replayed",
        dead_letter=dead_letter.pk,
        queue=dead_letter.queue,
        event_id=dead_letter.event_id,
        by=by,
    )
    return closed


def send(dead_letter: DeadLetter, *, producer: Producer | None = None) -> None:
    """Send the original body of an open dead letter back to its queue, and leave it open.

    Raises:
        NotReplayable: as ``replay``.
    """
    check_whole(dead_letter)
    if dead_letter.edit_begun:
        raise NotReplayable(
            f"{dead_letter}: {dead_letter.edited_by} has edited it, and what was made of it may have been "
            "sent. Send that again from its page: it has no second effect."
        )
    publish = way_back(dead_letter, dead_letter.event_type)
    body = bytes(dead_letter.body)
    Suspect.objects.filter(queue=dead_letter.queue, fingerprint=Delivery(body).fingerprint).delete()
    token = uuid4().hex
    as_read = DeadLetter.objects.filter(
        pk=dead_letter.pk, state=DeadLetter.State.PARKED, edited_event_id__isnull=True
    )
    with nullcontext(producer) if producer else broker.producer() as opened:
        if not as_read.update(replay_token=token):  # from here on it may have been sent
            raise NotReplayable(f"{dead_letter}: somebody else has closed or edited it meanwhile")
        publish(opened, body, headers=headers_of(dead_letter, token))


def headers_of(dead_letter: DeadLetter, token: str) -> dict[str, Any]:
    """Return the headers with which a dead letter goes back to its queue."""
    return {REPLAY_HEADER: token} | trace_context.as_headers(dead_letter.trace)


def check_whole(dead_letter: DeadLetter) -> None:
    """Check that a dead letter is open, and what came is there in whole.

    Raises:
        NotReplayable: it is not.
    """
    if dead_letter.forgotten_at is not None:
        raise NotReplayable(
            f"{dead_letter}: what came was removed on {dead_letter.forgotten_at:%Y-%m-%d}. The "
            "producer must publish the event again."
        )
    if dead_letter.state != DeadLetter.State.PARKED:
        raise NotReplayable(f"{dead_letter} is {dead_letter.get_state_display()}")
    if dead_letter.size is not None:
        raise NotReplayable(f"{dead_letter}: only its beginning is kept, it must be published anew")


def consumers_of(dead_letter: DeadLetter, event_type: str | None = None) -> list[Consumer]:
    """Return the consumers that a replay of a dead letter goes to; none: it can't be replayed.

    An unroutable one goes to those of ``event_type``: its own, unless a person has edited it.
    """
    if dead_letter.queue in CONSUMERS:
        return [CONSUMERS[dead_letter.queue]]
    key = _key_to_replay(dead_letter, dead_letter.event_type if event_type is None else event_type)
    return [consumer for consumer in CONSUMERS.values() if consumer.routing_key == key]


def way_back(dead_letter: DeadLetter, event_type: str) -> Callable[..., None]:
    """Return the function that publishes a dead letter to where it belongs, over a producer.

    Raises:
        NotReplayable: it belongs nowhere.
    """
    if dead_letter.queue in CONSUMERS:
        return partial(broker.publish_to_queue, queue=dead_letter.queue)
    if dead_letter.queue != topology.unroutable_queue().name:
        raise NotReplayable(f"{dead_letter}: no consumer has a queue of that name")
    if key := _key_to_replay(dead_letter, event_type):
        return partial(broker.publish_to_consumers, routing_key=key)
    raise NotReplayable(f"{dead_letter}: no consumer takes events of the type it names")


def _key_to_replay(dead_letter: DeadLetter, event_type: str) -> str:
    """Return the routing key of an unroutable event's type; empty where there is none."""
    if dead_letter.queue != topology.unroutable_queue().name:
        return ""
    keys = (key for key, each in event_types().items() if each.__name__ == event_type)
    return next(keys, "")


def discard(dead_letter: DeadLetter, *, by: str, why: str) -> bool:
    """Close a dead letter for good; return false if somebody else closed it or it came again."""
    with transaction.atomic():
        closed = dead_letter.resolve(DeadLetter.State.DISCARDED, by=by, why=why)
        if closed:
            outbox.store([_discarded(dead_letter)], trace=dead_letter.trace)
    if closed:
        log.info(
            "Dead letter discarded",
            dead_letter=dead_letter.pk,
            event_id=dead_letter.event_id,
            by=by,
        )
    return closed


def _discarded(dead_letter: DeadLetter) -> Announced:
    named = _named(dead_letter.queue, dead_letter.event_id, dead_letter.event_type)
    payload = EventDiscarded(**named, reason=dead_letter.reason)
    return announced(payload, cause=str(dead_letter.pk), at=clock.now())
