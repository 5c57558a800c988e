"""Cancellation e-mails in each state that staff can meet."""

from typing import Any

from django.utils import timezone

from notifications.models import CancellationEmail
from tests.factories import EmailFactory
from tests.integration.admin_pages import in_


def pending(**columns: Any) -> CancellationEmail:
    return EmailFactory.create(**columns)


def sending(**columns: Any) -> CancellationEmail:
    return EmailFactory.create(**({"state": "sending", "lease_until": in_(minutes=2)} | columns))


def sent(**columns: Any) -> CancellationEmail:
    return EmailFactory.create(**({"state": "sent", "sent_at": timezone.now()} | columns))


def failed(**columns: Any) -> CancellationEmail:
    refusal = "RCPT: 550 5.1.1 (address): no such user"
    return EmailFactory.create(
        **({"state": "failed", "attempts": 1, "last_error": refusal} | columns)
    )


def uncertain(**columns: Any) -> CancellationEmail:
    silence = "the message: no whole answer in time"
    return EmailFactory.create(
        **({"state": "uncertain", "attempts": 1, "last_error": silence} | columns)
    )


def settled(**columns: Any) -> CancellationEmail:
    by = {"settled_at": timezone.now(), "settled_by": "ada", "settlement": "told by phone"}
    return uncertain(**(by | columns))


def forgotten(**columns: Any) -> CancellationEmail:
    nothing = {"recipient": "", "subject": "", "text_body": "", "html_body": "", "last_error": ""}
    return uncertain(**({"forgotten_at": timezone.now()} | nothing | columns))


def change(row: CancellationEmail, **columns: Any) -> None:
    """Store columns, as a worker would, or a colleague."""
    CancellationEmail.objects.filter(pk=row.pk).update(updated_at=timezone.now(), **columns)
