"""CloudEvents 1.0, the envelope of others, translated into ours.

In structured mode the body holds the event's attributes and its ``data``; in binary mode the attributes
are headers, and the body is the data. https://github.com/cloudevents/spec: ``json-format.md`` and
``amqp-protocol-binding.md``; the prefixes with an underscore and with ``ce`` are those of libraries.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from booking_platform.contract.identity import LONGEST_ID
from booking_platform.contract.mending import mend
from booking_platform.contract.refusals import InvalidEvent, described, fields_of, shown

PREFIXES = ("cloudEvents:", "cloudEvents_", "ce-", "ce_")
ATTRIBUTES = ("specversion", "id", "source", "type", "time")
LONGEST_ATTRIBUTE = 1000  # characters of a header; an event id has 255 at most

_VERSIONS = {f"{prefix}specversion": prefix for prefix in PREFIXES}
_OURS = (b'"eventId"', b'"eventType"', b'"timestamp"', b'"payload"')

_Text = Annotated[str, Meta(min_length=1, description="a string that is not empty")]


class _CloudEvent(Struct, frozen=True, kw_only=True):
    specversion: Annotated[str, Meta(description="a string", examples=["1.0"])]
    id: _Text
    source: _Text
    type: Annotated[str, Meta(description="a string", examples=["com.example.BookingCreated"])]
    time: Annotated[
        str, Meta(description="a string in ISO 8601", examples=["2026-11-22T10:00:00Z"])
    ]
    data: Raw = Raw()
    data_base64: Raw = Raw()


_DECODER = msgspec.json.Decoder(_CloudEvent)


def translated(body: bytes, event_type: str) -> bytes | None:
    """Return a CloudEvent that holds an event of a type as a body in our envelope.

    None where the JSON object is no CloudEvent, or has an ``eventId``: it is read as ours then, and
    what is missing is named. Ids of CloudEvents are unique within their source only, so that
    the event id is ``source#id``.

    Raises:
        InvalidEvent: an attribute is missing or wrong, or the data is no JSON object.
    """
    fields = fields_of(body)
    if "specversion" not in fields or "eventId" in fields:
        return None
    try:
        event = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidEvent(described(error, body, _CloudEvent)) from None
    if problem := next(_problems(event, event_type), ""):
        raise InvalidEvent(problem)
    return msgspec.json.encode(
        {
            "eventId": f"{event.source}#{event.id}",
            "eventType": event_type,
            "timestamp": event.time,
            "payload": event.data,
        }
    )


def _problems(event: _CloudEvent, event_type: str) -> Iterator[str]:
    """Yield what keeps a CloudEvent from being translated."""
    if event.specversion != "1.0":
        yield f"specversion is {shown(event.specversion)}: expected '1.0'"
    if event.type.rpartition(".")[2] != event_type:
        expected = f"expected {event_type!r}, or a name that ends with .{event_type}"
        yield f"type is {shown(event.type)}: {expected}"
    if "#" in event.source:
        yield f"source is {shown(event.source)}: expected no #, which divides it from the id"
    if (length := len(f"{event.source}#{event.id}")) > LONGEST_ID:
        most = f"expected {LONGEST_ID} at most"
        yield f"source#id, which is the event id, has {length} characters: {most}"
    if bytes(event.data_base64) not in (b"", b"null"):
        yield "data_base64 is given: expected the payload in data, as a JSON object"
    elif not bytes(event.data).startswith(b"{"):
        yield "data: expected the payload, as a JSON object"


def prefix(headers: Mapping[str, Any]) -> str | None:
    """Return how the names of the headers begin that are attributes; none: this is no binary mode."""
    return next((_VERSIONS[name] for name in _VERSIONS if name in headers), None)


def structured(headers: Mapping[str, Any], body: bytes) -> bytes:
    """Return a CloudEvent in binary mode as one in structured mode, and any other body as it is.

    Nothing here raises, whatever the headers hold. A body that has an envelope of its own needs no
    header; where a header is no text, nested or long, the body alone decides.
    """
    begin = prefix(headers)
    if begin is None or b'"specversion"' in body or all(name in body for name in _OURS):
        return body
    given = {name: headers[begin + name] for name in ATTRIBUTES if begin + name in headers}
    texts = {name: _text(value) for name, value in given.items()}
    if not all(texts.values()):
        return body
    attributes = msgspec.json.encode(texts)
    data = body.removeprefix(b"\xef\xbb\xbf").strip() or b"null"
    if not _is_one_value(data):
        data += b"\0"  # no JSON has it, so that what was none brings no attributes of its own
    return b'%b,"data":%b}' % (attributes[:-1], data)


def _is_one_value(data: bytes) -> bool:
    """Return whether this is one JSON value, if only with its halves of characters mended."""
    try:
        msgspec.json.decode(data, type=Raw)
    except (ValueError, RecursionError):
        mended = mend(data)
        return mended is not None and _is_one_value(mended.shown)
    return True


def _text(value: object) -> str:
    """Return the text of a header; empty where it can't be told from that of every other header.

    What was no UTF-8 has come with backslashes, which another header may hold as they are.
    """
    if isinstance(value, datetime):  # AMQP has a type for the time
        return value.isoformat()
    if not isinstance(value, str) or len(value) > LONGEST_ATTRIBUTE or "\\" in value:
        return ""
    whole = value.encode(errors="replace").decode() == value
    return value if whole else ""
