"""Which task queues are served: beat asks each of them for a heartbeat, and a worker stores it.

A row that is young says that beat, the broker, a worker of the queue and the database work together. No worker is
asked directly: an answer by remote control says nothing of its pool, and waits for a broker that may be frozen.
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max

from booking_platform.messaging import clock, topology
from booking_platform.messaging.models import Heartbeat
from booking_platform.messaging.retention import part_of_cleanup

TASK = "messaging.heartbeat"
MISSED = 8  # in a row: then a queue counts as not served; its workers may be busy for a while
KEPT = timedelta(days=1)


def beat_entries() -> dict[str, dict[str, Any]]:
    """Return the entries of Celery beat's schedule: one for each task queue."""
    seconds = settings.HEARTBEAT_SECONDS
    return {
        f"heartbeat of {queue}": {
            "task": TASK,
            "args": (queue,),
            "schedule": seconds,
            "options": {"queue": queue, "expiration": max(10.0, seconds)},
        }
        for queue in topology.task_queues()
    }


def store(queue: str, worker: str) -> None:
    """Store that a worker serves a queue."""
    Heartbeat.objects.update_or_create(
        queue=queue, worker=worker[:255], defaults={"seen_at": clock.now()}
    )


def last_seen() -> dict[str, datetime | None]:
    """Return when each task queue was last served; None: never."""
    rows = Heartbeat.objects.order_by().values_list("queue").annotate(seen=Max("seen_at"))
    seen = dict(rows)
    return {queue: seen.get(queue) for queue in topology.task_queues()}


def longest_silence() -> timedelta:
    """Return after what time without a heartbeat a queue counts as not served."""
    return timedelta(seconds=MISSED * settings.HEARTBEAT_SECONDS)


@part_of_cleanup
def forget_workers() -> int:
    """Delete the heartbeats of workers that are gone; return how many."""
    return Heartbeat.objects.filter(seen_at__lt=clock.now() - KEPT).delete()[0]
