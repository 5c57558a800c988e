"""The event as a value: decode it, validate it, fingerprint it.

The payload is decoded twice from the same bytes, since both are cheap in C: once into the type
that the consumer takes, once into plain values for the fingerprint. The fingerprint therefore
covers the fields that the type ignores, too.
"""

import decimal
from codecs import BOM_UTF8
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from booking_platform.contract import cloud_events, numbers, texts, trace_context
from booking_platform.contract.fingerprints import fingerprint, plain, raw_fingerprint
from booking_platform.contract.identity import identify
from booking_platform.contract.mending import mend
from booking_platform.contract.payloads import Identifier, Payload, narrowed
from booking_platform.contract.refusals import InvalidEvent, MalformedEvent, described, shown
from booking_platform.contract.texts import INVISIBLE
from booking_platform.contract.timestamps import moment

__all__ = [
    "INVISIBLE",
    "Envelope",
    "Event",
    "Identifier",
    "InvalidEvent",
    "MalformedEvent",
    "Payload",
    "decode",
    "identify",
    "raw_fingerprint",
]


class Event(NamedTuple):
    """A valid event. Equal content has an equal fingerprint, whatever its formatting."""

    event_id: str
    event_type: str
    occurred_at: datetime
    payload: Any  # an instance of the payload type that the consumer takes
    fingerprint: str
    trace: str = ""  # of trace_context.py: what this event causes names it too

    @property
    def aggregate_id(self) -> str:
        return str(self.payload.aggregate_id)

    @property
    def traceparent(self) -> str:
        """Return the part of its trace that a row can hold."""
        return trace_context.parent(self.trace)


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """An event of any type, as producers send it."""

    event_id: Identifier
    event_type: Annotated[str, Meta(description="the name of a type", examples=["BookingCreated"])]
    timestamp: Annotated[
        str, Meta(description="a string in ISO 8601", examples=["2026-11-22T10:00:00Z"])
    ]
    payload: Annotated[msgspec.Raw, Meta(description="a JSON object")]


def decode(
    body: bytes,
    payload_type: type[Payload],
    *,
    now: datetime,
    uses: tuple[str, ...] | None = None,
) -> Event:
    """Return the event in a body, of the type whose payload is ``payload_type``.

    ``uses`` names the optional fields of the payload that the caller reads, by attribute. The others
    may hold anything: they are not looked at, and have their defaults in the payload that is
    returned. Without ``uses`` all fields are read.

    A byte order mark is no part of the body. Halves of characters become U+FFFD.

    Raises:
        MalformedEvent: not UTF-8, not JSON, not an object, or nested without end.
        InvalidEvent: a field is missing, of the wrong type or out of bounds, or an id holds half a
            character.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        return _read(body, body, payload_type, now, uses)
    except MalformedEvent:
        if mended := mend(body):
            with suppress(MalformedEvent):
                return _read(mended.shown, mended.exact, payload_type, now, uses)
        raise


def _read(
    body: bytes,
    exact_body: bytes,
    payload_type: type[Payload],
    now: datetime,
    uses: tuple[str, ...] | None,
) -> Event:
    """Return the event in a body; where it was mended, ``exact_body`` is its other form."""
    expected, mended = payload_type.__name__, exact_body is not body
    try:
        body.decode()
        envelope = _read_envelope(body, expected)
        occurred_at = moment(envelope.timestamp, now)
        payload = _read_payload(payload_type, uses, envelope.payload)
        exact = _read_envelope(exact_body, expected) if mended else envelope
        values = plain(exact.payload)
    except UnicodeDecodeError as error:
        raise MalformedEvent(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise MalformedEvent("not read: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedEvent(f"not JSON: {error}") from None
    numbers.check(payload, values, envelope.payload)
    if b"\\u0000" in body:
        texts.refuse_nul(envelope.event_id, payload)
    if mended:
        if exact.event_id != envelope.event_id:
            raise InvalidEvent(texts.half("eventId"))
        texts.refuse_halves(payload, shown=envelope.payload, exact=exact.payload)
    texts.refuse_invisible(envelope.event_id, payload)
    content = (expected, values, "mended") if mended else (expected, values)
    return Event(envelope.event_id, expected, occurred_at, payload, fingerprint(*content))


def _read_envelope(body: bytes, expected: str) -> Envelope:
    try:
        envelope = _envelope_decoder().decode(body)
    except msgspec.ValidationError as error:
        if str(error).startswith("Expected `object`") and " - at " not in str(error):
            raise MalformedEvent(f"not a JSON object: {error}") from None
        if translated := cloud_events.translated(body, expected):
            return _read_envelope(translated, expected)
        raise InvalidEvent(described(error, body, Envelope)) from None
    if envelope.event_type != expected:
        raise InvalidEvent(f"eventType is {shown(envelope.event_type)}: expected {expected!r}")
    return envelope


def _read_payload(
    payload_type: type[Payload], uses: tuple[str, ...] | None, text: msgspec.Raw
) -> Any:
    read_as = narrowed(payload_type, uses)
    try:
        payload = _decoder(read_as).decode(text)
    except msgspec.ValidationError as error:
        raise InvalidEvent(described(error, text, payload_type, inside="payload")) from None
    except decimal.InvalidOperation:
        raise InvalidEvent(numbers.endless(read_as, text)) from None
    if read_as is payload_type:
        return payload
    return payload_type(**msgspec.structs.asdict(payload))


@cache
def _envelope_decoder() -> msgspec.json.Decoder[Envelope]:
    return msgspec.json.Decoder(Envelope)


@cache
def _decoder(payload_type: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(payload_type)
