"""The event as a value: decode it, validate it, fingerprint it.

The payload is decoded twice from the same bytes, since both are cheap in C: once into the type
that the consumer takes, once into plain values for the fingerprint. The fingerprint therefore
covers the fields that the type ignores, too.
"""

import decimal
import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints
from unicodedata import category

import msgspec
from msgspec import Meta, Struct

MAX_AHEAD = timedelta(days=1)  # a producer's clock or time zone may be wrong by this much
MAX_NUMBER_LENGTH = 100  # characters; no amount of money needs more
MAX_EXPONENT = 30  # digits after the decimal point, and one more before it
SHOWN = 80  # characters of a refused value that its error message repeats
# Categories of Unicode that nobody can see in an id, so that two ids look like one: controls, formats
# (zero width, direction marks, the byte order mark), separators of lines and of paragraphs.
INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
PRIVATE = frozenset({"payload", "payload.userEmail"})  # fields whose value no message repeats

_EXACT = decimal.Context(prec=2 * MAX_NUMBER_LENGTH)
_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)


Identifier = Annotated[str, Meta(min_length=1, max_length=255)]


class Payload(Struct, frozen=True, kw_only=True, rename="camel"):
    """The payload of one type of event. The name of the class is the name of the event's type."""

    @property
    def aggregate_id(self) -> str:
        """Return the id of the thing that the event speaks of; empty where it names none."""
        return ""


class Event(NamedTuple):
    """A valid event. Equal content has an equal fingerprint, whatever its formatting."""

    event_id: str
    event_type: str
    occurred_at: datetime
    payload: Any  # an instance of the payload type that the consumer takes
    fingerprint: str

    @property
    def aggregate_id(self) -> str:
        return str(self.payload.aggregate_id)


class InvalidEvent(Exception):
    """The bytes are no event of the expected type; the message names the field and the value."""


