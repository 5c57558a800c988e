"""The admin of dead letters, with their two ways out: replay and discard."""

from typing import Any

import structlog
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import models
from django.db.models.functions import Length, Substr
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince
from django.utils.timezone import localtime

from booking_platform.messaging import broker, clock, dead_letters
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, REASONS
from booking_platform.operations.decisions import Decision, DecisionsAdmin, Interrupted
from booking_platform.operations.records import (
    LISTED,
    SHOWN,
    as_text,
    column_filter,
    exact,
    foreign,
    lines,
    link,
    moment,
    visible,
)

log = structlog.get_logger(__name__)


REPLAY = Decision(
    action="replay",
    permission="messaging.replay_deadletter",
    listed="Replay: send to its queue again",
    title="Replay {}",
    done="replayed",
    undone="not replayed",
    explanation="The original message goes to the queue it came from again, and to no other. What "
    "was applied meanwhile is recognised and has no effect; what still can't be applied is parked "
    "again.",
    why_required=False,
)
DISCARD = Decision(
    action="discard",
    permission="messaging.discard_deadletter",
    listed="Discard: close without effect",
    title="Discard {}",
    done="discarded",
    undone="not discarded",
    explanation="Closed for good, without effect on any booking. The reason is kept; what came is "
    "removed after DEAD_LETTER_RETENTION_DAYS.",
)
OVERTAKEN = "it came again meanwhile, or somebody else closed it"


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

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter]
    ) -> models.QuerySet[DeadLetter]:
        state = self.value()
        return queryset if state == "all" else queryset.filter(state=state)


class QueueFilter(admin.SimpleListFilter):
    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = sorted(CONSUMERS)
        return [*((name, name) for name in names), ("other", "none of ours: can't be replayed")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter]
    ) -> models.QuerySet[DeadLetter]:
        queue = self.value()
        if queue == "other":
            return queryset.exclude(queue__in=CONSUMERS)
        return queryset if queue is None else queryset.filter(queue=queue)


