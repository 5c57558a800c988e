"""The sweeps, which beat sends: they have the workers take up what is due under leases."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import structlog
from celery import Task
from django.conf import settings
from django.db.models.functions import Coalesce

from booking_platform.messaging import clock, leases
from booking_platform.messaging.leases import Conclusion, Leased
from booking_platform.messaging.rules import SWEEPS

log = structlog.get_logger(__name__)

SWEPT_AT_ONCE = 1000  # attempts asked for by one sweep; the next one finds the rest
LEAST_EXPIRY = 10.0  # seconds that a sweep or an attempt may wait in its queue

R = TypeVar("R", bound=Leased)


def beat_entries() -> dict[str, dict[str, Any]]:
    """Return the sweeps as entries of Celery beat's schedule."""
    seconds = settings.SWEEP_SECONDS
    options = {"expiration": expiry()}
    return {task: {"task": task, "schedule": seconds, "options": options} for task in SWEEPS}


def expiry() -> float:
    """Return how many seconds a sweep or an attempt waits in its queue: the next sweep asks again.

    The broker counts them from when it has the message (https://www.rabbitmq.com/docs/ttl). Celery's
    ``expires`` would be a time by the clock of the sender, held against that of the worker.
    """
    return max(LEAST_EXPIRY, settings.SWEEP_SECONDS)


def sweep(
    model: type[R], attempt: "Task[Any, Any]", lost: Callable[[R, datetime], Conclusion] | None
) -> None:
    """Ask the workers for an attempt at each row that is due.

    Each takes its row just before its call. One that waits too long for a worker expires, since
    later sweeps ask again; one that finds its row not due any more does nothing.
    """
    if lost is not None:
        leases.conclude_lost(model, lost)
    rows = leases.due(model._default_manager.all(), clock.now())
    pks = rows.order_by(Coalesce("lease_until", "next_attempt_at")).values_list("pk", flat=True)
    asked = 0
    for pk in pks[:SWEPT_AT_ONCE]:
        attempt.apply_async((pk,), expiration=expiry())  # type: ignore[call-arg]  # Kombu takes it
        asked += 1
    if asked:
        log.info("Sweep: attempts asked for", what=model._meta.db_table, due=asked)
