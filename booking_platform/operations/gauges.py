"""Numbers that the database knows, for ``/metrics`` of the web process, by the values of labels.

An app adds its own with ``@gauge``, in a module that its ``AppConfig.ready`` imports. Each is read at every
scrape, so it reads what an index finds, and no more than ``MOST`` rows: what goes on for ever, such as refunds
that are completed, is a counter's to tell.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count, QuerySet

from booking_platform.messaging import clock, leases
from booking_platform.messaging.dead_letters import UNROUTABLE
from booking_platform.messaging.leases import Leased
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations.kernel_audits import overdue_rows

MOST = 100_000  # rows that are counted; more are shown as so many

Values = Mapping[tuple[str, ...], float]  # by the values of the labels
Read = Callable[[], Values]


@dataclass(frozen=True)
class Gauge:
    """A number for each of some values of labels."""

    name: str
    words: str
    labels: tuple[str, ...]
    read: Read


GAUGES: dict[str, Gauge] = {}  # by name


def gauge(name: str, words: str, *labels: str) -> Callable[[Read], Read]:
    """Register a function that returns the values of a gauge.

    Raises:
        ImproperlyConfigured: another gauge has the name.
    """

    def registered(read: Read) -> Read:
        if name in GAUGES:
            raise ImproperlyConfigured(f"The gauge {name!r} is registered twice.")
        GAUGES[name] = Gauge(name, words, labels, read)
        return read

    return registered


def counted(rows: QuerySet[Any]) -> int:
    """Return how many rows there are, up to ``MOST``."""
    return rows.order_by()[:MOST].count()


def age(since: datetime | None) -> float:
    """Return for how many seconds something has waited; 0 where nothing waits."""
    return max(0.0, (clock.now() - since).total_seconds()) if since else 0.0


@gauge("leases_due", "Refunds, e-mails and jobs whose next attempt is due.", "queue")
def _due() -> Values:
    now = clock.now()
    return _by_queue(
        leases.due(model._default_manager.all(), now)
        for model in apps.get_models()
        if issubclass(model, Leased)
    )


@gauge("leases_overdue", "Those of them that no worker has taken up for some sweeps.", "queue")
def _overdue() -> Values:
    return _by_queue(overdue_rows())


@gauge("dead_letters_open_by_reason", "Dead letters that wait for a person.", "queue", "reason")
def _dead_letters() -> Values:
    waiting = DeadLetter.objects.filter(state=DeadLetter.State.PARKED).order_by()
    found: Counter[tuple[str, ...]] = Counter()
    some = DeadLetter.objects.filter(pk__in=waiting.values("pk")[:MOST]).order_by()
    for queue, reason, count in some.values_list("queue", "reason").annotate(Count("pk")):
        # Anybody may name a queue to the broker, and each value of a label is kept for ever.
        ours = queue in CONSUMERS or reason == UNROUTABLE.code
        labels = (queue if ours else "none of ours", reason)
        found[labels] += count
    return found


def _by_queue(rows_of_models: Iterator[QuerySet[Any]]) -> Values:
    found: Counter[tuple[str, ...]] = Counter()
    for rows in rows_of_models:
        found[(leases.task_queue(rows.model),)] += counted(rows)
    return found
