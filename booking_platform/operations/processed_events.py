"""The admin of processed events: what each consumer has applied, and what that did."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, event_types, meanings
from booking_platform.operations.bulk_outcomes import JobFilter
from booking_platform.operations.records import (
    ColumnFilter,
    RecordsOfFact,
    column_filter,
    exact,
    moment,
    records_of,
)


def _outcomes() -> list[tuple[str, str]]:
    return [(outcome, f"{outcome}: {meaning}") for outcome, meaning in meanings().items()]


def _event_types() -> list[tuple[str, str]]:
    names = dict.fromkeys(payload.__name__ for payload in event_types().values())
    return [(name, name) for name in names]


class BookingFilter(ColumnFilter):
    """Says which booking a link has filtered by; offers none itself."""

    title, parameter_name = "booking", "aggregate_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [] if value is None else [(value, exact(value))]


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(RecordsOfFact):
    processed = moment("processed_at", "processed at")
    occurred = moment("occurred_at", "occurred at, by its own timestamp")

    list_display = ("event", "event_type", "booking", "consumer", "outcome", "processed")
    list_filter = (
        column_filter("consumer", lambda: zip(CONSUMERS, CONSUMERS, strict=True)),
        column_filter("event_type", _event_types, title="event type"),
        column_filter("outcome", _outcomes),
        ("processed_at", admin.DateFieldListFilter),
        BookingFilter,
        JobFilter,
    )
    search_fields = ("aggregate_id__exact", "event_id__exact")
    search_help_text = "A whole booking id or event id"
    fields = (
        "event",
        "event_type",
        "consumer",
        "what_it_did",
        "booking",
        "booking_records",
        "occurred",
        "processed",
        "fingerprint",
    )

    @admin.display(description="event id", ordering="event_id")
    def event(self, event: ProcessedEvent) -> str:
        return exact(event.event_id)

    @admin.display(description="booking")
    def booking(self, event: ProcessedEvent) -> str:
        return exact(event.aggregate_id)

    @admin.display(description="outcome")
    def what_it_did(self, event: ProcessedEvent) -> str:
        meaning = meanings().get(event.outcome)
        return f"{event.outcome}: {meaning}" if meaning else event.outcome

    @admin.display(description="more of this booking")
    def booking_records(self, event: ProcessedEvent) -> SafeString | str:
        booking = event.aggregate_id
        return records_of(booking) if booking else "The event names no booking."
