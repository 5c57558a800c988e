"""The consumers of the catalog."""

from collections.abc import Sequence

from django.conf import settings

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from booking_platform.messaging.registration import consumes
from booking_platform.messaging.rules import Result
from catalog import ledger
from catalog.bookings import Outcome

if settings.API_ENABLED:  # each booking would cost an event more, for nobody
    from catalog import web_shop  # noqa: F401  # registers its consumer


@consumes(
    routing_key="booking.created",
    queue="tour-catalog.booking-created",
    payload=BookingCreated,
    batch=200,
    partition_by="tour_id",
    usual_outcome=Outcome.RESERVED,
)
def booking_created(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Take the seats of new bookings."""
    return ledger.apply(events, lock=lock)


@consumes(
    routing_key="booking.cancelled",
    queue="tour-catalog.booking-cancelled",
    payload=BookingCancelled,
    uses=("seats_remaining", "revision"),
    batch=200,
    partition_by="tour_id",
    usual_outcome=Outcome.RELEASED,
)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Release the seats that were cancelled."""
    return ledger.apply(events, lock=lock)


@consumes(
    routing_key="booking.changed",
    queue="tour-catalog.booking-changed",
    payload=BookingChanged,
    batch=200,
    partition_by="tour_id",
    usual_outcome=Outcome.CHANGED,
)
def booking_changed(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Give changed bookings their new number of seats."""
    return ledger.apply(events, lock=lock)
