"""The consumer of e-mails, and their attempts."""

from collections.abc import Sequence

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.registration import consumes, leased
from booking_platform.messaging.rules import Result
from notifications import attempts
from notifications.checks import REQUIRED
from notifications.models import CancellationEmail
from notifications.rules import Outcome


@consumes(
    routing_key="booking.cancelled",
    queue="notification.booking-cancelled",
    payload=BookingCancelled,
    usual_outcome=Outcome.REQUESTED,
    uses=(
        "seats_remaining",
        "revision",
        "payment_id",
        "amount",
        "currency",
        "user_email",
        "tour_name",
        "locale",
    ),
    requires=REQUIRED,
)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Send the customer an e-mail."""
    return attempts.request(events)


@leased(CancellationEmail, lost=attempts.lost)
def attempt(mail: CancellationEmail) -> Conclusion:
    """Attempt one e-mail that is under lease."""
    return attempts.attempt(mail)
