"""System checks: what must hold before a process may start."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from booking_platform.messaging.retention import LONGEST_RETRY


@register
def retention_outlives_repeats(**_: Any) -> list[CheckMessage]:
    """Refuse to forget an event while it may still be tried again or replayed."""
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
