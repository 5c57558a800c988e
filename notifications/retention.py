"""How long the platform remembers whom it has told what."""

import structlog
from django.conf import settings

from booking_platform.messaging import attempt_log, clock
from booking_platform.messaging.batches import batches
from booking_platform.messaging.retention import part_of_cleanup
from notifications.models import CancellationEmail

log = structlog.get_logger(__name__)

State = CancellationEmail.State


@part_of_cleanup
def forget_recipients() -> None:
    """Remove addresses and texts of e-mails older than their retention.

    What is still under way keeps them. What waits for a person does not: after that time the
    customer is told in another way.
    """
    now = clock.now()
    old = CancellationEmail.objects.filter(
        forgotten_at__isnull=True, created_at__lt=now - settings.EMAIL_RETENTION
    ).exclude(state__in=(State.PENDING, State.SENDING))
    forgotten = 0
    for pks in batches(old, by="created_at"):
        attempt_log.of(CancellationEmail, pks).delete()
        forgotten += old.filter(pk__in=pks).update(
            forgotten_at=now,
            updated_at=now,  # a person's decision about what was there is none any more
            recipient="",
            subject="",
            text_body="",
            html_body="",
            last_error="",
        )
    log.info("Cleanup: recipients of e-mails forgotten", forgotten=forgotten)
