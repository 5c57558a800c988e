"""The admin of audits: what each run has found, how to mend it, and where it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.urls import NoReverseMatch
from django.utils.html import format_html
from django.utils.safestring import SafeString

from booking_platform.messaging.models import OutboxRow, ProcessedEvent
from booking_platform.operations.audits import AUDITS
from booking_platform.operations.dashboard import list_url, page_url
from booking_platform.operations.models import AuditRun
from booking_platform.operations.records import ChoiceFilter, RecordsOfFact, lines, moment, visible


class FoundFilter(ChoiceFilter):
    title, parameter_name = "findings", "findings"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("some", "some"), ("none", "none")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[AuditRun]
    ) -> models.QuerySet[AuditRun]:
        match self.value():
            case "some":
                return queryset.filter(found__gt=0)
            case "none":
                return queryset.filter(found=0)
        return queryset


@admin.register(AuditRun)
class AuditRunAdmin(RecordsOfFact):
    started = moment("started_at", "started")
    finished = moment("finished_at", "finished")

    list_display = ("finished", "found", "of_which", "not_complete", "took")
    list_filter = (FoundFilter,)
    sortable_by = ()
    fields = ("summary", "findings", "started", "took", "figures_as_text")

    @admin.display(description="in which audits")
    def of_which(self, run: AuditRun) -> str:
        found = ((name, result["found"]) for name, result in run.results.items())
        return ", ".join(f"{name}: {count}" for name, count in found if count) or "-"

    @admin.display(description="not complete")
    def not_complete(self, run: AuditRun) -> str:
        return ", ".join(run.incomplete) or "-"

    @admin.display(description="took")
    def took(self, run: AuditRun) -> str:
        return f"{(run.finished_at - run.started_at).total_seconds():.1f} s"

    @admin.display(description="result")
    def summary(self, run: AuditRun) -> SafeString:
        """Return what the run came to in a line for each audit."""
        return lines(_summaries(run))

    @admin.display(description="findings")
    def findings(self, run: AuditRun) -> SafeString | str:
        """Return the findings that were kept, each with how to mend it and where it is."""
        return lines(_findings(run)) or "none"

    @admin.display(description="for information")
    def figures_as_text(self, run: AuditRun) -> SafeString | str:
        shown = (f"{visible(name)}: {value:g}" for name, value in run.figures.items())
        return lines(shown) or "-"


def _summaries(run: AuditRun) -> Iterator[SafeString]:
    for name, result in run.results.items():
        count, why = result["found"], result["incomplete"]
        found = f"{count} found" if count else "nothing found"
        known = AUDITS.get(name)
        told = f"{found}, but it could not look at all there is: {why}" if why else found
        promise = f" ({known.promise})" if known else ""
        yield format_html("<strong>{}</strong>: {}{}", visible(name), visible(told), promise)


def _findings(run: AuditRun) -> Iterator[SafeString]:
    for name, result in run.results.items():
        kept = result["first"]
        for finding in kept:
            yield _finding(name, finding)
        if result["found"] > len(kept):
            rest = result["found"] - len(kept)
            yield format_html("… and {} more of {}: `manage.py audit` lists them.", rest, name)


def _finding(name: str, finding: Mapping[str, str]) -> SafeString:
    words, mending = visible(finding["words"]), visible(finding["mending"])
    url = where(finding["about"])
    look = format_html(' <a href="{}">Look at it</a>', url) if url else ""
    return format_html(
        "<p><strong>{}</strong>: {}<br>How to mend it: {}{}</p>", name, words, mending, look
    )


def where(about: str) -> str:
    """Return the address of what a finding is about; empty where there is none.

    That is a record (``catalog.tour 17``), the outbox, or else the id of a booking or an event.
    """
    label, _, pk = about.partition(" ")
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        return _of_id(about)
    try:
        return page_url(model(pk=pk)) if pk else ""
    except NoReverseMatch:
        return ""


def _of_id(about: str) -> str:
    match about:
        case "outbox":
            return list_url(OutboxRow, published="late")
        case "stripe" | "":
            return ""
    return list_url(ProcessedEvent, q=about)
