"""The admin of what the kernel keeps: processed events, and dead letters with their two ways out.

What the apps' admins share is here too: records of fact, and what people decide about them.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import structlog
from amqp.exceptions import AMQPError, MessageNacked
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import model_ngettext, quote
from django.db import models
from django.db.models.functions import Length, Substr
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime
from kombu.exceptions import KombuError

from booking_platform.messaging import dead_letters
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.topology import EVENT_QUEUES, ROUTING_KEYS

if TYPE_CHECKING:
    ProcessedEventModelAdmin = admin.ModelAdmin[ProcessedEvent]
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    ProcessedEventModelAdmin = AnyModelAdmin = admin.ModelAdmin

log = structlog.get_logger(__name__)

# The apps add theirs, since the kernel knows none of them.
BOOKING_RECORDS: dict[type[models.Model], str] = {}  # a registered model: its booking-id field
OUTCOMES: dict[str, str] = {}  # an event's outcome: what it means

SHOWN = 20_000  # characters of a body on its page
MOST_AT_ONCE = 500  # records a request: it has to end, and a form may have 1,000 fields
LISTED = 20  # of what is only mentioned: lines of a confirmation, failures, a booking's events
BROKER_ERRORS = (OSError, AMQPError, MessageNacked, KombuError)

# Control characters, and those that turn the direction of text, are shown as JSON writes them.
_INVISIBLE = {*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_VISIBLE = {code: f"\\u{code:04x}" for code in _INVISIBLE - {ord("\n"), ord("\t")}}


def visible(text: object) -> str:
    """Give foreign text so that nothing in it hides, or changes what stands beside it."""
    return str(text).translate(_VISIBLE)


def link(to: models.Model, text: object) -> SafeString:
    """Link to the admin's page of a record."""
    page = f"admin:{to._meta.app_label}_{to._meta.model_name}_change"
    return format_html('<a href="{}">{}</a>', reverse(page, args=[quote(str(to.pk))]), text)


def list_link(model: type[models.Model], text: object, **query: str | int) -> SafeString:
    """Link to the admin's list of a model, filtered."""
    page = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return format_html('<a href="{}?{}">{}</a>', reverse(page), urlencode(query), text)


def lines(items: Iterable[object]) -> SafeString:
    return format_html_join(SafeString("<br>"), "{}", ((item,) for item in items))


def records_of(booking: str, *, but: models.Model | None = None) -> SafeString:
    """Link to what the apps, and the inbox, keep of a booking; not to the page it is shown on."""
    records = [
        link(record, visible(f"{record._meta.verbose_name} {record}"))
        for model, field in BOOKING_RECORDS.items()
        for record in model._default_manager.filter(**{field: booking})
        if record != but
    ]
    return lines([*records, list_link(ProcessedEvent, "all its events", aggregate_id=booking)])


def moment(field: str, label: str) -> Callable[[Any, Any], str]:
    """Make a column of a time, to the second, in the settings' zone."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        value = getattr(row, field)
        return f"{localtime(value):%Y-%m-%d %H:%M:%S %Z}" if value else "-"

    return column


def foreign(
    field: str, label: str, *, chars: int | None = None, otherwise: str = "-"
) -> Callable[[Any, Any], str]:
    """Make a column of text that others wrote, cut where it would push the rest aside."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        text = visible(getattr(row, field) or otherwise)
        return Truncator(text).chars(chars) if chars else text

    return column


