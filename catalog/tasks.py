"""The catalog's consumers."""

from collections.abc import Sequence

from booking_platform.messaging.consumers import Refused, consumes
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.topology import CANCELLED_FOR_CATALOG, CREATED_FOR_CATALOG
from catalog import seats


@consumes(CREATED_FOR_CATALOG, usual_outcome=seats.Outcome.RESERVED)
def booking_created(events: Sequence[Event], *, lock: bool) -> Sequence[str | Refused]:
    """Take seats."""
    return seats.apply(events, lock=lock)


@consumes(CANCELLED_FOR_CATALOG, usual_outcome=seats.Outcome.RELEASED)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[str | Refused]:
    """Give seats back."""
    return seats.apply(events, lock=lock)