@admin.register(DeadLetter)
class DeadLetterAdmin(DecisionsAdmin):
    first_parked = moment("parked_at", "first parked")
    last_parked = moment("last_parked_at", "last parked")
    resolved = moment("resolved_at", "resolved")
    whole_detail = foreign("detail", "detail")

    list_display = (
        "event",
        "kind",
        "queue",
        "parked_because",
        "what_is_wrong",
        "attempts",
        "last_parked",
        "open_for",
        "short_state",
    )
    list_filter = (
        StateFilter,
        column_filter("reason", lambda: [(each.code, each.meaning) for each in REASONS.values()]),
        QueueFilter,
    )
    search_fields = ("event_id", "detail")
    search_help_text = "A part of the event id or of the detail"
    decisions = (REPLAY, DISCARD)
    oldest_first = ("parked_at", "pk")

    def get_fieldsets(self, request: HttpRequest, obj: DeadLetter | None = None) -> Any:
        parking = (
            "state",
            "parked_because",
            "whole_detail",
            "advice",
            "open_for",
            "attempts",
            "first_parked",
            "last_parked",
        )
        event = ("queue", "kind", "event", "namesakes", "trace", "body_as_text")
        resolution = ("resolved", "resolved_by", "resolution")
        sections = [(None, {"fields": parking}), ("Event", {"fields": event})]
        if obj is not None and obj.state != DeadLetter.State.PARKED:
            sections.insert(1, ("Resolution", {"fields": resolution}))
        return sections

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[DeadLetter]:
        return super().get_queryset(request).defer("body")  # as large as whoever sent it liked

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Return whether a list may be filtered by a lookup: not by a body, which is no text."""
        return lookup.partition("__")[0] != "body" and super().lookup_allowed(
            lookup, value, request
        )

    # What a page shows.

    @admin.display(description="event id", ordering="event_id")
    def event(self, letter: DeadLetter) -> str:
        return exact(letter.event_id) or "unreadable"

    @admin.display(description="detail", ordering="detail")
    def what_is_wrong(self, letter: DeadLetter) -> str:
        return Truncator(visible(letter.detail)).chars(100)

    @admin.display(description="event type", ordering="event_type")
    def kind(self, letter: DeadLetter) -> str:
        return exact(letter.event_type) or "-"

    @admin.display(description="reason", ordering="reason")
    def parked_because(self, letter: DeadLetter) -> str:
        return letter.why.meaning

    @admin.display(description="what to do")
    def advice(self, letter: DeadLetter) -> str:
        return letter.why.advice or "-"

    @admin.display(description="state", ordering="state")
    def short_state(self, letter: DeadLetter) -> str:
        return letter.state

    @admin.display(description="open for", ordering="parked_at")
    def open_for(self, letter: DeadLetter) -> str:
        if letter.state != DeadLetter.State.PARKED:
            return "-"
        return timesince(letter.parked_at, clock.now(), depth=1)

    @admin.display(description="applied under this id")
    def namesakes(self, letter: DeadLetter) -> SafeString | str:
        applied = ProcessedEvent.objects.filter(event_id=letter.event_id)[:LISTED]
        return (
            lines(link(event, exact(f"{event} ({event.consumer})")) for event in applied)
            or "nothing"
        )

    @admin.display(description="body")
    def body_as_text(self, letter: DeadLetter) -> SafeString | str:
        if letter.forgotten_at is not None:
            return f"removed on {localtime(letter.forgotten_at):%Y-%m-%d}"
        opening, size = (
            DeadLetter.objects.filter(pk=letter.pk)
            .values_list(
                # UTF-8 takes at most four bytes a character.
                Substr("body", 1, 4 * SHOWN, output_field=models.BinaryField()),
                Length("body"),
            )
            .get()
        )
        opening = bytes(opening or b"")  # SQLite: the start of nothing is NULL
        text = as_text(opening, complete=len(opening) == size)
        note = f"{size:,} bytes"
        if len(text) > SHOWN or len(opening) < size:
            note += f": only the first {SHOWN:,} characters are shown"
        return format_html('<p>{}</p><pre class="body">{}</pre>', note, text[:SHOWN])

    def is_open(self, letter: DeadLetter, how: Decision) -> bool:
        return letter.state == DeadLetter.State.PARKED

    def described(self, letter: DeadLetter, how: Decision) -> dict[str, object]:
        return {
            "Event id": exact(letter.event_id) or "unreadable",
            "Event type": exact(letter.event_type) or "-",
            "Queue": visible(letter.queue) or "-",
            "Reason": letter.why.meaning,
            "Attempts": letter.attempts,
            "State": letter.get_state_display(),
        }

    def carry_out(self, request: HttpRequest, record: Any, how: Decision, why: str) -> str:
        letter, by = DeadLetter.objects.get(pk=record.pk), request.user.get_username()
        if how is DISCARD:
            return "" if dead_letters.discard(letter, by=by, why=why) else OVERTAKEN
        return _not_permitted(request, letter) or self._replay(request, letter, by=by, why=why)

    def _replay(self, request: HttpRequest, letter: DeadLetter, *, by: str, why: str) -> str:
        try:
            closed = dead_letters.replay(letter, by=by, why=why)
        except dead_letters.NotReplayable as error:
            return str(error)
        except broker.UNREACHABLE as error:
            log.warning("The broker took no replay: dead letters stay parked", error=str(error))
            raise Interrupted(
                f"The broker did not take the message ({type(error).__name__}: {error}). Replay again "
                "when it is back."
            ) from error
        if closed:
            return ""
        not_closed = f"replayed, but not closed: {OVERTAKEN}"
        self.log_change(request, letter, f"{not_closed}: {why}" if why else not_closed)
        return f"it was sent, but stays open: {OVERTAKEN}"


def _not_permitted(request: HttpRequest, letter: DeadLetter) -> str:
    """Return which right a person lacks to replay a dead letter to its consumers; empty if none."""
    for consumer in dead_letters.consumers_of(letter):
        needed = consumer.replay_permission
        if needed and not request.user.has_perm(needed):
            app_label, _, codename = needed.partition(".")
            rights = Permission.objects.filter(content_type__app_label=app_label, codename=codename)
            name = rights.values_list("name", flat=True).first() or "which there is not"
            return f"to replay it to {consumer.queue} you need the permission {needed} ({name})"
    return ""
