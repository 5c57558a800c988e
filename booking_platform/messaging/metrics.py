"""Counters and histograms for Prometheus, shared by all processes of this machine. They raise no error.

Everything that counts in this project uses ``Counter`` and ``Histogram`` from here; prometheus_client's
own raise what their labels or their files raise, into code that has just committed, or has just paid
somebody.
"""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import prometheus_client
import structlog
from celery.exceptions import SoftTimeLimitExceeded

log = structlog.get_logger(__name__)

# Upper bounds of seconds, from a group on an idle worker to an event that has waited for an hour.
SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
)  # fmt: skip


class _Metric:
    """A metric with labels. What goes wrong with it is logged once, until it works again."""

    def __init__(self, name: str, metric: Any) -> None:
        self._name = name
        self._metric = metric
        self._failing = False

    def known(self, *labels: object) -> None:
        """Show these values of the labels from now on: a rate needs the 0 before the first 1."""
        self._change(lambda _: None, labels)

    def _change(self, change: Callable[[Any], object], labels: Sequence[object]) -> None:
        """Change the number of these values of the labels.

        Raises:
            SoftTimeLimitExceeded: the worker's time limit, which may end any statement.
        """
        try:
            texts = [str(label).encode(errors="replace").decode() for label in labels]
            change(self._metric.labels(*texts) if texts else self._metric)
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


class Counter(_Metric):
    """A number that only grows."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, prometheus_client.Counter(name, documentation, labels))

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
        self._change(lambda counter: counter.inc(amount), labels)


class Labelled(NamedTuple):
    """A counter together with values of its labels."""

    counter: Counter
    values: Sequence[object]

    def inc(self, amount: float = 1) -> None:
        """Add an amount."""
        self.counter.add(amount, self.values)


class Histogram(_Metric):
    """How often an amount was how large."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        super().__init__(name, _Histogram(name, documentation, labels, buckets=buckets))

    def observe(self, amounts: Sequence[float], *labels: object) -> None:
        """Count amounts, all of a group at once: each bucket that some of them fall into is written once.

        Raises:
            SoftTimeLimitExceeded: the worker's time limit, which may end any statement.
        """
        self._change(lambda histogram: histogram.observe_all(amounts), labels)


class _Histogram(prometheus_client.Histogram):
    def observe_all(self, amounts: Sequence[float]) -> None:
        places = Counts(bisect_left(self._upper_bounds, amount) for amount in amounts)
        for place, count in places.items():
            self._buckets[place].inc(count)
        self._sum.inc(sum(amounts))


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
EVENT_LATENCY = Histogram(
    "event_latency_seconds",
    "From an event's own timestamp to the commit that applied it; a replay is not counted.",
    ["consumer"],
    SECONDS,
)
GROUP_SIZE = Histogram(
    "event_group_size",
    "Events of a group, which are begun together.",
    ["consumer"],
    (1, 2, 5, 10, 20, 50, 100, 200, 500),
)
GROUP_SECONDS = Histogram(
    "event_group_duration_seconds",
    "From the beginning of a group to its ack, with all waiting and with what followed its commit.",
    ["consumer"],
    SECONDS,
)
ATTEMPT_SECONDS = Histogram(
    "attempt_duration_seconds",
    "From the beginning of an attempt at a call to the world outside to the record of what it came to.",
    ["queue"],
    SECONDS,
)
DATABASE_WAIT_SECONDS = Counter(
    "database_wait_seconds_total",
    "Seconds in which work waited in place: the database was away, or others held its rows locked.",
    ["cause"],
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
RELAY_FAILURES = Counter(
    "relay_failures_total",
    "Tries to publish announcements that failed, by what was in the way.",
    ["cause"],
)
TASK_FAILURES = Counter(
    "task_failures_total",
    "Celery tasks that ended with an error. What they were to do is done by the next, or by beat's.",
    ["task"],
)
PROCESSED_EVENTS_DELETED = Counter(
    "processed_events_deleted_total",
    "Records of processed events that outlived their retention.",
)
