"""Failed logins, which django-axes counts: what a person is told, and how long they are kept.

They hold addresses and names of people. What still counts is younger than the lock-out is long.
"""

from datetime import timedelta
from typing import Any

import structlog
from axes.models import AccessAttempt
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from booking_platform.messaging import clock
from booking_platform.messaging.retention import part_of_cleanup
from booking_platform.operations.records import visible

log = structlog.get_logger(__name__)

KEPT = timedelta(days=1)


def locked_out(
    request: HttpRequest, _answer: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """Return the page that says why nobody can log in, for how long, and who can lift it."""
    context = {
        "username": visible((credentials or {}).get("username", "")),
        "failure_limit": settings.AXES_FAILURE_LIMIT,
        "cooloff_minutes": settings.AXES_COOLOFF_TIME // timedelta(minutes=1),
    }
    return render(request, "admin/operations/locked_out.html", context, status=429)


@part_of_cleanup
def forget_failed_logins() -> int:
    """Delete failed logins of more than a day ago; return how many."""
    old = AccessAttempt.objects.filter(attempt_time__lt=clock.now() - KEPT)
    deleted: int = old.delete()[0]
    if deleted:
        log.info("Cleanup: failed logins deleted", deleted=deleted)
    return deleted