class MalformedEvent(InvalidEvent):
    """The bytes are no JSON object at all."""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    event_id: Identifier
    event_type: str
    timestamp: str
    payload: msgspec.Raw


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

    Raises:
        MalformedEvent: not UTF-8, not JSON, not an object, or nested without end.
        InvalidEvent: a field is missing, of the wrong type or out of bounds.
    """
    expected = payload_type.__name__
    try:
        body.decode()
        envelope = _read_envelope(body)
        if envelope.event_type != expected:
            raise InvalidEvent(f"eventType is {_shown(envelope.event_type)}: expected {expected!r}")
        occurred_at = _timestamp(envelope.timestamp, now)
        payload, plain = _read_payload(payload_type, uses, body, envelope.payload)
        if b"\\u0000" in body:
            _refuse_nul(envelope.event_id, payload)
        _refuse_invisible(envelope.event_id, payload)
    except UnicodeDecodeError as error:
        raise MalformedEvent(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise MalformedEvent("not read: nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedEvent(f"not JSON: {error}") from None
    canonical = _canonical_encoder().encode([expected, plain])
    return Event(
        envelope.event_id, expected, occurred_at, payload, hashlib.sha256(canonical).hexdigest()
    )


def identify(body: bytes) -> tuple[str, str]:
    """Return the event id and type of a refused body; each is empty unless it can be read."""
    try:
        plain = _plain_decoder().decode(body)
        event_id, event_type = plain.get("eventId"), plain.get("eventType")
    except (AttributeError, InvalidEvent, msgspec.DecodeError, ValueError, RecursionError):
        return "", ""
    return _readable(event_id, 255), _readable(event_type, 100)


def glimpse(body: bytes) -> tuple[str, str]:
    """Return what looks like the event id and type of a body that it is not safe to decode."""
    return _looks_like("eventId", body, 255), _looks_like("eventType", body, 100)


def _looks_like(name: str, body: bytes, longest: int) -> str:
    found = re.search(rb'"%b"\s*:\s*"([^"\\]{1,%d})"' % (name.encode(), longest), body)
    return _readable(found[1].decode(errors="replace"), longest) if found else ""


def raw_fingerprint(body: bytes) -> str:
    """Return the fingerprint of bytes that are no valid event."""
    return hashlib.sha256(body).hexdigest()


def _read_envelope(body: bytes) -> _Envelope:
    try:
        return _envelope_decoder().decode(body)
    except msgspec.ValidationError as error:
        if str(error).startswith("Expected `object`") and " - at " not in str(error):
            raise MalformedEvent(f"not a JSON object: {error}") from None
        raise InvalidEvent(_described(error, body)) from None


def _read_payload(
    payload_type: type[Payload], uses: tuple[str, ...] | None, body: bytes, text: msgspec.Raw
) -> tuple[Any, Any]:
    """Return a payload as its type, and as plain values."""
    amount = "payload.amount"
    try:
        payload = _decoder(_used(payload_type, uses)).decode(text)
        if uses is not None:
            payload = payload_type(**msgspec.structs.asdict(payload))
        if not _bounded(getattr(payload, "amount", None) or Decimal(0)):
            raise InvalidEvent(f"{amount} is {_written(body, amount)}: more digits than any amount")
        plain = _plain_decoder().decode(text)
    except msgspec.ValidationError as error:
        raise InvalidEvent(_described(error, body, inside="payload")) from None
    except decimal.InvalidOperation:  # only the amount is read as a decimal
        raise InvalidEvent(
            f"{amount} is {_written(body, amount)}: more digits than any amount"
        ) from None
    if isinstance(plain.get("amount"), str):  # which msgspec takes for a decimal
        raise InvalidEvent(f"{amount} is {_written(body, amount)}: expected a JSON number")
    return payload, plain


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
def _used(payload_type: type[Payload], uses: tuple[str, ...] | None) -> type[Struct]:
    """Return a type with the required fields of a payload, and those of the others that are used."""
    if uses is None:
        return payload_type
    fields = [
        field
        for field in msgspec.structs.fields(payload_type)
        if field.required or field.name in uses
    ]
    typed: list[Any] = [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in fields
    ]
    return msgspec.defstruct(
        payload_type.__name__, typed, frozen=True, kw_only=True, rename="camel"
    )


@cache
def _plain_decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=_number_by_value)


@cache
def _fields_decoder() -> msgspec.json.Decoder[dict[str, msgspec.Raw]]:
    return msgspec.json.Decoder(dict[str, msgspec.Raw])


@cache
def _canonical_encoder() -> msgspec.json.Encoder:
    return msgspec.json.Encoder(order="deterministic", decimal_format="number")


def _number_by_value(text: str) -> int | Decimal:
    """Return a JSON number exactly, so that 150, 150.0 and 1.5e2 become one value."""
    try:
        number = Decimal(text if len(text) <= MAX_NUMBER_LENGTH else "Infinity")
    except decimal.InvalidOperation:  # an exponent of twenty digits
        number = Decimal("Infinity")
    if not _bounded(number):
        raise InvalidEvent(f"number {_shown(text)} has more digits than any amount")
    return int(number) if number == number.to_integral_value() else number.normalize(_EXACT)


def _bounded(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return (
        isinstance(exponent, int)
        and exponent >= -MAX_EXPONENT
        and number.adjusted() <= MAX_EXPONENT
    )


def _timestamp(text: str, now: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("\0", "?"))  # it would stop at a NUL
    except ValueError:
        raise InvalidEvent(
            f"timestamp is {_shown(text)}: expected ISO 8601, such as 2026-11-22T10:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment - now > MAX_AHEAD:
        raise InvalidEvent(f"timestamp is {_shown(text)}: more than a day in the future")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidEvent(f"timestamp is {_shown(text)}: before the year 1") from None


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


@cache
def _identifiers(payload_type: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a payload that hold ids, each as its JSON name and its attribute."""
    hints = get_type_hints(payload_type, include_extras=True)
    names = zip(payload_type.__struct_encode_fields__, payload_type.__struct_fields__, strict=True)
    return tuple(
        (f"payload.{name}", attribute)
        for name, attribute in names
        if Identifier in (hints[attribute], *get_args(hints[attribute]))
    )


def _refuse_invisible(event_id: str, payload: msgspec.Struct) -> None:
    """Refuse ids that nobody can tell from others: with invisible characters, or a space at an end."""
    _visible("eventId", event_id)
    for name, attribute in _identifiers(type(payload)):
        if value := getattr(payload, attribute):
            _visible(name, value)


def _visible(name: str, value: str) -> None:
    if value.isprintable() and value.strip() == value:
        return
    if value.strip() != value or any(category(char) in INVISIBLE for char in value):
        shown = _cut(f'"{"".join(map(_escaped, value))}"')
        raise InvalidEvent(
            f"{name} is {shown}: expected no invisible characters, and no space at either end"
        )


def _escaped(char: str) -> str:
    return char if char.isprintable() else ascii(f"{char}")[1:-1].replace("\\x", "\\u00")


def _described(error: msgspec.ValidationError, body: bytes, *, inside: str = "") -> str:
    """Return a validation error in words that name the field and the value."""
    match = _WHERE.match(str(error))
    assert match is not None  # the pattern matches any text
    path = ".".join(filter(None, (inside, match["path"])))
    value = _written(body, path)
    if not value or match["problem"].startswith("Object missing") or path in PRIVATE:
        return f"{path or 'the event'}: {match['problem']}"
    return f"{path} is {value}: {match['problem']}"


def _written(body: bytes, path: str) -> str:
    """Return the JSON text of a field; empty where there is no such field."""
    text = msgspec.Raw(body)
    for step in path.split("."):
        fields = _fields_decoder().decode(text)
        if not path or step not in fields:
            return ""
        text = fields[step]
    return _cut(bytes(text).decode())


def _shown(value: object) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
