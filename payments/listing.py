"""How the admin lists refunds: what is next for each, in which order, and by what filters."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Page, Paginator
from django.db import models
from django.db.models import Case, Q, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone
from django.utils.timezone import localtime

from booking_platform.messaging import leases
from booking_platform.messaging.admin import ColumnFilter
from payments.models import IdempotencyStore

if TYPE_CHECKING:
    RefundPaginator = Paginator[IdempotencyStore]
    RefundPage = Page[IdempotencyStore]
    Refunds = models.QuerySet[IdempotencyStore]
else:
    RefundPaginator, RefundPage, Refunds = Paginator, Page, models.QuerySet

Status = IdempotencyStore.Status

# The list's order: each group by an index of its own, as long as nobody sorts by a column.
WAITING = Q(needs_review=True)
UNDER_WAY = Q(needs_review=False, status=Status.IN_PROGRESS, settled_at__isnull=True)
REST = Q(needs_review=False) & (~Q(status=Status.IN_PROGRESS) | Q(settled_at__isnull=False))
DUE = Coalesce("lease_until", "next_attempt_at")
NEWEST_FIRST = ("-created_at", "-id")
GROUPS: tuple[tuple[Q, tuple[Any, ...]], ...] = (
    (WAITING, ("updated_at", *NEWEST_FIRST)),
    (UNDER_WAY, (DUE.asc(nulls_last=True), *NEWEST_FIRST)),
    (REST, NEWEST_FIRST),
)
ORDERING = (
    Case(When(WAITING, then=0), When(UNDER_WAY, then=1), default=2).asc(),
    Case(When(WAITING, then="updated_at"), When(UNDER_WAY, then=DUE)).asc(nulls_last=True),
    *NEWEST_FIRST,
)


def what_is_next(refund: IdempotencyStore, now: datetime) -> str:
    """Say in a sentence what happens to a refund without anybody's help, or whom it waits for."""
    held = []
    if refund.needs_review:
        held.append("waits for a person" + because(refund))
    elif refund.settled:
        held.append(f"settled by {refund.settled_by}")
    step = next_attempt(refund, now)
    if step:
        return "; ".join([*held, step])
    if refund.needs_review:
        return held[0]
    if refund.settled:
        return f"nothing: {held[0]}"
    if refund.status == Status.COMPLETED:
        return "nothing: done"
    if refund.status == Status.FAILED:
        return "nothing: Stripe refused it"
    return "nothing by itself, though it is not done: try it now"


def next_attempt(refund: IdempotencyStore, now: datetime) -> str:
    """Say when it is taken up next; nothing if it is not."""
    if refund.lease_until is not None:
        if refund.lease_until <= now:
            return "due now: its worker is gone, the next sweep takes it"
        again = ", then due again" if refund.next_attempt_at else ""
        return f"under way until {localtime(refund.lease_until):%H:%M:%S %Z}{again}"
    if refund.next_attempt_at is None:
        return ""
    if refund.next_attempt_at <= now:
        return "due now: the next sweep takes it"
    said = refund.needs_review or refund.settled
    due = f"due at {localtime(refund.next_attempt_at):%Y-%m-%d %H:%M:%S %Z}"
    return due if said else due + because(refund)


def because(refund: IdempotencyStore) -> str:
    return f": {refund.last_error}" if refund.last_error else ""


def has_worker(refund: IdempotencyStore) -> bool:
    return refund.lease_until is not None and refund.lease_until > timezone.now()


class InGroups(RefundPaginator):
    """Gives a page without sorting the whole table: from one group after the other."""

    def page(self, number: int | str) -> RefundPage:
        number = self.validate_number(number)
        start, wanted = (number - 1) * self.per_page, self.per_page
        rows: list[IdempotencyStore] = []
        refunds_listed: Any = self.object_list
        for condition, order in GROUPS:
            group = refunds_listed.filter(condition).order_by(*order)
            found = list(group[start : start + wanted])
            rows += found
            wanted -= len(found)
            if not wanted:
                break
            start = 0 if found or not start else max(0, start - group.count())
        return Page(rows, number, self)


class ReviewFilter(admin.SimpleListFilter):
    title, parameter_name = "a person", "person"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("awaited", "needs review"), ("settled", "settled")]

    def queryset(self, request: HttpRequest, queryset: Refunds) -> Refunds:
        match self.value():
            case "awaited":
                return queryset.filter(WAITING)
            case "settled":
                return queryset.filter(settled_at__isnull=False)
        return queryset


class StatusFilter(ColumnFilter):
    title = parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(meaning)) for value, meaning in Status.choices]


class StripeStatusFilter(ColumnFilter):
    title, parameter_name = "Stripe's status", "stripe_status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (str(value), str(meaning)) for value, meaning in IdempotencyStore.StripeStatus.choices
        ]


class DueFilter(admin.SimpleListFilter):
    title = parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("now", "now, or overdue"), ("later", "later"), ("under-way", "under way")]

    def queryset(self, request: HttpRequest, queryset: Refunds) -> Refunds:
        now = timezone.now()
        match self.value():
            case "now":
                return leases.due(queryset, now)
            case "later":
                return queryset.filter(lease_until__isnull=True, next_attempt_at__gt=now)
            case "under-way":
                return queryset.filter(lease_until__gt=now)
        return queryset
