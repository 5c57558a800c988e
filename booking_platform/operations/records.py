"""Pages of what the platform has recorded: columns, links and filters that all the admins share."""

import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from unicodedata import category

import msgspec
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import SEARCH_VAR
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from booking_platform.contract.envelope import INVISIBLE
from booking_platform.messaging.models import ProcessedEvent

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    from unfold.admin import ModelAdmin as AnyModelAdmin

# Each app adds its own: a registered model, and its field of the booking id.
BOOKING_RECORDS: dict[type[models.Model], str] = {}

SHOWN = 20_000  # characters of a body on its page
LAST_OF_FOUR_DIGITS = 0xFFFF
LISTED = 20  # of what is only mentioned: lines of a confirmation, failures, a booking's events

# Of what can't be seen texts need line breaks, tabs, and the joiners of letters (zero width, too).
NEEDED = frozenset("\n\t\u200c\u200d")
# In ids also what has no width, or looks like a space, though it counts as a letter or a mark.
BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
OUTER_SPACE = re.compile(r"\A +| +\Z")


def visible(text: object) -> str:
    """Return foreign text so that nothing in it hides, or changes what stands beside it.

    Controls and format characters are shown as JSON writes them.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        _escape(char) if category(char) in INVISIBLE and char not in NEEDED else char
        for char in shown
    )


def exact(identifier: object) -> str:
    """Return an id so that two which differ look different: what looks like nothing is an escape."""
    shown = str(identifier)
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else _escape(char) for char in shown)
    shown = BLANK.sub(lambda found: _escape(found[0]), shown)
    return OUTER_SPACE.sub(lambda found: r"\u0020" * len(found[0]), shown)


def typed(term: str) -> str:
    """Return what a person searches for who has copied an id as ``exact`` shows it."""
    return ESCAPED.sub(_meant, term)


def _meant(found: re.Match[str]) -> str:
    code = int(found[1] or found[2], 16)
    char = chr(code) if code <= sys.maxunicode else "\0"
    storable = char != "\0" and category(char) != "Cs"
    return char if storable and exact(char) != char else found[0]


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= LAST_OF_FOUR_DIGITS else f"\\U{code:08x}"


def address_of(record: models.Model) -> str:
    """Return the address of the admin's page of a record."""
    page = f"admin:{record._meta.app_label}_{record._meta.model_name}_change"
    return reverse(page, args=[quote(str(record.pk))])


def link(to: models.Model, text: object) -> SafeString:
    """Return a link to the admin's page of a record."""
    return format_html('<a href="{}">{}</a>', address_of(to), text)


def story_address(booking: str) -> str:
    """Return the address of the page that has all that happened to a booking."""
    return f"{reverse('story')}?{urlencode({'booking': booking})}"


def story_of(booking: str) -> SafeString:
    """Return a link to the story of a booking."""
    text = f"the story of booking {exact(booking)}"
    return format_html('<a href="{}">{}</a>', story_address(booking), text)


def list_link(model: type[models.Model], text: object, **query: str | int) -> SafeString:
    """Return a link to the admin's list of a model, filtered."""
    page = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return format_html('<a href="{}?{}">{}</a>', reverse(page), urlencode(query), text)


def lines(items: Iterable[object]) -> SafeString:
    return format_html_join(SafeString("<br>"), "{}", ((item,) for item in items))


def records_of(booking: str, *, but: models.Model | None = None) -> SafeString:
    """Return links to all records of a booking, except to ``but``, the one that is shown."""
    records = [
        link(record, exact(f"{record._meta.verbose_name} {record}"))
        for model, field in BOOKING_RECORDS.items()
        for record in model._default_manager.filter(**{field: booking})
        if record != but
    ]
    events = list_link(ProcessedEvent, "all its events", aggregate_id=booking)
    return lines([story_of(booking), *records, events])


def moment(field: str, label: str) -> Callable[[Any, Any], str]:
    """Return a column of a time, to the second, in the time zone of the settings."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        value = getattr(row, field)
        return f"{localtime(value):%Y-%m-%d %H:%M:%S %Z}" if value else "-"

    return column


def foreign(
    field: str,
    label: str,
    *,
    chars: int | None = None,
    otherwise: str = "-",
    shown: Callable[[object], str] = visible,
) -> Callable[[Any, Any], str]:
    """Return a column of text that others wrote, cut where it would push the rest aside."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        text = shown(getattr(row, field) or otherwise)
        return Truncator(text).chars(chars) if chars else text

    return column


identifier = partial(foreign, shown=exact)


class RecordsOfFact(AnyModelAdmin):
    """What the workers stored: people can read it, and nobody can change it."""

    change_form_template: ClassVar[Any] = "admin/operations/change_form.html"
    actions: Any = None
    # Each of these counts or groups the whole table to decorate a page.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        term = request.GET.get(SEARCH_VAR, "").strip()
        if request.method == "GET" and exact(term) != term:
            problem = f"Your search holds characters that can't be seen: {exact(term)}"
            self.message_user(request, problem, messages.WARNING)
        return super().changelist_view(request, extra_context)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = typed(search_term)
        if exact(term) != term:  # in quotes: a no-break space would end a word
            term = '"' + term.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return super().get_search_results(request, queryset, term)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["subtitle"] = exact(context["original"])
        return super().render_change_form(request, context, *args, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class UnknownChoice(Exception):
    """A list is filtered by a value that its filter does not offer; the message names both."""


class ChoiceFilter(admin.SimpleListFilter):
    """A filter whose values are names of conditions.

    Raises:
        UnknownChoice: the address has another value, which would show everything as if it were filtered.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        value = self.value()
        if value and value not in {str(known) for known, _ in self.lookup_choices}:
            raise UnknownChoice(f"the filter {self.parameter_name!r} has no choice {value[:50]!r}")


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
