"""Lost races: what they cost, and who locks first because of them.

A race that is lost is a transaction done for nothing. Where two processes take what waits in large groups,
nearly each group shares a tour with its neighbour and loses. So whoever has lost a race locks first for
some time; then it tries without a lock again.
"""

import structlog
from django.conf import settings

from booking_platform.messaging import clock, metrics
from booking_platform.messaging.rules import LostRace
from booking_platform.messaging.tallies import CONFLICTS, TALLIES

log = structlog.get_logger(__name__)

_until: dict[str, float] = {}  # by consumer: the ticks up to which this process locks first


def locks_first(consumer: str) -> bool:
    """Return whether a group of a consumer locks before it reads: it has lost a race lately."""
    return clock.ticks() < _until.get(consumer, 0.0)


def lost(consumer: str, race: LostRace, *, attempt: int, pause: float) -> None:
    """Count and log a race that a group has lost, and remember it. ``pause`` is in seconds."""
    _until[consumer] = clock.ticks() + settings.LOCK_FIRST_SECONDS
    metrics.OPTIMISTIC_LOCK_CONFLICTS.labels(race.resource_type).inc()
    TALLIES.add(CONFLICTS, race.resource_type)
    # Bound, not passed: a rule may name its context as the line names its own words.
    log.bind(**race.context).info(
        f"Optimistic lock conflict on a {race.resource_type}: trying again",
        consumer=consumer,
        attempt=attempt,
        of=settings.LOCK_ATTEMPTS,
        pause_ms=round(1000 * pause),
    )


def forget() -> None:
    """Forget all lost races."""
    _until.clear()
