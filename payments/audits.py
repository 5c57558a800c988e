"""The promises of payments: each refund that was asked for is there, and goes on."""

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Min, Q

from booking_platform.messaging import clock
from booking_platform.messaging.paging import in_pages
from booking_platform.operations.audits import (
    CouldNotAudit,
    Figure,
    Finding,
    audits,
    informs,
    without_record,
)
from booking_platform.operations.gauges import age, counted, gauge
from booking_platform.operations.records import exact
from payments import reconciliation
from payments.models import Refund
from payments.reconciliation import CouldNotCompare, Difference
from payments.requesting import Outcome

QUEUE = "payment-gateway.booking-cancelled"
PAGE = 500  # findings a statement
SINCE = timedelta(days=30)  # for so long a bank may give a refund back

Status = Refund.Status


@audits("refunds", "Each refund that a cancellation asked for is stored.")
def stored() -> Iterator[Finding]:
    """Yield the bookings that lack a refund. Events that asked for none say so by their outcome."""
    return without_record(QUEUE, Outcome.REQUESTED, Refund.objects.all(), "refund")


@audits("refunds-go-on", "Each refund is completed, will be attempted, or waits for a person.")
def going_on() -> Iterator[Finding]:
    """Yield the refunds of which nothing happens any more, and that nobody is asked about."""
    rows = Refund.objects.filter(
        Q(status=Status.FAILED)
        | Q(status=Status.IN_PROGRESS, lease_until__isnull=True, next_attempt_at__isnull=True),
        needs_review=False,
        settled_at__isnull=True,
    )
    for pk, booking, status in in_pages(rows.values_list("pk", "booking_id", "status"), PAGE):
        yield Finding(
            f"payments.refund {pk}",
            f"Refund {pk} of booking {exact(booking)} is {status.replace('_', ' ')}, and neither will it be "
            "attempted again nor is a person asked about it.",
            "Open it in the admin, and choose to have it tried again.",
        )


@audits("stripe", "The store and Stripe say the same of the refunds of 30 days.", outside="stripe")
def at_stripe() -> Iterator[Finding]:
    """Yield in what the store and Stripe differ.

    Raises:
        CouldNotAudit: Stripe does not say what it has.
    """
    try:
        for finding in reconciliation.findings(clock.now() - SINCE):
            if isinstance(finding, Difference):
                about = f"payments.refund {finding.row.pk}" if finding.row else "stripe"
                words = f"{str(finding).rstrip('.')}."
                yield Finding(about, words, "Run `python manage.py reconcile_refunds`.")
    except CouldNotCompare as error:
        raise CouldNotAudit(reconciliation.printable(str(error))) from error


@informs
def waiting() -> Iterator[Figure]:
    """Yield the refunds that wait for a person."""
    count = Refund.objects.filter(needs_review=True).count()
    yield Figure("refunds_waiting_for_person", count, "refunds wait for a person")


@gauge(
    "refunds_by_state",
    "Refunds that are not completed. Each that is was counted by refund_attempts_total.",
    "state",
)
def by_state() -> dict[tuple[str, ...], float]:
    """Return how many refunds are in each state in which there may be more to do."""
    going_on = Refund.objects.filter(status=Status.IN_PROGRESS)
    return {
        ("in_progress",): counted(going_on.filter(needs_review=False)),
        ("needs_review",): counted(Refund.objects.filter(needs_review=True)),
        ("failed",): counted(Refund.objects.filter(status=Status.FAILED, needs_review=False)),
    }


@gauge(
    "refunds_oldest_in_progress_seconds",
    "For how long the oldest refund that waits for no person has not been completed; 0: there is none.",
)
def oldest() -> dict[tuple[str, ...], float]:
    """Return for how long money has been on its way."""
    going_on = Refund.objects.filter(status=Status.IN_PROGRESS, needs_review=False)
    return {(): age(going_on.aggregate(since=Min("created_at"))["since"])}
