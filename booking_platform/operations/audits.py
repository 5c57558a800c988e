"""What an audit is: a promise of the platform, and how what breaks it is found.

An app adds its own with ``@audits``, in a module that its ``AppConfig.ready`` imports. An audit runs while
workers do, so what it compares is read in one statement, or in an order in which nothing that commits
in between can look wrong. It reads in spans of a table, and so holds little in memory, and no statement runs
for long.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count, Model, QuerySet

from booking_platform.messaging import clock
from booking_platform.messaging.leases import Leased, due
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.paging import in_spans
from booking_platform.operations.records import exact

SPAN = 20_000  # rows of a table that one statement looks at
SWEEPS_MISSED = 5  # so many sweeps would have taken up what is due


class CouldNotAudit(Exception):
    """What an audit needs to ask does not answer; the message says what and why."""


@dataclass(frozen=True)
class Finding:
    """One thing that breaks a promise."""

    about: str  # what it is about, as its id
    words: str  # what is off, in a sentence
    mending: str  # what a person can do about it, in a sentence


@dataclass(frozen=True)
class Figure:
    """A number for information: what waits for a person is known, and breaks no promise."""

    name: str
    value: float
    words: str


@dataclass(frozen=True)
class Audit:
    """One promise, and the search for what breaks it."""

    name: str
    promise: str
    find: Callable[[], Iterator[Finding]]
    outside: (
        str  # who has to be asked, beside the database: only if the person says so; empty: nobody
    )


AUDITS: dict[str, Audit] = {}  # by name
FIGURES: list[Callable[[], Iterator[Figure]]] = []

Find = Callable[[], Iterator[Finding]]
R = TypeVar("R", bound=Leased)


def audits(name: str, promise: str, *, outside: str = "") -> Callable[[Find], Find]:
    """Register a function that yields what breaks a promise.

    Raises:
        ImproperlyConfigured: another audit has the name.
    """

    def registered(find: Find) -> Find:
        if name in AUDITS:
            raise ImproperlyConfigured(f"The audit {name!r} is registered twice.")
        AUDITS[name] = Audit(name, promise, find, outside)
        return find

    return registered


def informs(figures: Callable[[], Iterator[Figure]]) -> Callable[[], Iterator[Figure]]:
    """Register a function that yields numbers for information."""
    FIGURES.append(figures)
    return figures


def late() -> timedelta:
    """Return after what time something that was due is overdue."""
    return max(settings.AUDIT_LATE, timedelta(seconds=SWEEPS_MISSED * settings.SWEEP_SECONDS))


def overdue_of(rows: "QuerySet[R]") -> "QuerySet[R]":
    """Return the rows that are due, or whose lease has ended, for longer than some sweeps."""
    return due(rows, clock.now() - late())


def without_record(
    queue: str, outcome: str, records: QuerySet[Any], what: str
) -> Iterator[Finding]:
    """Yield the bookings that have fewer records than events which, by their outcome, stored one each.

    Records are never deleted, and counted after the events: one that commits in between is no finding.
    """
    for span in in_spans(ProcessedEvent.objects.all(), SPAN):
        its = span.filter(consumer=queue, outcome=outcome)
        asked = _counts(
            its, "aggregate_id", ProcessedEvent.objects.filter(consumer=queue, outcome=outcome)
        )
        kept = _counts(its, "booking_id", records) if asked else Counter()
        for booking in sorted(asked):
            if kept[booking] < asked[booking]:
                yield _lacking(booking, asked[booking], kept[booking], what)


def _counts(events: QuerySet[ProcessedEvent], field: str, of: QuerySet[Any]) -> "Counter[str]":
    """Return how many rows there are of each booking that one of the events is about."""
    named = of.filter(**{f"{field}__in": events.order_by().values("aggregate_id")})
    return Counter(dict(named.order_by().values_list(field).annotate(Count("pk"))))


def _lacking(booking: str, asked: int, kept: int, what: str) -> Finding:
    return Finding(
        exact(booking),
        f"Booking {exact(booking)} has {kept} of the {asked} {what}s that its cancellations asked for: "
        "what was stored with the event is gone.",
        "Find out whether a part of the database was restored or deleted. If the customer still needs "
        f"this {what}, have the cancellation published again under a new event id.",
    )


def model_name(model: type[Model]) -> str:
    """Return what staff call a record of a model."""
    return str(model._meta.verbose_name)
