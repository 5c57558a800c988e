"""How long processed events are remembered, and how they are deleted."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db.models import Exists, OuterRef, Q

from booking_platform.messaging import clock, metrics
from booking_platform.messaging.models import DeadLetter, ProcessedEvent

log = structlog.get_logger(__name__)

LONGEST_RETRY = timedelta(days=1)  # no automatic attempt at anything goes on for longer
BATCH = 1000  # rows a DELETE: no lock is held for long
MARGIN = timedelta(hours=1)  # between an event's check for staleness and its claim

CLEANUP: list[Callable[[], object]] = []  # what the nightly cleanup does; the apps add their parts


def part_of_cleanup(forget: Callable[[], object]) -> Callable[[], object]:
    """Add a function to what the nightly cleanup does."""
    CLEANUP.append(forget)
    return forget


@part_of_cleanup
def forget_processed_events() -> int:
    """Delete processed events older than the retention; return how many.

    A row goes only when a repeat of its event would be refused as stale. That depends on the
    timestamp of the event, which may be ahead of the time at which it was processed. A row also
    stays as long as a dead letter can be replayed for it, since a replay is applied however old.
    """
    now = clock.now()
    cutoff = now - settings.PROCESSED_EVENTS_RETENTION - MARGIN
    replayable = DeadLetter.objects.filter(
        Q(state=DeadLetter.State.PARKED) | Q(resolved_at__gt=now - settings.REPLAY_WINDOW),
        event_id=OuterRef("event_id"),
        queue=OuterRef("consumer"),
    )
    old = ProcessedEvent.objects.filter(
        ~Exists(replayable),
        Q(occurred_at__isnull=True) | Q(occurred_at__lt=cutoff),
        processed_at__lt=cutoff,
    )
    deleted = 0
    while ids := list(old.order_by("processed_at").values_list("pk", flat=True)[:BATCH]):
        deleted += ProcessedEvent.objects.filter(pk__in=ids).delete()[0]
    metrics.PROCESSED_EVENTS_DELETED.inc(deleted)
    log.info("Cleanup: processed events deleted", deleted=deleted, older_than=cutoff.isoformat())
    return deleted


@register
def retention_outlives_repeats(**_: Any) -> list[CheckMessage]:
    """Check that no event is forgotten while it may still be tried again or replayed."""
    retention = settings.PROCESSED_EVENTS_RETENTION
    needed = LONGEST_RETRY + settings.REPLAY_WINDOW
    if retention >= needed:
        return []
    return [
        Error(
            f"Processed events are kept for {retention.days} days, but a repeat can come for "
            f"{needed.days}: it would be applied twice.",
            hint="Raise RETENTION_DAYS or lower REPLAY_WINDOW_DAYS.",
            id="messaging.E001",
        )
    ]
