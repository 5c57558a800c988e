"""Pages of what the platform has recorded: columns, links and filters that all the admins share."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db import models
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from booking_platform.messaging.models import ProcessedEvent

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = admin.ModelAdmin

# Each app adds its own: a registered model, and its field of the booking id.
BOOKING_RECORDS: dict[type[models.Model], str] = {}

SHOWN = 20_000  # characters of a body on its page
LISTED = 20  # of what is only mentioned: lines of a confirmation, failures, a booking's events

# Control characters, and those that turn the direction of text, are shown as JSON writes them.
_INVISIBLE = {*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_VISIBLE = {code: f"\\u{code:04x}" for code in _INVISIBLE - {ord("\n"), ord("\t")}}


def visible(text: object) -> str:
    """Return foreign text so that nothing in it hides, or changes what stands beside it."""
    return str(text).translate(_VISIBLE)


def link(to: models.Model, text: object) -> SafeString:
    """Return a link to the admin's page of a record."""
    page = f"admin:{to._meta.app_label}_{to._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(page, args=[quote(str(to.pk))]), text)


def list_link(model: type[models.Model], text: object, **query: str | int) -> SafeString:
    """Return a link to the admin's list of a model, filtered."""
    page = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return format_html('<a href="{}?{}">{}</a>', reverse(page), urlencode(query), text)


def lines(items: Iterable[object]) -> SafeString:
    return format_html_join(SafeString("<br>"), "{}", ((item,) for item in items))


def records_of(booking: str, *, but: models.Model | None = None) -> SafeString:
    """Return links to all records of a booking, except to ``but``, the one that is shown."""
    records = [
        link(record, visible(f"{record._meta.verbose_name} {record}"))
        for model, field in BOOKING_RECORDS.items()
        for record in model._default_manager.filter(**{field: booking})
        if record != but
    ]
    return lines([*records, list_link(ProcessedEvent, "all its events", aggregate_id=booking)])


def moment(field: str, label: str) -> Callable[[Any, Any], str]:
    """Return a column of a time, to the second, in the time zone of the settings."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        value = getattr(row, field)
        return f"{localtime(value):%Y-%m-%d %H:%M:%S %Z}" if value else "-"

    return column


def foreign(
    field: str, label: str, *, chars: int | None = None, otherwise: str = "-"
) -> Callable[[Any, Any], str]:
    """Return a column of text that others wrote, cut where it would push the rest aside."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        text = visible(getattr(row, field) or otherwise)
        return Truncator(text).chars(chars) if chars else text

    return column


class RecordsOfFact(AnyModelAdmin):
    """What the workers stored: people can read it, and nobody can change it."""

    change_list_template: ClassVar[Any] = "admin/operations/change_list.html"
    change_form_template: ClassVar[Any] = "admin/operations/change_form.html"
    actions: Any = None
    # Each of these counts or groups the whole table to decorate a page.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ColumnFilter(admin.SimpleListFilter):
    """A filter of one column by its value, where a choice was made."""

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any]:
        value = self.value()
        return queryset if value is None else queryset.filter(**{str(self.parameter_name): value})


def column_filter(
    column: str, choices: Callable[[], Iterable[tuple[Any, Any]]], *, title: str = ""
) -> type[ColumnFilter]:
    """Return a filter of one column. Its choices are known without grouping the table by it."""

    class Filter(ColumnFilter):
        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [(str(value), str(meaning)) for value, meaning in choices()]

    Filter.parameter_name, Filter.title = column, title or column
    return Filter


def as_text(opening: bytes, *, complete: bool) -> str:
    """Return foreign bytes as text to look at: JSON indented, its numbers as they were written."""
    if complete:
        with suppress(msgspec.DecodeError, RecursionError):
            opening = msgspec.json.format(opening, indent=2)[: 4 * SHOWN + 1]
    return visible(opening.decode(errors="replace"))
