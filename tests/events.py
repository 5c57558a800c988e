"""Events as producers publish them."""

from typing import Any

from booking_platform.contract import examples
from booking_platform.contract.examples import body
from booking_platform.messaging.groups import Delivery

__all__ = ["body", "cancelled", "changed", "created", "deliveries"]

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


def deliveries(*events: dict[str, Any] | bytes) -> list[Delivery]:
    return [Delivery(e if isinstance(e, bytes) else body(e)) for e in events]
