"""The promises of notifications: each e-mail that was asked for is there, and goes on."""

from collections.abc import Iterator

from django.db.models import Min

from booking_platform.messaging.paging import in_pages
from booking_platform.operations.audits import Figure, Finding, audits, informs, without_record
from booking_platform.operations.gauges import age, counted, gauge
from booking_platform.operations.records import exact
from notifications.models import WAITING_FOR_PERSON, CancellationEmail
from notifications.rules import Outcome

QUEUE = "notification.booking-cancelled"
PAGE = 500  # findings a statement

State = CancellationEmail.State


@audits("emails", "Each e-mail that a cancellation asked for is stored.")
def stored() -> Iterator[Finding]:
    """Yield the bookings that lack an e-mail. Events that named no address say so by their outcome."""
    return without_record(QUEUE, Outcome.REQUESTED, CancellationEmail.objects.all(), "e-mail")


@audits("emails-go-on", "Each e-mail is sent, will be attempted, or waits for a person.")
def going_on() -> Iterator[Finding]:
    """Yield the e-mails of which nothing happens any more, and that nobody is asked about."""
    rows = CancellationEmail.objects.filter(
        state__in=(State.PENDING, State.SENDING),
        lease_until__isnull=True,
        next_attempt_at__isnull=True,
    )
    for pk, booking, state in in_pages(rows.values_list("pk", "booking_id", "state"), PAGE):
        mending = "Open it in the admin, and choose to have it sent again."
        if state == State.SENDING:
            mending = (
                "Find out who has written to the database past the platform. Ask the customer whether "
                "it came, and tell what is missing in another way."
            )
        yield Finding(
            f"notifications.cancellationemail {pk}",
            f"E-mail {pk} of booking {exact(booking)} is {state}, and no worker will take it up.",
            mending,
        )


@informs
def waiting() -> Iterator[Figure]:
    """Yield the e-mails that wait for a person."""
    waits = CancellationEmail.objects.filter(WAITING_FOR_PERSON)
    yield Figure("emails_waiting_for_person", waits.count(), "e-mails wait for a person")


@gauge(
    "emails_by_state",
    "E-mails that are not sent and not closed. Each that is was counted by email_attempts_total.",
    "state",
)
def by_state() -> dict[tuple[str, ...], float]:
    """Return how many e-mails are in each state in which there may be more to do."""
    open_ones = CancellationEmail.objects.filter(settled_at__isnull=True)
    states = (State.PENDING, State.SENDING, State.FAILED, State.UNCERTAIN)
    return {(str(state),): counted(open_ones.filter(state=state)) for state in states}


@gauge(
    "emails_oldest_unsent_seconds",
    "For how long the oldest e-mail that waits for no person has been wanted; 0: there is none.",
)
def oldest() -> dict[tuple[str, ...], float]:
    """Return for how long a customer has not been told."""
    unsent = CancellationEmail.objects.filter(state__in=(State.PENDING, State.SENDING))
    return {(): age(unsent.aggregate(since=Min("wanted_at"))["since"])}
