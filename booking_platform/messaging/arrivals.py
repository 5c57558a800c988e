"""From the bytes of a delivery to an event that may be applied, or to the reason why it is parked."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings

from booking_platform.contract.envelope import Event, InvalidEvent, MalformedEvent, decode
from booking_platform.messaging import dead_letters
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.rules import INVALID, Consumer, Reason, Refused, reason

log = structlog.get_logger(__name__)

MALFORMED = reason(
    "malformed",
    "not a JSON object",
    "The producer must publish UTF-8 JSON. Discard this one when the event has come in order.",
)
TOO_LARGE = reason(
    "too_large",
    "larger than any event",
    "Only its beginning is kept. If it is an event, raise EVENT_MAX_BYTES and have it published anew.",
)
TASK = reason(
    "task",
    "claims to be a Celery task",
    "Find out who published it: an event has no Celery headers. A replay is sent without them.",
)
STALE = reason(
    "stale",
    "so old that a duplicate would not be recognised",
    "Make sure that it was not applied before, then replay it: a replay is applied, however old.",
)
BUG = reason(
    "bug",
    "the code that applies it failed",
    "The log has the traceback. Replay it when the code is mended.",
    ours=True,
)


class Arrival(NamedTuple):
    """A delivery that holds a valid event."""

    delivery: Delivery
    event: Event

    def parking(self, consumer: Consumer, refused: Refused) -> Parking:
        """Return the event as one that is to be parked."""
        return Parking(consumer.queue, self.delivery, self.event, refused)


Group = Sequence[Arrival | Parking]


def read(consumer: Consumer, delivery: Delivery, now: datetime) -> Arrival | Parking:
    """Decode a delivery. What is no event that the consumer takes is to be parked."""

    def refuse(why: Reason, detail: str) -> Parking:
        return Parking(consumer.queue, delivery, None, Refused(why, detail))

    if delivery.task:
        return refuse(TASK, f"headers name the Celery task {delivery.task[:100]!r}")
    if delivery.size or len(delivery.body) > settings.EVENT_MAX_BYTES:
        return refuse(TOO_LARGE, _too_large(delivery))
    try:
        event = decode(delivery.body, consumer.payload, uses=consumer.uses, now=now)
        return Arrival(delivery, event._replace(trace=delivery.trace) if delivery.trace else event)
    except MalformedEvent as error:
        return refuse(MALFORMED, str(error))
    except InvalidEvent as error:
        return refuse(INVALID, str(error))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # a bug in reading one event must not hold up its neighbours
        log.exception("A bug: the message is parked unread", consumer=consumer.queue)
        return refuse(BUG, worded(error))


def admit(consumer: Consumer, group: Group, now: datetime) -> tuple[list[Arrival], list[Parking]]:
    """Return what may be applied, and what is to be parked: stale events are, too."""
    arrivals: list[Arrival] = []
    parkings: list[Parking] = []
    for item in group:
        if isinstance(item, Parking):
            parkings.append(item)
        elif item.event.occurred_at < now - settings.PROCESSED_EVENTS_RETENTION and (
            not dead_letters.was_parked(item.delivery.replay_of, item.event)
        ):
            parkings.append(item.parking(consumer, _stale(item.event)))
        else:
            arrivals.append(item)
    return arrivals, parkings


def worded(error: Exception) -> str:
    """Return an error in a line that can be stored, whatever the error is.

    PostgreSQL's other lines hold the row, and the customer in it.
    """
    try:
        text = str(error).encode(errors="backslashreplace").decode()
    except Exception:  # of its own __str__; the event must be parked all the same
        text = "(it can't be put into words)"
    first_line, *_ = text.splitlines() or [""]
    return f"{type(error).__name__}: {first_line}"[:500]


def _too_large(delivery: Delivery) -> str:
    size, kept = delivery.size or len(delivery.body), len(delivery.body)
    text = f"{size:,} bytes: at most {settings.EVENT_MAX_BYTES:,} are read"
    return f"{text}; its first {kept:,} are kept here" if kept < size else text


def _stale(event: Event) -> Refused:
    days, when = settings.PROCESSED_EVENTS_RETENTION.days, event.occurred_at.isoformat()
    return Refused(STALE, f"timestamp is {when}: a repeat is recognised for {days} days only")
