"""The dead letters that wait for a person, counted by why, where from and what kind of event."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.timesince import timesince

from booking_platform.messaging import clock
from booking_platform.messaging.dead_letters import consumers_of
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import REASONS, Reason
from booking_platform.operations.decisions import Decision
from booking_platform.operations.records import AnyModelAdmin, visible
from booking_platform.operations.rights import lacking
from booking_platform.operations.selecting import OTHER, known_queues, known_types


class Group(NamedTuple):
    """Open dead letters that one cause may explain."""

    reason: Reason
    queue: str
    event_type: str
    letters: int
    oldest: datetime

    @property
    def query(self) -> str:
        """The filter of the list that shows these."""
        chosen = {"reason": self.reason.code, "queue": self.queue, "event_type": self.event_type}
        return urlencode(chosen)

    @property
    def from_queue(self) -> str:
        return "another queue" if self.queue == OTHER else self.queue

    @property
    def of_type(self) -> str:
        return "another type, or none" if self.event_type == OTHER else self.event_type


# The inner statement reads an index of the open letters in its order; its condition is a constant in the
# text, or SQLite does not see that the index is meant.
_SQL = """
SELECT reason, CASE WHEN queue IN ({queues}) THEN queue ELSE %s END,
    CASE WHEN event_type IN ({types}) THEN event_type ELSE %s END, SUM(letters), MIN(oldest)
FROM (
    SELECT reason, queue, event_type, COUNT(*) AS letters, MIN(parked_at) AS oldest
    FROM dead_letters WHERE state = 'parked' GROUP BY reason, queue, event_type
) AS counted GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
"""


def groups() -> list[Group]:
    """Return the groups of open dead letters, the largest first.

    Whoever publishes may name any queue and any type: those that are none of ours are one group, so that
    there are only so many.
    """
    queues, types = known_queues(), known_types()
    sql = _SQL.format(queues=_places(queues), types=_places(types))
    with connection.cursor() as cursor:
        cursor.execute(sql, [*queues, OTHER, *types, OTHER])
        found = cursor.fetchall()
    return [
        Group(
            REASONS.get(code, Reason(code, code)), queue, event_type, int(letters), _moment(oldest)
        )
        for code, queue, event_type, letters, oldest in found
    ]


def _places(values: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(values)) or "NULL"


def _moment(value: datetime | str) -> datetime:
    """Return a time as the database has it: SQLite keeps a text, in UTC."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


class GroupsAdmin(AnyModelAdmin):
    """The page of the groups, from which each is looked at, replayed or discarded as a whole."""

    decisions_on_groups: ClassVar[Sequence[Decision]] = ()

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.groups_view)
        return [path("groups/", view, name="messaging_deadletter_groups"), *super().get_urls()]

    def groups_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        its = groups()
        now = clock.now()
        may = [how for how in self.decisions_on_groups if request.user.has_perm(how.permission)]
        context = {
            **self.admin_site.each_context(request),
            "title": "Dead letters by reason",
            "opts": self.opts,
            "groups": [
                (
                    group,
                    f"{group.letters:,}",
                    timesince(group.oldest, now, depth=1),
                    *self._offered(request, group, may),
                )
                for group in its
            ],
            "total": f"{sum(group.letters for group in its):,}",
            "decisions": may,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/operations/letter_groups.html", context)

    def _offered(
        self, request: HttpRequest, group: Group, decisions: Sequence[Decision]
    ) -> tuple[Sequence[Decision], str]:
        """Return what a person may decide about a group; or nothing, and why."""
        consumers = consumers_of(DeadLetter(queue=group.queue, event_type=group.event_type))
        why = lacking(request.user, consumers) if decisions else ""
        return ((), visible(why)) if why else (decisions, "")
