"""The admin of dead letters, with their two ways out: replay and discard."""

from collections.abc import Callable
from typing import Any

import structlog
from django.contrib import admin
from django.db import models
from django.db.models.functions import Length, Substr
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince
from django.utils.timezone import localtime

from booking_platform.messaging import broker, clock, dead_letters, edits
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.operations.bulk import EDITED, OVERTAKEN
from booking_platform.operations.bulk_jobs import JobsAdmin
from booking_platform.operations.decisions import Decision, Interrupted
from booking_platform.operations.exports import PAGE_OF_BODIES, ExportsAdmin
from booking_platform.operations.letter_edits import (
    EDIT,
    SEND_AGAIN,
    EditsAdmin,
    shown_changes,
)
from booking_platform.operations.letter_exports import LETTERS
from booking_platform.operations.letter_filters import (
    QueueFilter,
    ReasonFilter,
    StateFilter,
    TypeFilter,
)
from booking_platform.operations.letter_groups import GroupsAdmin
from booking_platform.operations.records import (
    LISTED,
    SHOWN,
    as_text,
    exact,
    foreign,
    lines,
    link,
    moment,
    story_of,
    visible,
)
from booking_platform.operations.rights import lacking
from booking_platform.operations.selecting import SEARCHED, with_words

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
    "again. A letter is closed once it is sent: its event is then treated as any other, so that a booking "
    "which finds no seats by then is rejected, and waits for nobody.",
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


@admin.register(DeadLetter)
class DeadLetterAdmin(GroupsAdmin, EditsAdmin, ExportsAdmin, JobsAdmin):
    exported, exported_page = LETTERS, PAGE_OF_BODIES
    first_parked = moment("parked_at", "first parked")
    last_parked = moment("last_parked_at", "last parked")
    resolved = moment("resolved_at", "resolved")
    edited = moment("edited_at", "edited")
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
    list_filter = (StateFilter, ReasonFilter, QueueFilter, TypeFilter)
    search_fields = SEARCHED
    search_help_text = "A part of the event id or of the detail"
    decisions = (REPLAY, EDIT, SEND_AGAIN, DISCARD)
    decisions_on_groups = (REPLAY, DISCARD)
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
        event = (
            "queue",
            "kind",
            "event",
            "booking",
            "namesakes",
            "relatives",
            "trace",
            "body_as_text",
        )
        resolution = ("resolved", "resolved_by", "resolution")
        edited = ("edited_as", "edited_by", "edited", "what_was_changed", "edited_body_as_text")
        sections: list[Any] = [(None, {"fields": parking})]
        if obj is not None and obj.state != DeadLetter.State.PARKED:
            sections.append(("Resolution", {"fields": resolution}))
        if obj is not None and obj.edit_begun:
            sections.append(("What a person made of it", {"fields": edited}))
        return [*sections, ("Event", {"fields": event})]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[DeadLetter]:
        return super().get_queryset(request).defer("body", "edited_body")  # as large as may be

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter], search_term: str
    ) -> tuple[models.QuerySet[DeadLetter], bool]:
        return with_words(queryset, search_term), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Return whether a list may be filtered by a lookup: not by a body, which is no text."""
        bodies = ("body", "edited_body")
        return lookup.partition("__")[0] not in bodies and super().lookup_allowed(
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
        return (letter.state == DeadLetter.State.PARKED and letter.why.advice) or "-"

    @admin.display(description="state", ordering="state")
    def short_state(self, letter: DeadLetter) -> str:
        return letter.state

    @admin.display(description="open for", ordering="parked_at")
    def open_for(self, letter: DeadLetter) -> str:
        if letter.state != DeadLetter.State.PARKED:
            return "-"
        return timesince(letter.parked_at, clock.now(), depth=1)

    @admin.display(description="booking")
    def booking(self, letter: DeadLetter) -> SafeString | str:
        return story_of(letter.aggregate_id) if letter.aggregate_id else "none that can be read"

    @admin.display(description="applied under this id")
    def namesakes(self, letter: DeadLetter) -> SafeString | str:
        applied = ProcessedEvent.objects.filter(event_id=letter.event_id)[:LISTED]
        return (
            lines(link(event, exact(f"{event} ({event.consumer})")) for event in applied)
            or "nothing"
        )

    @admin.display(description="its other dead letters")
    def relatives(self, letter: DeadLetter) -> SafeString | str:
        made_of, origin = edits.made_of(letter), edits.origin(letter)
        same = edits.of_the_same_event(letter)
        return (
            lines(
                link(other, visible(f"{what}: {other}, {other.state}"))
                for what, others in (
                    ("a person made this event of", [origin] if origin else []),
                    ("the edited event was parked as", made_of),
                    ("the same event", same),
                )
                for other in others
            )
            or "none"
        )

    @admin.display(description="sent under the event id")
    def edited_as(self, letter: DeadLetter) -> str:
        begun = "" if letter.state == DeadLetter.State.EDITED else " (it may have been sent)"
        return f"{exact(letter.edited_event_id)}{begun}"

    @admin.display(description="changed")
    def what_was_changed(self, letter: DeadLetter) -> SafeString | str:
        if letter.forgotten:
            return "-"
        return (
            lines(
                format_html("<strong>{}</strong>: <del>{}</del> → <ins>{}</ins>", *change)
                for change in shown_changes(edits.changed(letter))
            )
            or "nothing but the event id"
        )

    @admin.display(description="body as it was sent")
    def edited_body_as_text(self, letter: DeadLetter) -> SafeString | str:
        return self._as_text(letter, "edited_body")

    @admin.display(description="body")
    def body_as_text(self, letter: DeadLetter) -> SafeString | str:
        return self._as_text(letter, "body")

    def _as_text(self, letter: DeadLetter, column: str) -> SafeString | str:
        if letter.forgotten_at is not None:
            return f"removed on {localtime(letter.forgotten_at):%Y-%m-%d}"
        opening, size = (
            DeadLetter.objects.filter(pk=letter.pk)
            .values_list(
                # UTF-8 takes at most four bytes a character.
                Substr(column, 1, 4 * SHOWN, output_field=models.BinaryField()),
                Length(column),
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
        fits = letter.edit_begun == (how is SEND_AGAIN)
        return letter.state == DeadLetter.State.PARKED and fits

    def decide(
        self, request: HttpRequest, listed: models.QuerySet[Any], how: Decision
    ) -> HttpResponse | None:
        if self.refuse(request, listed, how):
            return None
        if how is EDIT:
            return self.begin_edit(request, self.chosen(request, listed))
        if how in (REPLAY, DISCARD) and self.is_for_many(request):
            return self.decide_about_many(request, listed, how)
        return super().decide(request, listed, how)

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
        event_type = edits.type_of(letter) if how is SEND_AGAIN else letter.event_type
        if needed := lacking(request.user, dead_letters.consumers_of(letter, event_type)):
            return needed
        if how is DISCARD and letter.edit_begun:  # it would be announced as without effect
            return EDITED
        if how is DISCARD:
            return "" if dead_letters.discard(letter, by=by, why=why) else OVERTAKEN
        send = edits.send_again if how is SEND_AGAIN else dead_letters.replay
        return self._send(request, letter, send, by=by, why=why)

    def _send(
        self,
        request: HttpRequest,
        letter: DeadLetter,
        send: Callable[..., bool],
        *,
        by: str,
        why: str,
    ) -> str:
        try:
            closed = send(letter, by=by, why=why)
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
