"""Announcements: the events by which the platform says what happened, in the producers' own envelope."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
from msgspec import Meta, Struct

from booking_platform.contract.payloads import Identifier, Note, Payload

ANNOUNCEMENTS: dict[str, type["Announcement"]] = {}  # by routing key

Queue = Annotated[
    str,
    Meta(
        max_length=255,
        description="the queue of a consumer",
        examples=["tour-catalog.booking-created"],
    ),
]
Reason = Annotated[
    str,
    Meta(max_length=30, description="a word of the list in docs/events.md", examples=["invalid"]),
]
EventType = Annotated[
    str, Meta(max_length=255, description="the name of a type", examples=["BookingCreated"])
]


class Announcement(Payload, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of an event that the platform publishes, under a routing key of its own."""

    routing_key: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.routing_key:
            ANNOUNCEMENTS[cls.routing_key] = cls


class Announced(NamedTuple):
    """An announcement as it goes out."""

    routing_key: str
    body: bytes


class EventParked(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """An event could not be applied by one of its consumers: it waits for a person.

    ``caused_by`` and ``event_type`` are those of the event, where they could be read. The detail says
    what is wrong without addresses; where a fault of ours is the reason there is none.
    """

    routing_key = "event.parked"
    notes = {
        "queue": Note(
            "the queue of the consumer that refused it", "payment-gateway.booking-cancelled"
        ),
        "caused_by": Note("the `eventId` of the event", "7c1f0c3e-2b7d-4c55-9d3c-6f0f4d1f2a10"),
        "event_type": Note("the `eventType` of the event", "BookingCancelled"),
        "reason": Note("why it was refused: a word of the list below", "invalid"),
        "detail": Note(
            "what is wrong, without addresses",
            'payload.currency is "euro": expected three letters, such as eur',
        ),
    }

    queue: Queue
    caused_by: Identifier | None = None
    event_type: EventType | None = None
    reason: Reason
    detail: Annotated[str, Meta(description="a sentence")] | None = None

    @property
    def aggregate_id(self) -> str:
        return self.caused_by or ""


class EventDiscarded(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """A person decided that an event which was parked is not needed."""

    routing_key = "event.discarded"
    notes = {
        "queue": Note(
            "the queue of the consumer that refused it", "payment-gateway.booking-cancelled"
        ),
        "caused_by": Note("the `eventId` of the event", "7c1f0c3e-2b7d-4c55-9d3c-6f0f4d1f2a10"),
        "event_type": Note("the `eventType` of the event", "BookingCancelled"),
        "reason": Note("why it had been refused: a word of the list below", "invalid"),
    }

    queue: Queue
    caused_by: Identifier | None = None
    event_type: EventType | None = None
    reason: Reason

    @property
    def aggregate_id(self) -> str:
        return self.caused_by or ""


class _Envelope(Struct, frozen=True, rename="camel"):
    event_id: str
    event_type: str
    timestamp: datetime
    payload: Announcement


def announced(payload: Announcement, *, cause: str, at: datetime) -> Announced:
    """Return an announcement as it goes out. ``at`` is when it became true.

    The same ``cause`` gives an announcement of one type the same event id, always.
    """
    name = type(payload).__name__
    event_id = hashlib.sha256(f"{name}\0{cause}".encode(errors="surrogatepass")).hexdigest()[:32]
    envelope = _Envelope(event_id, name, at.astimezone(UTC), payload)
    return Announced(payload.routing_key, _encoder().encode(envelope))


@cache
def _encoder() -> msgspec.json.Encoder:
    return msgspec.json.Encoder(decimal_format="number")
