"""Events as producers publish them."""

import json
from typing import Any
from uuid import uuid4

from django.utils import timezone

from booking_platform.contract import examples
from booking_platform.contract.announcements import TourAvailabilityChanged
from booking_platform.contract.announcing import announced
from booking_platform.contract.examples import body
from booking_platform.messaging.groups import Delivery

__all__ = ["availability", "body", "cancelled", "changed", "created", "deliveries"]

OPTIONAL_FIELDS = (
    "seatsRemaining", "revision", "paymentId", "amount", "currency", "userEmail", "tourName", "locale"
)  # fmt: skip


def created(
    tour: int,
    booking: str | None = None,
    seats: Any = 1,
    *,
    event_id: str | None = None,
    **over: Any,
) -> dict[str, Any]:
    """Return a creation; ``over`` replaces top-level fields."""
    return examples.booking_created(tour, booking, seats, event_id=event_id or "") | over


def cancelled(
    tour: int, booking: str, seats: Any = 1, *, event_id: str | None = None, **over: Any
) -> dict[str, Any]:
    """Return a cancellation; ``OPTIONAL_FIELDS`` go into its payload, the rest to the top level."""
    optional = {name: over.pop(name) for name in OPTIONAL_FIELDS if name in over}
    event = examples.booking_cancelled(tour, booking, seats, event_id=event_id or "", **optional)
    return event | over


def changed(
    tour: int, booking: str, seats: Any, *, revision: int, event_id: str | None = None, **over: Any
) -> dict[str, Any]:
    """Return a change; ``over`` replaces top-level fields."""
    event = examples.booking_changed(
        tour, booking, seats, revision=revision, event_id=event_id or ""
    )
    return event | over


def availability(
    tour: int,
    version: int,
    free: int = 3,
    *,
    capacity: int = 20,
    event_id: str | None = None,
    **over: Any,
) -> dict[str, Any]:
    """Return an announcement of a tour's numbers; ``over`` replaces top-level fields."""
    payload = TourAvailabilityChanged(
        tour_id=tour,
        capacity=capacity,
        available=free,
        reserved=capacity - free,
        unledgered=0,
        overbooked=0,
        version=version,
    )
    cause = f"{event_id or uuid4()}"
    event: dict[str, Any] = json.loads(announced(payload, cause=cause, at=timezone.now()).body)
    return event | ({"eventId": event_id} if event_id else {}) | over


def deliveries(*events: dict[str, Any] | bytes) -> list[Delivery]:
    return [Delivery(e if isinstance(e, bytes) else body(e)) for e in events]