class RecordsOfFact:
    """What the workers wrote down: to be read by people, and changed by nobody."""

    change_list_template: ClassVar[Any] = "admin/messaging/change_list.html"
    change_form_template: ClassVar[Any] = "admin/messaging/change_form.html"
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


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a person may decide about records: an action of the list, and a button of the page."""

    action: str
    title: str  # of its confirmation, around the number of records
    done: str
    explanation: str
    why_required: bool = True
    asks: bool = True  # for a confirmation

    @property
    def label(self) -> str:
        return " ".join(self.title.format("").split())


class ReasonForm(forms.Form):
    why = forms.CharField(
        label="Reason",
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80, "autofocus": True}),
        help_text="Kept in the history of each, for whoever asks later.",
    )


class DecisionsAdmin(RecordsOfFact, AnyModelAdmin):
    """Records that wait for people's decisions: confirmed, told of, and kept in the history."""

    decisions: ClassVar[Sequence[Decision]] = ()
    oldest_first: ClassVar[tuple[str, ...]] = ("pk",)

    def is_open(self, record: Any, how: Decision) -> bool:
        """Tell whether the record's page offers a decision."""
        raise NotImplementedError

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        """Say on a confirmation which record is meant, and how it stands: by column."""
        raise NotImplementedError

    @admin.display(description=getattr(AnyModelAdmin.action_checkbox, "short_description", None))
    def action_checkbox(self, obj: Any) -> SafeString:
        return SafeString(visible(super().action_checkbox(obj)))  # it names the record

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        record, allowed = context["original"], self.get_actions(request)
        context |= {
            "subtitle": visible(record),
            "decisions": [
                how for how in self.decisions if how.action in allowed and self.is_open(record, how)
            ],
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def chosen(self, request: HttpRequest, listed: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Give what the person selected, oldest first.

        Not only what the list's filter still matches: what has changed meanwhile is reported, not
        left out.
        """
        chosen = listed
        if request.POST.get("select_across") != "1":
            pks = request.POST.getlist(ACTION_CHECKBOX_NAME)
            chosen = self.get_queryset(request).filter(pk__in=pks)
        return chosen.order_by(*self.oldest_first)

    def ask(
        self,
        request: HttpRequest,
        chosen: models.QuerySet[Any],
        how: Decision,
        form: forms.Form | None,
        **context: object,
    ) -> HttpResponse:
        """Show what is to be confirmed, and the form to do so unless there is none."""
        records, total = list(chosen[:MOST_AT_ONCE]), chosen.count()
        number = f"{len(records)} {model_ngettext(self.opts, len(records))}"
        context |= {
            **self.admin_site.each_context(request),
            "title": how.title.format(number),
            "opts": self.opts,
            "media": self.media,
            "how": how,
            "form": form,
            "records": records,
            "listed": [self.described(record, how) for record in records[:LISTED]],
            "unlisted": max(0, len(records) - LISTED),
            "total": total,
            "left_over": total - len(records),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/messaging/confirm.html", context)

    def tell(
        self, request: HttpRequest, done: list[str], problems: list[str], how: Decision
    ) -> None:
        """Say what became of each."""
        if done:
            number = f"{len(done)} {model_ngettext(self.opts, len(done))}"
            names = "; ".join(done[:LISTED]) + (" …" if len(done) > LISTED else "")
            self.message_user(request, visible(f"{number} {how.done}: {names}"), messages.SUCCESS)
        for problem in problems[:LISTED]:
            self.message_user(request, visible(problem), messages.WARNING)
        if len(problems) > LISTED:
            more = f"… and {len(problems) - LISTED} more like these."
            self.message_user(request, more, messages.WARNING)


class ColumnFilter(admin.SimpleListFilter):
    """A filter of one column whose choices are known without grouping the table by it."""

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[Any]
    ) -> models.QuerySet[Any]:
        value = self.value()
        return queryset if value is None else queryset.filter(**{str(self.parameter_name): value})


class ConsumerFilter(ColumnFilter):
    title, parameter_name = "consumer", "consumer"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(queue.name, queue.name) for queue in EVENT_QUEUES]


class EventTypeFilter(ColumnFilter):
    title, parameter_name = "event type", "event_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = dict.fromkeys(payload.__name__ for payload in ROUTING_KEYS.values())
        return [(name, name) for name in names]


class OutcomeFilter(ColumnFilter):
    title = parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(outcome, f"{outcome}: {meaning}") for outcome, meaning in OUTCOMES.items()]


class BookingFilter(ColumnFilter):
    """Says which booking a link has filtered by; offers none itself."""

    title, parameter_name = "booking", "aggregate_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [] if value is None else [(value, value)]


@admin.register(ProcessedEvent)
class ProcessedEventAdmin(RecordsOfFact, ProcessedEventModelAdmin):
    processed = moment("processed_at", "processed at")
    occurred = moment("occurred_at", "occurred at, by its own timestamp")

    list_display = ("event", "event_type", "booking", "consumer", "outcome", "processed")
    list_filter = (
        ConsumerFilter,
        EventTypeFilter,
        OutcomeFilter,
        ("processed_at", admin.DateFieldListFilter),
        BookingFilter,
    )
    search_fields = ("aggregate_id__exact", "event_id__exact")
    search_help_text = "A whole booking id or event id"
    fields = (
        "event_id",
        "event_type",
        "consumer",
        "what_it_did",
        "booking",
        "booking_records",
        "occurred",
        "processed",
        "fingerprint",
    )

    @admin.display(description="event id", ordering="event_id")
    def event(self, event: ProcessedEvent) -> str:
        return event.event_id

    @admin.display(description="booking")
    def booking(self, event: ProcessedEvent) -> str:
        return event.aggregate_id

    @admin.display(description="outcome")
    def what_it_did(self, event: ProcessedEvent) -> str:
        meaning = OUTCOMES.get(event.outcome)
        return f"{event.outcome}: {meaning}" if meaning else event.outcome

    @admin.display(description="more of this booking")
    def booking_records(self, event: ProcessedEvent) -> SafeString | str:
        booking = event.aggregate_id
        return records_of(booking) if booking else "The event names no booking."


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
        names = sorted(dead_letters.QUEUES)
        return [*((name, name) for name in names), ("other", "none of ours: can't be replayed")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter]
    ) -> models.QuerySet[DeadLetter]:
        queue = self.value()
        if queue == "other":
            return queryset.exclude(queue__in=dead_letters.QUEUES)
        return queryset if queue is None else queryset.filter(queue=queue)


@dataclass(frozen=True, kw_only=True)
class Resolution(Decision):
    """One of the two ways out of the dead letters."""

    carry_out: Callable[..., bool]
    not_closed: str  # what it means when that answers false


REPLAY = Resolution(
    action="replay",
    title="Replay {}",
    done="replayed",
    explanation="The original message goes to the queue it came from again, and to no other. What "
    "was applied meanwhile is recognised and has no effect; what still can't be applied is parked "
    "again.",
    why_required=False,
    carry_out=dead_letters.replay,
    not_closed="replayed, but not closed: it came again meanwhile, or somebody else closed it.",
)
DISCARD = Resolution(
    action="discard",
    title="Discard {}",
    done="discarded",
    explanation="Closed for good, without effect on any booking. What came is kept, and so is the "
    "reason.",
    carry_out=dead_letters.discard,
    not_closed="not discarded: it came again meanwhile, or somebody else closed it.",
)


@admin.register(DeadLetter)
class DeadLetterAdmin(DecisionsAdmin):
    first_parked = moment("parked_at", "first parked")
    last_parked = moment("last_parked_at", "last parked")
    resolved = moment("resolved_at", "resolved")

    list_display = (
        "event",
        "event_type",
        "queue",
        "reason",
        "what_is_wrong",
        "attempts",
        "last_parked",
        "short_state",
    )
    list_filter = (StateFilter, "reason", QueueFilter)
    search_fields = ("event_id", "detail")
    search_help_text = "A part of the event id or of the detail"
    actions = ("replay", "discard")
    decisions = (REPLAY, DISCARD)
    oldest_first = ("parked_at", "pk")

    def get_fieldsets(self, request: HttpRequest, obj: DeadLetter | None = None) -> Any:
        parking = ("state", "reason", "detail", "attempts", "first_parked", "last_parked")
        event = ("queue", "event_type", "event_id", "namesakes", "body_as_text")
        resolution = ("resolved", "resolved_by", "resolution")
        sections = [(None, {"fields": parking}), ("Event", {"fields": event})]
        if obj is not None and obj.state != DeadLetter.State.PARKED:
            sections.insert(1, ("Resolution", {"fields": resolution}))
        return sections

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[DeadLetter]:
        return super().get_queryset(request).defer("body")  # as large as whoever sent it liked

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("messaging.replay_deadletter")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("messaging.discard_deadletter")

    # What a page shows.

    @admin.display(description="event id", ordering="event_id")
    def event(self, letter: DeadLetter) -> str:
        return letter.event_id or "unreadable"

    @admin.display(description="detail", ordering="detail")
    def what_is_wrong(self, letter: DeadLetter) -> str:
        return Truncator(letter.detail).chars(100)

    @admin.display(description="state", ordering="state")
    def short_state(self, letter: DeadLetter) -> str:
        return letter.state

    @admin.display(description="applied under this id")
    def namesakes(self, letter: DeadLetter) -> SafeString | str:
        applied = ProcessedEvent.objects.filter(event_id=letter.event_id)[:LISTED]
        return lines(link(event, f"{event} ({event.consumer})") for event in applied) or "nothing"

    @admin.display(description="body")
    def body_as_text(self, letter: DeadLetter) -> SafeString:
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
            "Event id": visible(letter.event_id) or "unreadable",
            "Event type": visible(letter.event_type) or "-",
            "Queue": visible(letter.queue) or "-",
            "Reason": letter.get_reason_display(),
            "Attempts": letter.attempts,
            "State": letter.get_state_display(),
        }

    # The ways out.

    @admin.action(description="Replay: send to its queue again", permissions=["replay"])
    def replay(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        return self._resolve(request, queryset, REPLAY)

    @admin.action(description="Discard: close without effect", permissions=["discard"])
    def discard(
        self, request: HttpRequest, queryset: models.QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        return self._resolve(request, queryset, DISCARD)

    def _resolve(
        self, request: HttpRequest, listed: models.QuerySet[DeadLetter], how: Resolution
    ) -> HttpResponse | None:
        """Ask for confirmation and a reason; once they are given, carry it out."""
        form = ReasonForm(request.POST if "confirmed" in request.POST else None)
        form.fields["why"].required = how.why_required
        chosen = self.chosen(request, listed)
        if not form.is_valid():
            return self.ask(request, chosen, how, form)
        pks = chosen.values_list("pk", flat=True)[:MOST_AT_ONCE]
        self._carry_out(request, list(pks), how, form.cleaned_data["why"])
        return None

    def _carry_out(
        self, request: HttpRequest, pks: Sequence[int], how: Resolution, why: str
    ) -> None:
        """Resolve one after the other, and say what became of each."""
        by = request.user.get_username()
        done: list[str] = []
        problems: list[str] = []
        for number, pk in enumerate(pks):
            letter = DeadLetter.objects.get(pk=pk)  # one by one: each brings its body
            try:
                closed = how.carry_out(letter, by=by, why=why)
            except dead_letters.NotReplayable as error:
                problems.append(f"Not replayed: {error}.")
                continue
            except BROKER_ERRORS as error:
                self._tell_broker_error(request, error, left=len(pks) - number)
                break
            if closed:
                done.append(str(letter))
            else:
                problems.append(f"{letter}: {how.not_closed}")
            if closed or how is REPLAY:
                change = how.done if closed else how.not_closed.removesuffix(".")
                self.log_change(request, letter, f"{change}: {why}" if why else change)
        self.tell(request, done, problems, how)

    def _tell_broker_error(self, request: HttpRequest, error: Exception, *, left: int) -> None:
        log.warning(
            "The broker took no replay: dead letters stay parked", left=left, error=str(error)
        )
        self.message_user(
            request,
            f"The broker did not take the message ({type(error).__name__}: {error}). "
            f"Nothing is lost: {left} of those selected stay as they were. Replay them again when "
            "the broker is back.",
            messages.ERROR,
        )


def as_text(opening: bytes, *, complete: bool) -> str:
    """Give foreign bytes as text to look at, and JSON indented, its numbers as they were written."""
    if complete:
        with suppress(msgspec.DecodeError, RecursionError):
            opening = msgspec.json.format(opening, indent=2)[: 4 * SHOWN + 1]
    return visible(opening.decode(errors="replace"))
