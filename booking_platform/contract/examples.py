"""Events as a producer would write them, ready to be encoded as JSON.

Tests, the demo, the benchmarks and ``manage.py publish_event`` all build their events here.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated

Json = dict[str, Any]


def booking_created(
    tour: int, booking: str | None = None, seats: Any = 1, *, event_id: str = "", **optional: Any
) -> Json:
    """Return a ``BookingCreated`` event; ``optional`` names more fields of the payload."""
    named = {"bookingId": booking} if booking else {}
    payload = {**named, "tourId": tour, "seatsBooked": seats, **optional}
    return envelope(BookingCreated.__name__, payload, event_id=event_id)


def booking_cancelled(
    tour: int, booking: str, seats: Any = 1, *, event_id: str = "", **optional: Any
) -> Json:
    """Return a ``BookingCancelled`` event; ``optional`` names more fields of the payload."""
    payload = {"bookingId": booking, "tourId": tour, "seatsReleased": seats, **optional}
    return envelope(BookingCancelled.__name__, payload, event_id=event_id)


def booking_changed(
    tour: int, booking: str, seats: Any, *, revision: int, event_id: str = "", **optional: Any
) -> Json:
    """Return a ``BookingChanged`` event; ``optional`` names more fields of the payload."""
    payload = {
        "bookingId": booking,
        "tourId": tour,
        "seats": seats,
        "revision": revision,
        **optional,
    }
    return envelope(BookingChanged.__name__, payload, event_id=event_id)


def envelope(event_type: str, payload: Json, *, event_id: str = "") -> Json:
    """Return an event that happened just now; without ``event_id`` it gets a new one."""
    return {
        "eventId": event_id or str(uuid4()),
        "eventType": event_type,
        "timestamp": now().isoformat(),
        "payload": payload,
    }


def now() -> datetime:
    """Return the time by the producer's clock."""
    return datetime.now(UTC)


def body(event: Json) -> bytes:
    """Return an event as the bytes of a message. Decimals become JSON numbers, digit by digit."""
    return msgspec.json.Encoder(decimal_format="number").encode(event)
