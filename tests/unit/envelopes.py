"""Events as JSON text, read and refused as of one moment."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from booking_platform.contract.envelope import Event, InvalidEvent, decode
from booking_platform.contract.events import BookingCancelled, BookingCreated

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
    "payload.paymentId": '"pi_1"',
    "payload.amount": "150.0",
    "payload.currency": '"eur"',
    "payload.userEmail": f'"{ADDRESS}"',
    "payload.tourName": '"Paris City Tour"',
    "payload.locale": '"fr"',
}
TYPES = {'"BookingCreated"': BookingCreated, '"BookingCancelled"': BookingCancelled}
REQUIRED = [
    *((CREATED, field) for field in CREATED if field != "payload.bookingId"),
    *((CANCELLED, f"payload.{field}") for field in ("bookingId", "tourId", "seatsReleased")),
]
IDENTIFIERS = [
    (CREATED, "eventId"),
    (CREATED, "payload.bookingId"),
    (CANCELLED, "payload.bookingId"),
    (CANCELLED, "payload.paymentId"),
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


def read(fields: dict[str, str] | bytes, payload_type: type | None = None) -> Event:
    if isinstance(fields, bytes):
        return decode(fields, payload_type or BookingCreated, now=NOW)
    return decode(written(fields), payload_type or TYPES[fields["eventType"]], now=NOW)


def refusal(fields: dict[str, str] | bytes, payload_type: type | None = None) -> str:
    with pytest.raises(InvalidEvent) as refused:
        read(fields, payload_type)
    return str(refused.value)


def spelled(field: Any) -> Any:
    """Identify a test by its field."""
    return field if isinstance(field, str) else field["eventType"].strip('"')
