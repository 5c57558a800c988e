"""The admin of reservations; that of tours stands beside it."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations.exports import ExportsAdmin
from booking_platform.operations.records import (
    BOOKING_RECORDS,
    LISTED,
    ColumnFilter,
    RecordsOfFact,
    exact,
    identifier,
    lines,
    link,
    list_link,
    moment,
    story_of,
)
from catalog.exported import RESERVATIONS
from catalog.life import in_order, load
from catalog.models import Reservation, Tour
from catalog.tour_admin import TourAdmin

__all__ = ["ReservationAdmin", "TourAdmin"]

BOOKING_RECORDS[Reservation] = "booking_id"


class TourFilter(ColumnFilter):
    """Shows which tour a link has filtered by; offers none itself."""

    title = parameter_name = "tour"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value() or ""
        self.tour = Tour.objects.filter(pk=value).first() if value.isdecimal() else None
        return [(value, self.tour.name if self.tour else "no such tour")] if value else []

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Reservation]
    ) -> models.QuerySet[Reservation]:
        return super().queryset(request, queryset) if self.tour else queryset.none()


@admin.register(Reservation)
class ReservationAdmin(ExportsAdmin, RecordsOfFact):
    exported = RESERVATIONS
    created = moment("created_at", "created at")
    updated = moment("updated_at", "updated at")

    list_display = ("booking", "tour", "seats", "state", "created", "updated")
    list_select_related = ("tour",)
    list_filter = ("state", ("created_at", admin.DateFieldListFilter), TourFilter)
    ordering = ("-id",)  # newest first, by the index that there is
    search_fields = (
        "booking_id__startswith",
        "created_event_id__exact",
        "cancelled_event_id__exact",
        "tour__name",
    )
    search_help_text = "The beginning of a booking id, a whole event id, or a part of a tour's name"
    created_by = identifier("created_event_id", "created event id")
    cancelled_by = identifier("cancelled_event_id", "cancelled event id")
    fields = (
        "booking",
        "tour",
        "seats",
        "state",
        "booked",
        "seats_cancelled",
        "life",
        "created_by",
        "cancelled_by",
        "created",
        "updated",
        "events",
    )

    @admin.display(description="booking id", ordering="booking_id")
    def booking(self, reservation: Reservation) -> str:
        return exact(reservation.booking_id)

    @admin.display(description="steps of its life")
    def life(self, reservation: Reservation) -> SafeString:
        """Show what was said of its seats, in the order in which it happened."""
        return lines(map(str, in_order(load(reservation.steps))))

    @admin.display(description="processed events")
    def events(self, reservation: Reservation) -> SafeString:
        booking = reservation.booking_id
        events = ProcessedEvent.objects.filter(aggregate_id=booking).order_by("processed_at", "id")
        days = settings.PROCESSED_EVENTS_RETENTION.days
        return lines(
            [
                story_of(booking),
                *(link(event, exact(f"{event} ({event.consumer})")) for event in events[:LISTED]),
                list_link(ProcessedEvent, "all its events", aggregate_id=booking),
                f"Events are remembered for {days} days.",
            ]
        )
