"""What a cancelled booking asks of the e-mails."""

from collections.abc import Sequence
from email.utils import parseaddr
from hashlib import sha256

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone
from django.utils.encoding import punycode

from booking_platform.messaging import leases
from booking_platform.messaging.consumers import Refused
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.events import BookingCancelled
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rows import insert_missing
from notifications import attempts
from notifications.addresses import UnusableAddress, mailbox
from notifications.composing import compose
from notifications.models import CancellationEmail


class Outcome(models.TextChoices):
    REQUESTED = "email_requested", "the customer is to be told by e-mail"
    KNOWN = "email_known", "the booking has its e-mail already"
    NO_ADDRESS = "no_address", "named no address to tell"


def request_emails(events: Sequence[Event]) -> list[str | Refused]:
    """Record whom to tell, in the caller's transaction; attempt it once that is over.

    A booking has one e-mail, whichever event asks for it. An event that names another address than
    an earlier one did is refused: a person decides whom to tell.
    """
    return [_request(event) for event in events]


def message_id(booking_id: str) -> str:
    """Give the ``Message-ID`` of a booking's e-mail, under the domain that it is sent from.

    It derives from what is told, so that mail systems recognise a repeat. It is a hash, since a
    booking id may hold anything.
    """
    domain = parseaddr(settings.EMAIL_FROM)[1].rpartition("@")[2]
    digest = sha256(f"BookingCancelled\0{booking_id}".encode()).hexdigest()
    return f"<{digest[:32]}@{punycode(domain)}>"


def _request(event: Event) -> str | Refused:
    payload: BookingCancelled = event.payload
    if not (payload.user_email or "").strip():
        return Outcome.NO_ADDRESS
    try:
        recipient = mailbox(payload.user_email or "")
    except UnusableAddress as error:
        detail = f"payload.userEmail is not one e-mail address that can be used: {error}"
        return Refused(DeadLetter.Reason.INVALID, detail)
    mail = _insert(payload, recipient)
    if mail is not None:
        # No partial: Django asks what is robust for its name.
        transaction.on_commit(lambda: attempts.carry_on(mail), robust=True)
        return Outcome.REQUESTED
    earlier = CancellationEmail.objects.get(booking_id=payload.booking_id)
    if earlier.forgotten or earlier.recipient.casefold() == recipient.casefold():
        return Outcome.KNOWN
    detail = (
        f"booking {payload.booking_id!r} was to be told to another address than payload.userEmail"
    )
    return Refused(DeadLetter.Reason.DIFFERS, detail)


def _insert(payload: BookingCancelled, recipient: str) -> CancellationEmail | None:
    """Store a booking's e-mail, under the lease of this worker; None if it has one already."""
    letter = compose(payload)
    now = timezone.now()
    columns = {
        **leases.new_lease(),
        "booking_id": payload.booking_id,
        "state": CancellationEmail.State.PENDING,
        "recipient": recipient,
        "locale": letter.language,
        "subject": letter.subject,
        "text_body": letter.text,
        "html_body": letter.html,
        "message_id": message_id(payload.booking_id),
        "attempts": 1,
        "created_at": now,
        "wanted_at": now,
        "updated_at": now,
    }
    inserted = insert_missing(
        CancellationEmail, tuple(columns), [tuple(columns.values())], key="id"
    )
    return CancellationEmail(pk=inserted.pop(), **columns) if inserted else None
