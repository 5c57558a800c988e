"""The consumer of refunds, and their attempts."""

from collections.abc import Sequence

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.registration import consumes, leased
from booking_platform.messaging.rules import Result
from payments import attempts, requesting
from payments.models import Refund
from payments.requesting import Outcome

STRIPE = "the secret key of your Stripe account (sk_live_…), from its dashboard under Developers"


@consumes(
    routing_key="booking.cancelled",
    queue="payment-gateway.booking-cancelled",
    payload=BookingCancelled,
    uses=("seats_remaining", "revision", "payment_id", "amount", "currency"),
    usual_outcome=Outcome.REQUESTED,
    requires={"STRIPE_SECRET_KEY": STRIPE},
    replay_permission="payments.request_refund",
)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Refund the customer."""
    return requesting.request(events)


@leased(Refund)
def attempt(refund: Refund) -> Conclusion:
    """Attempt one refund that is under lease."""
    return attempts.attempt(refund)
