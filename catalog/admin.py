"""The admin of tours and their reservations."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db import IntegrityError, models
from django.db.models import Count, F, Sum, Value
from django.db.models.functions import Greatest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations.records import (
    BOOKING_RECORDS,
    LISTED,
    AnyModelAdmin,
    ColumnFilter,
    RecordsOfFact,
    exact,
    identifier,
    lines,
    link,
    list_link,
    moment,
)
from catalog.life import in_order, load
from catalog.models import Reservation, Tour

if TYPE_CHECKING:
    TourModelForm = forms.ModelForm[Tour]
else:
    TourModelForm = forms.ModelForm

BOOKING_RECORDS[Reservation] = "booking_id"

OVERBOOKED = Greatest(
    Value(0),
    F("reserved_seats") + Greatest(Value(0), F("unledgered_seats")) - F("capacity"),
    output_field=models.BigIntegerField(),
)


class TourForm(TourModelForm):
    """Stores only what this person changed: a page left open for an hour must not undo what
    a colleague has changed since."""

    price = forms.DecimalField(
        min_value=0, max_digits=10, decimal_places=2, widget=UnfoldAdminDecimalFieldWidget
    )

    class Meta:
        labels = {"unledgered_seats": "Outside the ledger"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.show_hidden_initial = self.instance.pk is not None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.instance.pk is None:
            return cleaned
        return {name: value for name, value in cleaned.items() if name in self.changed_data}


class SeatsFilter(admin.SimpleListFilter):
    title = parameter_name = "seats"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("free", "free seats"), ("sold-out", "sold out"), ("overbooked", "overbooked")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Tour]
    ) -> models.QuerySet[Tour]:
        match self.value():
            case "free":
                return queryset.filter(available_seats__gt=0)
            case "sold-out":
                return queryset.filter(available_seats=0)
            case "overbooked":
                return queryset.alias(overbooked=OVERBOOKED).filter(overbooked__gt=0)
        return queryset


@admin.register(Tour)
class TourAdmin(AnyModelAdmin):
    created = moment("created_at", "created at")
    updated = moment("updated_at", "updated at")

    form = TourForm
    actions = None  # deletion asks about one tour at a time
    list_display = (
        "id",
        "name",
        "price",
        "capacity",
        "available",
        "reserved",
        "outside_the_ledger",
        "overbooked",
    )
    list_display_links = ("id", "name")
    list_filter = (SeatsFilter,)
    search_fields = ("name", "id__exact")
    search_help_text = "A part of the name, or the whole id"
    readonly_fields = (
        "id",
        "seats",
        "available_seats",
        "reserved_seats",
        "unledgered_seats",
        "overbooked",
        "reservations_by_state",
        "optimistic_lock_version",
        "created",
        "updated",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Tour | None = None) -> Any:
        tour = (None, {"fields": Tour.STAFF_FIELDS})
        if obj is None:
            return (tour,)
        numbers = ("available_seats", "reserved_seats", "unledgered_seats", "overbooked")
        record = ("id", "optimistic_lock_version", "created", "updated")
        return (
            ("Seats", {"fields": ("seats", "reservations_by_state")}),
            ("Tour", tour[1]),
            ("Numbers, kept by the workers", {"fields": numbers}),
            ("Record", {"fields": record}),
        )

    @admin.display(description="available", ordering="available_seats")
    def available(self, tour: Tour) -> int:
        return tour.available_seats

    @admin.display(description="reserved", ordering="reserved_seats")
    def reserved(self, tour: Tour) -> int:
        return tour.reserved_seats

    @admin.display(description="outside the ledger", ordering="unledgered_seats")
    def outside_the_ledger(self, tour: Tour) -> int:
        return tour.unledgered_seats

    @admin.display(description="overbooked", ordering=OVERBOOKED)
    def overbooked(self, tour: Tour) -> int:
        return tour.overbooked_seats

    @admin.display(description="seats")
    def seats(self, tour: Tour) -> SafeString:
        return format_html("<strong>{}</strong>", tour.explain_seats())

    @admin.display(description="reservations")
    def reservations_by_state(self, tour: Tour) -> SafeString:
        counts = (
            tour.reservations.order_by("state")
            .values_list("state")
            .annotate(Count("pk"), Sum("seats"))
        )
        return lines(
            [
                *(
                    list_link(
                        Reservation,
                        f"{count} {state}, {seats} seats",
                        tour=tour.pk,
                        state__exact=state,
                    )
                    for state, count, seats in counts
                ),
                list_link(Reservation, "all its reservations", tour=tour.pk),
            ]
        )

    def save_model(self, request: HttpRequest, obj: Tour, form: Any, change: bool) -> None:
        obj.save(**({"update_fields": form.changed_data} if change else {}))
        if obj.overbooked_seats:
            problem = f"{obj} is overbooked: {obj.explain_seats()}."
            self.message_user(request, problem, messages.WARNING)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        tour = context["original"]
        if tour is not None:  # as it is, not as a refused form would have it
            tour.refresh_from_db()
        return super().render_change_form(request, context, *args, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Tour | None = None) -> bool:
        """Return false for a tour that has ever sold a seat: its history hangs on it."""
        if not super().has_delete_permission(request, obj):
            return False
        return obj is None or not (obj.unledgered_seats > 0 or obj.reservations.exists())

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except IntegrityError:
            problem = "Not deleted: a reservation arrived meanwhile."
            self.message_user(request, problem, messages.ERROR)
            return redirect("admin:catalog_tour_change", object_id)


class TourFilter(ColumnFilter):
    """Shows which tour a link has filtered by; offers none itself."""

    title = parameter_name = "tour"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value() or ""
        tour = Tour.objects.filter(pk=value).first() if value.isdecimal() else None
        return [(value, tour.name)] if tour else []

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Reservation]
    ) -> models.QuerySet[Reservation]:
        return super().queryset(request, queryset) if self.lookup_choices else queryset


@admin.register(Reservation)
class ReservationAdmin(RecordsOfFact):
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
                *(link(event, exact(f"{event} ({event.consumer})")) for event in events[:LISTED]),
                list_link(ProcessedEvent, "all its events", aggregate_id=booking),
                f"Events are remembered for {days} days.",
            ]
        )
