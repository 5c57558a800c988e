"""Events as JSON text, read and refused as of one moment."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from booking_platform.contract.envelope import Event, InvalidEvent, decode
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from booking_platform.contract.payloads import Payload

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ADDRESS = "ann@example.com"

# Events as JSON text by field, so that a test can put in what no JSON library would write.
CREATED = {
    "eventId": '"e-1"',
    "eventType": '"BookingCreated"',
    "timestamp": '"2026-11-22T10:00:00Z"',
    "payload.bookingId": '"BK-1"',
    "payload.tourId": "42",
    "payload.seatsBooked": "2",
}
CANCELLED = {
    "eventId": '"e-1"',
    "eventType": '"BookingCancelled"',
    "timestamp": '"2026-11-22T10:00:00Z"',
    "payload.bookingId": '"BK-1"',
    "payload.tourId": "42",
    "payload.seatsReleased": "2",
    "payload.seatsRemaining": "1",
    "payload.revision": "7",
    "payload.paymentId": '"pi_1"',
    "payload.amount": "150.0",
    "payload.currency": '"eur"',
    "payload.userEmail": f'"{ADDRESS}"',
    "payload.tourName": '"Paris City Tour"',
    "payload.locale": '"fr"',
}
CHANGED = {
    "eventId": '"e-1"',
    "eventType": '"BookingChanged"',
    "timestamp": '"2026-11-22T10:00:00Z"',
    "payload.bookingId": '"BK-1"',
    "payload.tourId": "42",
    "payload.seats": "2",
    "payload.revision": "7",
}
CLOUD = {
    "specversion": '"1.0"',
    "id": '"7"',
    "source": '"/shop"',
    "type": '"com.example.BookingCreated"',
    "time": '"2026-11-22T10:00:00Z"',
    "data": '{"bookingId":"BK-1","tourId":42,"seatsBooked":2}',
}
TYPES: dict[str, type[Payload]] = {
    '"BookingCreated"': BookingCreated,
    '"BookingCancelled"': BookingCancelled,
    '"BookingChanged"': BookingChanged,
}
REQUIRED = [
    *((CREATED, field) for field in CREATED if field != "payload.bookingId"),
    *((CANCELLED, f"payload.{field}") for field in ("bookingId", "tourId", "seatsReleased")),
    *((CHANGED, field) for field in CHANGED if field.startswith("payload.")),
]
IDENTIFIERS = [
    (CREATED, "eventId"),
    (CREATED, "payload.bookingId"),
    (CANCELLED, "payload.bookingId"),
    (CANCELLED, "payload.paymentId"),
    (CHANGED, "payload.bookingId"),
]
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(fields: dict[str, str]) -> bytes:
    def joined(part: dict[str, str]) -> str:
        return ",".join(f'"{name}":{text}' for name, text in part.items())

    outer = {name: text for name, text in fields.items() if not name.startswith("payload.")}
    inner = {name[8:]: text for name, text in fields.items() if name.startswith("payload.")}
    return f"{{{joined({'payload': f'{{{joined(inner)}}}'} | outer)}}}".encode()


def without(fields: dict[str, str], field: str) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name != field}


def read(
    fields: dict[str, str] | bytes,
    payload_type: type | None = None,
    uses: tuple[str, ...] | None = None,
) -> Event:
    if isinstance(fields, bytes):
        return decode(fields, payload_type or BookingCreated, now=NOW, uses=uses)
    known = payload_type or TYPES[fields["eventType"]]
    return decode(written(fields), known, now=NOW, uses=uses)


def refusal(
    fields: dict[str, str] | bytes,
    payload_type: type | None = None,
    uses: tuple[str, ...] | None = None,
) -> str:
    with pytest.raises(InvalidEvent) as refused:
        read(fields, payload_type, uses)
    return str(refused.value)


def spelled(field: Any) -> Any:
    """Identify a test by its field."""
    return field if isinstance(field, str) else field["eventType"].strip('"')


def numbers() -> st.SearchStrategy[str]:
    digits = st.from_regex(
        r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,25})?", fullmatch=True
    )
    return digits | st.sampled_from(["9" * 5_000, "1e400", "-0.0", "1" * 4_300, "1e-999999999"])


def texts() -> st.SearchStrategy[str]:
    return (st.text(max_size=8) | st.sampled_from(["\0", "a" * 256])).map(json.dumps)


def json_values() -> st.SearchStrategy[str]:
    """Draw the text of any JSON value, and of some that only look like one."""
    hostile = st.sampled_from(["NaN", '"\\ud800"', "", "[" * 2_000, "]", '"', "Infinity"])
    return st.recursive(
        st.one_of(numbers(), texts(), st.sampled_from(["null", "true", "false"]), hostile),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
            | st.dictionaries(texts(), inner, max_size=3).map(
                lambda items: f"{{{','.join(f'{name}:{text}' for name, text in items.items())}}}"
            )
        ),
        max_leaves=6,
    )


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw what a producer could send: an event of which some fields are anything, then cut up."""
    fields = dict(draw(st.sampled_from([CREATED, CANCELLED, CHANGED, CLOUD])))
    names = st.sampled_from([*fields, "unknown", "payload.unknown"])
    for name in draw(st.lists(names, max_size=3)):
        fields[name] = draw(json_values())
    body = written(fields)
    start, end = sorted(draw(st.tuples(*2 * [st.integers(0, len(body))])))
    half = draw(st.sampled_from([b"\\ud83d", b"\\ude00", b"\xff", b"\xf0\x9f", b"\xef\xbb\xbf"]))
    cut = draw(
        st.sampled_from(
            [b"", b"", body[:start], body[start:end], body[:start] + body[end:],
             body[:start] + half + body[start:], body[:start] + half + body[end:]]
        )
    )  # fmt: skip
    return cut or body
