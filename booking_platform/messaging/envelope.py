"""The event as a value: decode it, validate it, fingerprint it.

The payload is decoded twice from the same bytes, since both are cheap in C: once into the type
that the queue takes, once into plain values for the fingerprint, which covers the fields that
the type ignores too.
"""

import decimal
import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import msgspec

from booking_platform.messaging.events import Identifier

MAX_AHEAD = timedelta(days=1)  # a producer's clock or time zone may be wrong by this much
MAX_NUMBER_LENGTH = 100  # characters; no amount of money needs more
MAX_EXPONENT = 30  # digits before or after the decimal point
SHOWN = 80  # characters of a refused value that its error message repeats
PRIVATE = frozenset({"payload.userEmail"})  # fields whose value no error message repeats

_EXACT = decimal.Context(prec=2 * MAX_NUMBER_LENGTH)
_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)


class Event(NamedTuple):
    """A valid event. Equal content has an equal fingerprint, whatever its formatting."""

    event_id: str
    event_type: str
    occurred_at: datetime
    payload: Any  # the type of messaging.events that the queue takes
    fingerprint: str


class InvalidEvent(Exception):
    """The bytes hold no event that this queue takes; the message names the field and the value."""


class MalformedEvent(InvalidEvent):
    """The bytes are no JSON object at all."""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    event_id: Identifier
    event_type: str
    timestamp: str
    payload: msgspec.Raw


def decode(body: bytes, payload_type: type, *, now: datetime) -> Event:
    """Read one event of the type whose payload is ``payload_type``.

    Raises:
        MalformedEvent: not UTF-8, not JSON, not an object, or nested without end.
        InvalidEvent: a field is missing, of the wrong type or out of bounds.
    """
    try:
        body.decode()
        envelope = _envelope_decoder().decode(body)
        expected = payload_type.__name__
        if envelope.event_type != expected:
            raise InvalidEvent(f"eventType is {_shown(envelope.event_type)}: expected {expected!r}")
        occurred_at = _timestamp(envelope.timestamp, now)
        try:
            payload = _decoder(payload_type).decode(envelope.payload)
            plain = _plain_decoder().decode(envelope.payload)
        except msgspec.ValidationError as error:
            raise InvalidEvent(_described(error, body, inside="payload")) from None
        if b"\\u0000" in body:
            _refuse_nul(envelope.event_id, payload)
        _refuse_text_for_number(plain)
    except msgspec.ValidationError as error:
        raise _invalid_envelope(error, body) from None
    except UnicodeDecodeError as error:
        raise MalformedEvent(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise MalformedEvent("not read: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: an integer of >4,300 digits
        raise MalformedEvent(f"not JSON: {error}") from None
    canonical = _canonical_encoder().encode([expected, plain])
    return Event(
        envelope.event_id, expected, occurred_at, payload, hashlib.sha256(canonical).hexdigest()
    )


def identify(body: bytes) -> tuple[str, str]:
    """Give the event id and type of a refused body, each empty unless it can be read."""
    try:
        plain = _plain_decoder().decode(body)
        event_id, event_type = plain.get("eventId"), plain.get("eventType")
    except (AttributeError, InvalidEvent, msgspec.DecodeError, ValueError, RecursionError):
        return "", ""
    return _readable(event_id, 255), _readable(event_type, 100)


def raw_fingerprint(body: bytes) -> str:
    """Fingerprint bytes that are no valid event."""
    return hashlib.sha256(body).hexdigest()


def _readable(value: object, longest: int) -> str:
    fits = isinstance(value, str) and len(value) <= longest and "\0" not in value
    return str(value) if fits else ""


@cache
def _envelope_decoder() -> msgspec.json.Decoder[_Envelope]:
    return msgspec.json.Decoder(_Envelope)


@cache
def _decoder(payload_type: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(payload_type)


@cache
def _plain_decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=_number_by_value)


@cache
def _canonical_encoder() -> msgspec.json.Encoder:
    return msgspec.json.Encoder(order="deterministic", decimal_format="number")


def _number_by_value(text: str) -> int | Decimal:
    """Read a JSON number exactly, so that 150, 150.0 and 1.5e2 become one value."""
    number = Decimal(text) if len(text) <= MAX_NUMBER_LENGTH else Decimal("Infinity")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or not -MAX_EXPONENT <= exponent <= MAX_EXPONENT:
        raise InvalidEvent(f"number {_shown(text)} has more digits than any amount")
    return int(number) if number == number.to_integral_value() else number.normalize(_EXACT)


def _timestamp(text: str, now: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidEvent(
            f"timestamp is {_shown(text)}: expected ISO 8601, such as 2026-11-22T10:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment - now > MAX_AHEAD:
        raise InvalidEvent(f"timestamp is {_shown(text)}: more than a day in the future")
    return moment


def _refuse_nul(event_id: str, payload: msgspec.Struct) -> None:
    """Refuse NUL, which PostgreSQL can't store, in every text that we may store."""
    fields = {"eventId": event_id} | {
        f"payload.{name}": getattr(payload, attribute)
        for name, attribute in zip(
            payload.__struct_encode_fields__, payload.__struct_fields__, strict=True
        )
    }
    for name, value in fields.items():
        if isinstance(value, str) and "\0" in value:
            raise InvalidEvent(f"{name} holds a NUL character")


def _refuse_text_for_number(plain: dict[str, Any]) -> None:
    """Refuse ``"12.50"`` for 12.50, which msgspec would take for a decimal."""
    if "amount" in plain and isinstance(plain["amount"], str):
        raise InvalidEvent(f"payload.amount is {_shown(plain['amount'])}: expected a JSON number")


def _invalid_envelope(error: msgspec.ValidationError, body: bytes) -> InvalidEvent:
    if str(error).startswith("Expected `object`") and " - at " not in str(error):
        return MalformedEvent(f"not a JSON object: {error}")
    return InvalidEvent(_described(error, body))


def _described(error: msgspec.ValidationError, body: bytes, *, inside: str = "") -> str:
    """Word a validation error so that it names the field and the value."""
    match = _WHERE.match(str(error))
    assert match is not None  # the pattern matches any text
    path = ".".join(filter(None, (inside, match["path"])))
    if not path or match["problem"].startswith("Object missing"):
        return f"{path or 'the event'}: {match['problem']}"
    if path in PRIVATE:
        return f"{path}: {match['problem']}"
    value: Any = _plain_decoder().decode(body)
    for step in path.split("."):
        value = value[step] if isinstance(value, dict) else None
    return f"{path} is {_shown(value)}: {match['problem']}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
