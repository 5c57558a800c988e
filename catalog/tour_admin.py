"""The admin of tours: their seats in a picture and in words, how these came about, and what staff may change."""

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db import IntegrityError, models
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from booking_platform.operations.records import (
    AnyModelAdmin,
    ChoiceFilter,
    lines,
    list_link,
    moment,
    visible,
)
from catalog import pictures
from catalog.models import OVERBOOKED, Reservation, Tour
from catalog.tour_pages import history_of

if TYPE_CHECKING:
    TourModelForm = forms.ModelForm[Tour]
else:
    TourModelForm = forms.ModelForm

NUMBERS = ("available_seats", "reserved_seats", "unledgered_seats", "overbooked")  # the workers'
QUOTED = 60  # characters of a value that a sentence names


class TourForm(TourModelForm):
    """Stores only what this person changed: a page left open for an hour must not undo what
    a colleague has changed since. Where both changed one field, the form is refused."""

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
        mine = {name: value for name, value in cleaned.items() if name in self.changed_data}
        self._refuse_what_others_changed(mine)
        return {name: value for name, value in mine.items() if name in self.cleaned_data}

    def _refuse_what_others_changed(self, mine: dict[str, Any]) -> None:
        """Add an error to each field that somebody else has changed since this person opened the page.

        The row is locked until it is stored, so that nobody can do so in between.
        """
        now = Tour.objects.select_for_update(no_key=True).filter(pk=self.instance.pk).first()
        for name, wanted in mine.items():
            theirs = getattr(now, name, None)
            opened = self._opened_with(name)
            if _alike(theirs, opened) or _alike(theirs, wanted):
                continue
            self.add_error(
                name,
                f"{self[name].label} is {_quoted(theirs)} by now: somebody has changed it since you opened "
                f"this page, where it was {_quoted(opened)}. Nothing of yours is stored, {_quoted(wanted)} "
                "neither. Open the page anew, and change it there if you still want to.",
            )

    def _opened_with(self, name: str) -> Any:
        """Return the value that a field had when this person opened the page; none if that can't be read."""
        field = self.fields[name]
        sent = field.hidden_widget().value_from_datadict(
            self.data, self.files, self.add_initial_prefix(name)
        )
        try:
            return field.to_python(sent)
        except forms.ValidationError:
            return None


def _alike(one: Any, other: Any) -> bool:
    """Return whether two values are one to a form, which strips texts and sends lines as browsers do."""
    if isinstance(one, str) and isinstance(other, str):
        return one.strip().splitlines() == other.strip().splitlines()
    return bool(one == other)


def _quoted(value: Any) -> str:
    text = Truncator(visible("" if value is None else value)).chars(QUOTED)
    return f"“{text}”" if isinstance(value, str) else text


class SeatsFilter(ChoiceFilter):
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
    change_form_outer_before_template = "admin/catalog/tour/seats.html"
    change_form_outer_after_template = "admin/catalog/tour/history.html"
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
        "bar",
    )
    list_display_links = ("id", "name")
    list_filter = (SeatsFilter,)
    search_fields = ("name", "id__exact")
    search_help_text = "A part of the name, or the whole id"
    readonly_fields = (
        "id",
        *NUMBERS,
        "optimistic_lock_version",
        "created",
        "updated",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Tour | None = None) -> Any:
        tour = (None, {"fields": Tour.STAFF_FIELDS})
        if obj is None:
            return (tour,)
        record = ("id", "optimistic_lock_version", "created", "updated")
        return (
            ("Tour", tour[1]),
            ("Record", {"fields": (*NUMBERS, *record), "classes": ("collapse",)}),
        )

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("catalog/tours.css",)}

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
    def bar(self, tour: Tour) -> SafeString:
        return pictures.bar(tour.seats)

    def _reservations_by_state(self, tour: Tour) -> SafeString:
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
                        f"{count} {state}, {seats} seat{'' if seats == 1 else 's'}",
                        tour=tour.pk,
                        state__exact=state,
                    )
                    for state, count, seats in counts
                ),
                list_link(Reservation, "all its reservations", tour=tour.pk),
            ]
        )

    def save_model(self, request: HttpRequest, obj: Tour, form: Any, change: bool) -> None:
        fields = {"update_fields": form.changed_data} if change else {}
        obj.save(by=request.user.get_username(), **fields)
        if obj.overbooked_seats:
            problem = f"{obj} is overbooked: {obj.explain_seats()}."
            self.message_user(request, problem, messages.WARNING)

    def response_add(
        self, request: HttpRequest, obj: Tour, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Say which number the new tour has: events name it by that."""
        said = copy(obj)
        said.name = f"tour {obj.pk} ({obj.name})"
        return super().response_add(request, said, post_url_continue)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        tour = context["original"]
        if tour is not None:  # as it is, not as a refused form would have it
            tour.refresh_from_db()
            context |= {
                "parts": pictures.parts(tour.seats),
                "seat_bar": pictures.bar(tour.seats),
                "reservations_by_state": self._reservations_by_state(tour),
                **history_of(tour, request.GET),
            }
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
