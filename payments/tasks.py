"""The refunds' consumer, their attempts, and the sweep that finds what is due."""

from collections.abc import Sequence

from celery import shared_task

from booking_platform.messaging import leases
from booking_platform.messaging.consumers import Refused, consumes
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.topology import CANCELLED_FOR_PAYMENTS
from payments import attempts, cancellations
from payments.models import IdempotencyStore

STRIPE = "the secret key of your Stripe account (sk_live_…), from its dashboard under Developers"


@consumes(
    CANCELLED_FOR_PAYMENTS,
    usual_outcome=cancellations.Outcome.REQUESTED,
    requires={"STRIPE_SECRET_KEY": STRIPE},
)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[str | Refused]:  # noqa: ARG001  (nothing to race for)
    """Refund the customer."""
    return cancellations.request_refunds(events)


@shared_task(name="payments.attempt")
def attempt(pk: int) -> None:
    """Attempt one refund, if it is due."""
    attempts.attempt(pk)


@shared_task(name="payments.sweep")
def sweep() -> None:
    """Have every refund that is due attempted."""
    leases.sweep(IdempotencyStore, attempt)
