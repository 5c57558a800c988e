"""What the admins of leased rows share: what becomes of each by itself, and what people decide.

Such a row is of a booking: beside the columns of ``Leased`` it has a ``booking_id`` and a
``created_at``, and a method ``settle``.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR
from django.core.paginator import Page, Paginator
from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.expressions import OrderBy
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from booking_platform.messaging import clock, leases
from booking_platform.messaging.leases import Leased
from booking_platform.operations.audits import overdue_of
from booking_platform.operations.decisions import Decision, DecisionsAdmin, ReasonForm
from booking_platform.operations.records import (
    ChoiceFilter,
    exact,
    foreign,
    identifier,
    moment,
    records_of,
    typed,
    visible,
)

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
    AnyPage = Page[Any]
else:
    AnyPaginator, AnyPage = Paginator, Page

# A part of a list, and what it is sorted by before NEWEST_FIRST: an index of that part has it.
Group = tuple[Q, OrderBy | None]
LONGEST_WAITING = F("updated_at").asc()
NEXT_DUE = Coalesce("lease_until", "next_attempt_at").asc(nulls_last=True)
NEWEST_FIRST = ("-created_at", "-pk")


def settling(afterwards: str, *, permission: str) -> Decision:
    """Return the decision to close what waits for a person, with what happens to it afterwards."""
    return Decision(
        action="settle",
        permission=permission,
        listed="Mark settled: closed by a person",
        title="Mark {} settled",
        done="marked settled",
        undone="not marked settled",
        explanation="Closed by a person, who has seen to it elsewhere or decided that nothing is "
        f"to be done. {afterwards}",
    )


def as_seen(row: Leased) -> str:
    """Return the name of a row as a page has shown it: a decision is about that state of it."""
    return f"{row.pk}@{row.updated_at.isoformat()}"


def because(row: Leased) -> str:
    return f": {row.last_error}" if row.last_error else ""


def has_worker(row: Leased) -> bool:
    return row.lease_until is not None and row.lease_until > clock.now()


def next_attempt(row: Leased, now: datetime, why: str = "") -> str:
    """Return when a row is taken up next, and why not sooner; empty if it is not."""
    if row.lease_until is not None:
        if row.lease_until <= now:
            return "due now: its worker is gone, the next sweep takes it"
        again = ", then due again" if row.next_attempt_at else ""
        return f"under way until {localtime(row.lease_until):%H:%M:%S %Z}{again}"
    if row.next_attempt_at is None:
        return ""
    if row.next_attempt_at <= now:
        return "due now: the next sweep takes it"
    return f"due at {localtime(row.next_attempt_at):%Y-%m-%d %H:%M:%S %Z}{why}"


def why_not(row: Leased) -> str:
    """Return why a decision about the row was not stored."""
    row.refresh_from_db(fields=("lease_until",))
    if has_worker(row):
        return f"a worker has it, {next_attempt(row, clock.now())}"
    return "it changed meanwhile: look at it again"


class SeenForm(ReasonForm):
    """Asks why, and keeps what the page has shown."""

    seen = forms.CharField(widget=forms.HiddenInput)

    @classmethod
    def about(cls, rows: Iterable[Any], request: HttpRequest) -> Self:
        confirmed = request.POST if "confirmed" in request.POST else None
        return cls(confirmed, initial={"seen": " ".join(map(as_seen, rows))})

    def has_shown(self, row: Any) -> bool:
        return as_seen(row) in (self["seen"].value() or "").split()


def standing(field: str, *, short: bool = False) -> Callable[[Any, Any], SafeString]:
    """Return a column of how far a row has come, in a word or with its meaning."""

    @admin.display(description=field)
    def column(rows: "LeasedAdmin", row: Any) -> SafeString:
        meaning = getattr(row, f"get_{field}_display")()
        return rows.marked(row, getattr(row, field).replace("_", " ") if short else meaning)

    return column


class InGroups(AnyPaginator):
    """Pages that are made without sorting the whole table: from one group after the other."""

    def __init__(self, *args: Any, groups: Sequence[Group], **options: Any) -> None:
        super().__init__(*args, **options)
        self.groups = groups

    def page(self, number: int | str) -> AnyPage:
        number = self.validate_number(number)
        start, wanted = (number - 1) * self.per_page, self.per_page
        rows: list[Leased] = []
        listed: Any = self.object_list
        for condition, order in self.groups:
            by = NEWEST_FIRST if order is None else (order, *NEWEST_FIRST)
            group = listed.filter(condition).order_by(*by)
            found = list(group[start : start + wanted])
            rows += found
            wanted -= len(found)
            if not wanted:
                break
            start = 0 if found or not start else max(0, start - group.count())
        return Page(rows, number, self)


class PersonFilter(ChoiceFilter):
    title, parameter_name = "a person", "person"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        self.waiting: Q = model_admin.waiting
        return [("awaited", "needs review"), ("settled", "settled")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any]:
        match self.value():
            case "awaited":
                return queryset.filter(self.waiting)
            case "settled":
                return queryset.filter(settled_at__isnull=False)
        return queryset


class DueFilter(ChoiceFilter):
    title = parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("now", "now, or overdue"),
            ("overdue", "overdue: no worker has taken it up"),
            ("later", "later"),
            ("under-way", "under way"),
        ]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any]:
        now = clock.now()
        match self.value():
            case "now":
                return leases.due(queryset, now)
            case "overdue":
                return overdue_of(queryset)
            case "later":
                return queryset.filter(lease_until__isnull=True, next_attempt_at__gt=now)
            case "under-way":
                return queryset.filter(lease_until__gt=now)
        return queryset


class LeasedAdmin(DecisionsAdmin):
    """Rows worked on under leases, and what people decide about those that wait for one."""

    booking = identifier("booking_id", "booking", chars=60)
    whose = identifier("booking_id", "booking")
    last_problem = foreign("last_error", "last problem")
    who_settled = foreign("settled_by", "by")
    why_settled = foreign("settlement", "why")
    settled_on = moment("settled_at", "settled")
    created = moment("created_at", "created")
    updated = moment("updated_at", "updated")

    oldest_first = ("created_at", "pk")
    reason_form = SeenForm
    groups: ClassVar[Sequence[Group]] = ()  # the list's order, unless a person sorts by a column
    waiting: ClassVar[Q] = Q()  # for a person

    def waits(self, row: Any) -> bool:
        """Return whether the row waits for a person."""
        raise NotImplementedError

    def at_the_end(self, row: Any) -> str:
        """Return where a row has ended that neither is due nor waits for a person."""
        raise NotImplementedError

    def named(self, record: Any) -> str:
        return exact(record.booking_id)

    def is_open(self, record: Any, how: Decision) -> bool:
        return not self.obstacle(record, how)

    def obstacle(self, record: Any, how: Decision) -> str:
        return "" if self.waits(record) else "it does not wait for a person"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        facts = ["next", "stands", "attempts", "updated"]
        if obj is not None and not self.what_is_next(obj).endswith(because(obj)):
            facts.insert(1, "last_problem")
        sections: list[Any] = [(None, {"fields": facts})]
        if obj is not None and obj.settled:
            settlement = ("settled_on", "who_settled", "why_settled")
            sections.append(("Settlement", {"fields": settlement}))
        return sections

    # What the list shows.

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        group = Case(*(When(rows, then=number) for number, (rows, _) in enumerate(self.groups)))
        within = Case(*(When(rows, then=by.expression) for rows, by in self.groups if by))
        return (group.asc(), within.asc(nulls_last=True), *NEWEST_FIRST)

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **options: Any) -> Any:
        # Django asks for a paginator of the history too.
        if queryset.model is self.model and not request.GET.get(ORDER_VAR):
            return InGroups(queryset, *args, groups=self.groups, **options)
        return super().get_paginator(request, queryset, *args, **options)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        """Search for the words as one id: a booking's may hold spaces and quotes."""
        words = typed(search_term.strip())
        ids: list[Any] = [(field, words) for field in self.get_search_fields(request)]
        return queryset.filter(Q.create(ids, connector=Q.OR)) if words else queryset, False

    @admin.display(description="what is next")
    def next_briefly(self, row: Any) -> str:
        return Truncator(visible(self.what_is_next(row))).chars(120)

    # What the page shows.

    @admin.display(description="what is next")
    def next(self, row: Any) -> SafeString:
        return format_html("<strong>{}</strong>", visible(self.what_is_next(row)))

    @admin.display(description="more of this booking")
    def more(self, row: Any) -> SafeString:
        return records_of(row.booking_id, but=row)

    def what_is_next(self, row: Any) -> str:
        """Return in a sentence what happens by itself, or whom the row waits for."""
        held, why = "", because(row)
        if self.waits(row):
            held = f"waits for a person{why}"
        elif row.settled:
            held = f"settled by {row.settled_by}"
        step = next_attempt(row, clock.now(), "" if held else why)
        if step:
            return f"{held}; {step}" if held else step
        if self.waits(row):
            return held
        return f"nothing: {held}" if held else self.at_the_end(row)

    def marked(self, row: Any, status: str) -> SafeString:
        """Return how far a row has come, with marks for what people have to do with it."""
        marks = {"needs review": self.waits(row), "settled": row.settled}
        shown = [(label.replace(" ", "-"), label) for label, there in marks.items() if there]
        marked = format_html_join("", ' <strong class="mark {}">{}</strong>', shown)
        return format_html("{}{}", status, marked)

    # What people decide.

    def carry_out(self, request: HttpRequest, record: Any, how: Decision, why: str) -> str:
        if problem := self.obstacle(record, how):
            return problem
        done = self.done(record, how, by=request.user.get_username(), why=why)
        return "" if done else why_not(record)

    def done(self, row: Any, how: Decision, *, by: str, why: str) -> bool:
        """Store a decision about a row; return false if the row changed since it was read."""
        return bool(row.settle(by=by, why=why))
