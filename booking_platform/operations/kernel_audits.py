"""The promises of the kernel: each event reaches each of its consumers, and nothing waits for too long."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet

from booking_platform.messaging import clock, topology
from booking_platform.messaging.leases import Leased
from booking_platform.messaging.models import DeadLetter, OutboxRow, ProcessedEvent
from booking_platform.messaging.paging import in_pages, in_spans
from booking_platform.messaging.rules import CONSUMERS, Consumer
from booking_platform.operations.audits import (
    SPAN,
    Figure,
    Finding,
    audits,
    informs,
    model_name,
    overdue_of,
)
from booking_platform.operations.records import exact

PAGE = 500  # findings a statement

State = DeadLetter.State


@audits(
    "events",
    "An event that one consumer has processed has been processed by each of its consumers, or is one of "
    "their dead letters.",
)
def unequally_processed() -> Iterator[Finding]:
    """Yield the events that one consumer has had for some time, and another has not."""
    sharing: dict[str, list[Consumer]] = defaultdict(list)
    for consumer in CONSUMERS.values():
        sharing[consumer.routing_key].append(consumer)
    for consumers in sharing.values():
        if len(consumers) > 1:
            yield from _missing_of(consumers)


def _missing_of(consumers: Sequence[Consumer]) -> Iterator[Finding]:
    queues = [consumer.queue for consumer in consumers]
    begun = {queue: _first_of(queue) for queue in queues}
    for span in in_spans(ProcessedEvent.objects.all(), SPAN):
        for queue in queues:
            missing = _missing(span, queue, queues, begun[queue])
            for event_id, had_by, booking in missing.values_list(
                "event_id", "consumer", "aggregate_id"
            ).iterator(PAGE):
                yield _not_processed(event_id, queue, had_by, booking)


def _missing(
    span: QuerySet[ProcessedEvent], queue: str, queues: Sequence[str], begun: datetime | None
) -> QuerySet[ProcessedEvent]:
    """Return the first record of each event that other consumers have had, and this one has not.

    Older events are left out: those that cleanup may have forgotten for one consumer and not yet for
    another, and those from before this consumer was there.
    """
    now = clock.now()
    same = ProcessedEvent.objects.filter(event_id=OuterRef("event_id"))
    others = [each for each in queues if each != queue]
    answered = Q(state__in=(State.PARKED, State.DISCARDED, State.EDITED)) | Q(
        resolved_at__gt=now - settings.AUDIT_LATE
    )
    letters = DeadLetter.objects.filter(answered, event_id=OuterRef("event_id"), queue=queue)
    # An event that a person has edited goes to the one queue that has refused the original.
    edited = DeadLetter.objects.filter(edited_event_id=OuterRef("event_id"), queue__in=queues)
    rows = span.filter(
        ~Exists(same.filter(consumer=queue)),
        ~Exists(same.filter(consumer__in=others, pk__lt=OuterRef("pk"))),
        ~Exists(letters),
        ~Exists(edited),
        consumer__in=others,
        processed_at__lt=now - settings.AUDIT_LATE,
        occurred_at__gte=now - settings.PROCESSED_EVENTS_RETENTION,
    )
    return rows if begun is None else rows.filter(processed_at__gte=begun)


def _first_of(queue: str) -> datetime | None:
    """Return when a consumer has processed the first event that is remembered."""
    records = ProcessedEvent.objects.filter(consumer=queue).order_by("processed_at")
    return records.values_list("processed_at", flat=True).first()


def _not_processed(event_id: str, queue: str, had_by: str, booking: str) -> Finding:
    return Finding(
        exact(event_id),
        f"Event {exact(event_id)} of booking {exact(booking) or '?'} was processed by {had_by} and not by "
        f"{queue}, which has no dead letter of it either.",
        f"If {queue} holds messages, see that a worker serves it. If it is empty, the event was lost: have "
        "it published again under the same event id, which has no effect where it was processed.",
    )


@audits(
    "edited",
    "An event that a person has edited has been processed by the queue that it was sent to, or is one of its "
    "dead letters.",
)
def unprocessed_edits() -> Iterator[Finding]:
    """Yield the edited events that were sent some time ago, and that nobody has had."""
    now = clock.now()
    same = ProcessedEvent.objects.filter(event_id=OuterRef("edited_event_id"))
    again = DeadLetter.objects.filter(event_id=OuterRef("edited_event_id"))
    rows = DeadLetter.objects.filter(
        ~Exists(same),
        ~Exists(again),
        state=State.EDITED,
        forgotten_at__isnull=True,
        resolved_at__lt=now - settings.AUDIT_LATE,
        resolved_at__gte=now - settings.PROCESSED_EVENTS_RETENTION,
    )
    for pk, event_id, queue in in_pages(rows.values_list("pk", "edited_event_id", "queue"), PAGE):
        yield Finding(
            f"dead letter {pk}",
            f"Event {exact(event_id)}, which a person made of dead letter {pk}, was sent to {exact(queue)} and "
            "has not been processed there.",
            f"If {exact(queue)} holds messages, see that a worker serves it. If it is empty, the event was "
            "lost: publish the edited body, which is on the dead letter's page, once more.",
        )


@audits("overdue", "What is due is taken up by a worker.")
def overdue() -> Iterator[Finding]:
    """Yield the rows that are due, or whose lease has ended, for longer than some sweeps."""
    for rows in overdue_rows():
        for pk, lease, attempt in in_pages(
            rows.values_list("pk", "lease_until", "next_attempt_at"), PAGE
        ):
            yield _overdue(rows.model, pk, lease or attempt)


def overdue_rows() -> Iterator[QuerySet[Any]]:
    """Yield for each leased model the rows that are due, or whose lease has ended, for some sweeps."""
    for model in leased_models():
        yield overdue_of(model._default_manager.all())


def leased_models() -> list[type[Leased]]:
    """Return the models of all apps whose rows are worked on under leases."""
    return [model for model in apps.get_models() if issubclass(model, Leased)]


def _overdue(model: type[Leased], pk: int, since: datetime) -> Finding:
    queue = topology.route(f"{model._meta.app_label}.sweep")["queue"]
    return Finding(
        f"{model._meta.label_lower} {pk}",
        f"{model_name(model).capitalize()} {pk} has been due since {since:%Y-%m-%d %H:%M} UTC, and no worker "
        "has taken it up.",
        f"See that a worker serves the queue {queue} (--queues {queue}), and that beat runs. Nothing else "
        "is needed: it is taken up then.",
    )


@audits("outbox", "What happened is announced soon.")
def waiting_announcements() -> Iterator[Finding]:
    """Yield the announcements that wait for too long, as one finding: they wait for the same thing."""
    old = OutboxRow.waiting().filter(created_at__lt=clock.now() - settings.AUDIT_LATE)
    its = old.aggregate(rows=Count("pk"), since=Min("created_at"))
    if its["rows"]:
        yield Finding(
            "outbox",
            f"{its['rows']} rows of the outbox have not been published; the oldest waits since "
            f"{its['since']:%Y-%m-%d %H:%M} UTC.",
            "Run `python manage.py relay_outbox`, which publishes them or says what the broker refuses. "
            "Then see that a worker serves the queue maintenance, and that beat runs.",
        )


@informs
def open_dead_letters() -> Iterator[Figure]:
    """Yield what waits for a person: not a broken promise, since it is where a person sees it."""
    count, oldest = dead_letters_open()
    yield Figure("dead_letters_open", count, "dead letters wait for a person")
    yield Figure(
        "dead_letters_oldest_open_seconds",
        oldest,
        "seconds since the oldest open dead letter was parked",
    )


@informs
def overdue_attempts() -> Iterator[Figure]:
    """Yield how many rows are overdue now."""
    count = sum(rows.count() for rows in overdue_rows())
    yield Figure("attempts_overdue", count, "attempts are overdue")


def dead_letters_open() -> tuple[int, float]:
    """Return how many dead letters are open, and the age of the oldest in seconds."""
    letters = DeadLetter.objects.filter(state=State.PARKED)
    its = letters.aggregate(count=Count("pk"), oldest=Min("parked_at"))
    since = its["oldest"]
    return its["count"], max(0.0, (clock.now() - since).total_seconds()) if since else 0.0
