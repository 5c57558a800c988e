"""The admin of what the kernel works with: announcements that wait, workers seen, what is counted by minute."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from booking_platform.messaging import clock, heartbeats, topology
from booking_platform.messaging.models import Heartbeat, OutboxRow
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tallies import CONFLICTS, DUPLICATES
from booking_platform.operations.models import Tally
from booking_platform.operations.records import (
    SHOWN,
    ChoiceFilter,
    ColumnFilter,
    RecordsOfFact,
    as_text,
    column_filter,
    foreign,
    moment,
)
from booking_platform.operations.tallies import OUTCOMES


class PublishedFilter(ChoiceFilter):
    title = parameter_name = "published"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("waiting", "not yet"), ("late", "not yet, and late"), ("published", "published")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[OutboxRow]
    ) -> models.QuerySet[OutboxRow]:
        match self.value():
            case "waiting":
                return queryset.filter(published_at__isnull=True)
            case "late":
                late = clock.now() - settings.AUDIT_LATE
                return queryset.filter(published_at__isnull=True, created_at__lt=late)
            case "published":
                return queryset.filter(published_at__isnull=False)
        return queryset


@admin.register(OutboxRow)
class OutboxAdmin(RecordsOfFact):
    created = moment("created_at", "stored")
    published = moment("published_at", "confirmed by the broker")

    list_display = ("id", "announcements", "size", "created", "published")
    list_filter = (PublishedFilter,)
    ordering = ("-id",)
    sortable_by = ()
    fields = ("id", "announcements", "size", "created", "published", "as_json")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[OutboxRow]:
        return super().get_queryset(request).defer("messages")

    @admin.display(description="announcements")
    def as_json(self, row: OutboxRow) -> SafeString:
        text = as_text(row.messages.encode(errors="replace"), complete=True)
        note = f"Only the first {SHOWN:,} characters are shown." if len(text) > SHOWN else ""
        return format_html('<p>{}</p><pre class="body" tabindex="0">{}</pre>', note, text[:SHOWN])


class SeenFilter(ChoiceFilter):
    title = parameter_name = "seen"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("now", "lately"), ("gone", "not any more")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Heartbeat]
    ) -> models.QuerySet[Heartbeat]:
        oldest = clock.now() - heartbeats.longest_silence()
        match self.value():
            case "now":
                return queryset.filter(seen_at__gte=oldest)
            case "gone":
                return queryset.filter(seen_at__lt=oldest)
        return queryset


class WorkerFilter(ColumnFilter):
    """Says which worker a link has filtered by; offers none itself."""

    title = parameter_name = "worker"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [] if value is None else [(value, value)]


@admin.register(Heartbeat)
class HeartbeatAdmin(RecordsOfFact):
    name = foreign("worker", "worker")
    seen = moment("seen_at", "last seen")

    list_display = ("name", "queue", "seen")
    list_filter = (
        column_filter("queue", lambda: ((each, each) for each in topology.task_queues())),
        SeenFilter,
        WorkerFilter,
    )
    ordering = ("-seen_at",)
    fields = ("name", "queue", "seen")


class SubjectFilter(ColumnFilter):
    """Says what a link has filtered by; offers the consumers."""

    title = parameter_name = "subject"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        names = [*CONSUMERS, *([] if value is None or value in CONSUMERS else [value])]
        return [(name, name) for name in names]


@admin.register(Tally)
class TallyAdmin(RecordsOfFact):
    began = moment("minute", "minute")

    list_display = ("began", "kind", "subject", "word", "count")
    list_filter = (
        column_filter("kind", lambda: ((each, each) for each in (OUTCOMES, DUPLICATES, CONFLICTS))),
        SubjectFilter,
    )
    sortable_by = ()
    ordering = ("-minute", "kind", "subject", "word")
    fields = ("began", "kind", "subject", "word", "count")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Tally]:
        return super().get_queryset(request).exclude(subject="")  # marks that a minute is counted
