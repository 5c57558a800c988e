"""The e-mails' consumer, their attempts, and the sweep that finds what is due."""

from collections.abc import Sequence

from celery import shared_task

from booking_platform.messaging import leases
from booking_platform.messaging.consumers import Refused, consumes
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.topology import CANCELLED_FOR_NOTIFICATIONS
from notifications import attempts, cancellations
from notifications.checks import REQUIRED
from notifications.models import CancellationEmail


@consumes(
    CANCELLED_FOR_NOTIFICATIONS,
    usual_outcome=cancellations.Outcome.REQUESTED,
    requires=REQUIRED,
)
def booking_cancelled(events: Sequence[Event], *, lock: bool) -> Sequence[str | Refused]:  # noqa: ARG001  (nothing to race for)
    """Tell the customer."""
    return cancellations.request_emails(events)


@shared_task(name="notifications.attempt")
def attempt(pk: int) -> None:
    """Attempt one e-mail, if it is due."""
    attempts.attempt(pk)


@shared_task(name="notifications.sweep")
def sweep() -> None:
    """Have every e-mail that is due attempted, and those whose worker was lost judged."""
    attempts.judge_abandoned()
    leases.sweep(CancellationEmail, attempt)
