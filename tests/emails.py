"""Cancellations that are told, and the sweep that sees to it, in this process."""

import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from structlog.stdlib import ProcessorFormatter

from booking_platform.messaging import clock, inbox, leases
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from notifications import attempts, smtp, tasks
from notifications.models import CancellationEmail
from tests.events import cancelled, deliveries
from tests.factories import past

QUEUE = "notification.booking-cancelled"
ANN = "ann.durand@example.com"


def cancel(booking: str = "BK-1", email: str | None = ANN, **over: Any) -> None:
    given = {"userEmail": email, "tourName": "Louvre", **over}
    inbox.process(CONSUMERS[QUEUE], deliveries(cancelled(1, booking, **given)))


def elsewhere(do: Callable[..., None] = cancel, *given: Any) -> threading.Thread:
    """Do it in another thread, as another worker would."""

    def run() -> None:
        try:
            do(*given)
        finally:
            smtp.hang_up()
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def sweep() -> None:
    """Do what a sweep has the workers do, once."""
    leases.conclude_lost(CancellationEmail, attempts.lost)
    due = leases.due(CancellationEmail.objects.all(), clock.now())
    for pk in list(due.values_list("pk", flat=True)):
        tasks.attempt(pk)


def expire_lease() -> None:
    CancellationEmail.objects.exclude(lease_until=None).update(lease_until=past())


def only() -> CancellationEmail:
    return CancellationEmail.objects.get()


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """Collect what is logged as an operator reads it, errors and all."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(next(one for one in formatters if isinstance(one, ProcessorFormatter)))
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


def outcomes() -> list[str]:
    return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))
