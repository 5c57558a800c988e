"""Events as producers publish them."""

import json
from typing import Any
from uuid import uuid4

from django.utils import timezone

from booking_platform.messaging.groups import Delivery


def created(
    tour: int,
    booking: str | None = None,
    seats: Any = 1,
    *,
    event_id: str | None = None,
    **over: Any,
) -> dict[str, Any]:
    payload = {"tourId": tour, "seatsBooked": seats}
    return envelope(
        "BookingCreated", payload | ({"bookingId": booking} if booking else {}), event_id, over
    )


OPTIONAL_FIELDS = ("paymentId", "amount", "currency", "userEmail", "tourName", "locale")


def cancelled(
    tour: int, booking: str, seats: Any = 1, *, event_id: str | None = None, **over: Any
) -> dict[str, Any]:
    """Give a cancellation; ``OPTIONAL_FIELDS`` go into its payload."""
    optional = {name: over.pop(name) for name in OPTIONAL_FIELDS if name in over}
    payload = {"bookingId": booking, "tourId": tour, "seatsReleased": seats} | optional
    return envelope("BookingCancelled", payload, event_id, over)


def envelope(
    event_type: str, payload: dict[str, Any], event_id: str | None, over: dict[str, Any]
) -> dict[str, Any]:
    """Give an event; ``over`` replaces top-level fields."""
    return {
        "eventId": event_id or str(uuid4()),
        "eventType": event_type,
        "timestamp": timezone.now().isoformat(),
        "payload": payload,
    } | over


def body(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


def deliveries(*events: dict[str, Any] | bytes) -> list[Delivery]:
    return [Delivery(e if isinstance(e, bytes) else body(e), {}) for e in events]
