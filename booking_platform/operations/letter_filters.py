"""The filters of the list of dead letters, and what a list that is filtered by them means for a job."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.http import HttpRequest, QueryDict

from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import REASONS
from booking_platform.operations.selecting import (
    OTHER,
    Letters,
    Selection,
    known_queues,
    known_types,
    of_queue,
    of_reason,
    of_type,
)

_NO_FILTER = {"o", "p", "all", "_changelist_filters", "e"}  # order, page, how the list was come by


class NotRepeatable(Exception):
    """A list is filtered by something that no job can repeat; the message names it."""


class StateFilter(admin.SimpleListFilter):
    """Shows what waits for a person, unless asked for the rest."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*DeadLetter.State.choices, ("all", "all")]

    def value(self) -> str:
        return super().value() or DeadLetter.State.PARKED

    def choices(self, changelist: Any) -> Any:
        _all_by_default, *others = super().choices(changelist)
        return others

    def queryset(self, request: HttpRequest, queryset: Letters) -> Letters:
        state = self.value()
        return queryset if state == "all" else queryset.filter(state=state)


class ReasonFilter(admin.SimpleListFilter):
    title = parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(each.code, each.meaning) for each in REASONS.values()]

    def queryset(self, request: HttpRequest, queryset: Letters) -> Letters:
        reason = self.value()
        return queryset if reason is None else of_reason(queryset, reason)


class QueueFilter(admin.SimpleListFilter):
    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = known_queues()
        return [*zip(names, names, strict=True), (OTHER, "none of ours: can't be replayed")]

    def queryset(self, request: HttpRequest, queryset: Letters) -> Letters:
        queue = self.value()
        return queryset if queue is None else of_queue(queryset, queue)


class TypeFilter(admin.SimpleListFilter):
    title, parameter_name = "event type", "event_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = known_types()
        return [*zip(names, names, strict=True), (OTHER, "none of ours, or none")]

    def queryset(self, request: HttpRequest, queryset: Letters) -> Letters:
        event_type = self.value()
        return queryset if event_type is None else of_type(queryset, event_type)


def selection_of(query: QueryDict) -> Selection:
    """Return which open letters a list shows that is filtered like this.

    Raises:
        NotRepeatable: it is filtered by something else than these filters and the search.
    """
    names = {"reason": "reason", "reason__exact": "reason", SEARCH_VAR: "words"}
    names |= {"queue": "queue", "event_type": "event_type"}
    if other := set(query) - set(names) - _NO_FILTER - {"state"}:
        raise NotRepeatable(f"the list is filtered by {min(other)[:50]!r}")
    if (state := query.get("state") or DeadLetter.State.PARKED) not in (
        DeadLetter.State.PARKED,
        "all",
    ):
        raise NotRepeatable(f"the list shows letters that are {state[:50]!r}: they are closed")
    return Selection.stored(
        {names[name]: str(query[name]).strip() for name in query if name in names}
    )
