"""The consumer that keeps what web shops are shown; only a platform that shows it has one."""

from collections.abc import Sequence

from booking_platform.contract.announcements import TourAvailabilityChanged
from booking_platform.contract.envelope import Event
from booking_platform.messaging.registration import consumes
from booking_platform.messaging.rules import Result
from catalog import availability


@consumes(
    routing_key=TourAvailabilityChanged.routing_key,
    queue="web-shop.availability-changed",
    payload=TourAvailabilityChanged,
    batch=200,
    usual_outcome=availability.Outcome.SHOWN,
)
def availability_changed(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Keep the newest numbers of tours for web shops."""
    return availability.apply(events)
