"""Counters for Prometheus, shared by all processes of this machine. Counting raises no error.

Everything that counts in this project uses ``Counter`` from here; prometheus_client's own raises what
its labels or its files raise, into code that has just committed, or has just paid somebody.
"""

from collections.abc import Sequence
from typing import NamedTuple

import prometheus_client
import structlog
from celery.exceptions import SoftTimeLimitExceeded

log = structlog.get_logger(__name__)


class Counter:
    """A counter with labels. What goes wrong with it is logged once, until it works again."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._counter = prometheus_client.Counter(name, documentation, labels)
        self._failing = False

    def labels(self, *labels: object) -> "Labelled":
        """Return the counter of these values of the labels."""
        return Labelled(self, labels)

    def inc(self, amount: float = 1) -> None:
        """Add an amount."""
        self.add(amount, ())

    def add(self, amount: float, labels: Sequence[object]) -> None:
        """Add an amount to the counter of these values of the labels.

        Raises:
            SoftTimeLimitExceeded: the worker's time limit, which may end any statement.
        """
        try:
            texts = [str(label).encode(errors="replace").decode() for label in labels]
            (self._counter.labels(*texts) if texts else self._counter).inc(amount)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            if not self._failing:
                self._failing = True
                log.exception("Counting fails: what it counts is lost", counter=self._name)
        else:
            if self._failing:
                self._failing = False
                log.info("Counting works again", counter=self._name)


class Labelled(NamedTuple):
    """A counter together with values of its labels."""

    counter: Counter
    values: Sequence[object]

    def inc(self, amount: float = 1) -> None:
        """Add an amount."""
        self.counter.add(amount, self.values)


OPTIMISTIC_LOCK_CONFLICTS = Counter(
    "optimistic_lock_conflicts_total",
    "Writes that found another version than they had read, and were done again.",
    ["resource_type"],
)
DUPLICATE_EVENTS = Counter(
    "duplicate_events_total",
    "Events that had been processed before, and so had no effect.",
    ["event_type"],
)
EVENTS = Counter(
    "events_total",
    "Events committed, by their outcome; parked ones count as parked.",
    ["consumer", "outcome"],
)
DEAD_LETTERS = Counter(
    "dead_letters_parked_total",
    "Events parked for a person.",
    ["queue", "reason"],
)
ANNOUNCEMENTS = Counter(
    "announcements_published_total",
    "Announcements that the broker has confirmed.",
)
PROCESSED_EVENTS_DELETED = Counter(
    "processed_events_deleted_total",
    "Records of processed events that outlived their retention.",
)
