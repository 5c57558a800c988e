"""What became of the events that a bulk job has replayed: a letter is closed when it is sent, not when it is applied."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest

from booking_platform.messaging import topology
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import meanings
from booking_platform.operations.dashboard import list_url
from booking_platform.operations.models import BulkJob
from booking_platform.operations.records import exact
from booking_platform.operations.selecting import Letters, Selection

MOST = 1_000  # letters of a job that are looked at, the first ones
APART = timedelta(seconds=1)  # two processes may believe that it is, of one moment


@dataclass(frozen=True)
class Outcome:
    """How many events of a job one consumer has applied with one outcome."""

    consumer: str
    name: str
    meaning: str
    count: int
    url: str


@dataclass(frozen=True)
class Outcomes:
    """What became of the first events that a job has replayed."""

    applied: Sequence[Outcome]
    not_applied: int  # letters whose event no consumer has applied by now
    looked_at: int  # letters

    @property
    def more(self) -> bool:
        """Whether the job may have replayed letters that were not looked at."""
        return self.looked_at == MOST


def replayed(job: BulkJob) -> Letters:
    """Return the first letters that a job has replayed, in the order in which it did."""
    letters = (
        Selection.stored(job.selection)
        .letters(DeadLetter.State.REPLAYED)
        .filter(
            resolved_by=job.made_by,
            resolution=job.why,
            resolved_at__gte=job.made_at - APART,
            forgotten_at__isnull=True,  # as an index has it
            parked_at__lte=job.made_at,
            pk__lte=job.newest,
        )
    )
    if job.finished_at is not None:
        letters = letters.filter(resolved_at__lte=job.finished_at + APART)
    first = letters.order_by("resolved_at", "pk").values("pk")[:MOST]
    return DeadLetter.objects.filter(pk__in=first).order_by()


def events_of(job: BulkJob) -> QuerySet[ProcessedEvent]:
    """Return what consumers have applied of the letters that a job has replayed."""
    letters = replayed(job)
    its_consumer = Q(queue=OuterRef("consumer")) | Q(queue=topology.unroutable_queue().name)
    of_them = letters.filter(its_consumer, event_id=OuterRef("event_id"))
    same = ProcessedEvent.objects.filter(event_id__in=letters.values("event_id"))
    return same.filter(Exists(of_them))


def outcomes_of(job: BulkJob) -> Outcomes:
    """Return what became of the events of a job, in three queries."""
    counts = (
        events_of(job).order_by("consumer", "outcome").values_list("consumer", "outcome")
    ).annotate(Count("pk"))
    words = meanings()
    applied = [
        Outcome(
            consumer,
            outcome,
            words.get(outcome, exact(outcome)),
            count,
            list_url(ProcessedEvent, job=job.pk, consumer=consumer, outcome=outcome),
        )
        for consumer, outcome, count in counts
    ]
    letters = replayed(job)
    same = ProcessedEvent.objects.filter(event_id=OuterRef("event_id"))
    by_its_consumer = Exists(same.filter(consumer=OuterRef("queue")))
    by_any = Q(Exists(same), queue=topology.unroutable_queue().name)
    not_applied = letters.exclude(Q(by_its_consumer) | by_any).count()
    return Outcomes(applied, not_applied, letters.count())


class JobFilter(admin.SimpleListFilter):
    """Says of which job a link shows the events; offers none itself."""

    title, parameter_name = "bulk job", "job"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [] if value is None else [(value, f"replayed by job {exact(value)}")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ProcessedEvent]
    ) -> QuerySet[ProcessedEvent]:
        value = self.value()
        if value is None:
            return queryset
        job = None
        with suppress(ValueError, OverflowError):
            job = BulkJob.objects.filter(pk=int(value), kind=BulkJob.Kind.REPLAY).first()
        return queryset.filter(pk__in=events_of(job).values("pk")) if job else queryset.none()
