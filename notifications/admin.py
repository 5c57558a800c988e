"""The admin of cancellation e-mails: what the customers are told, and what came of it."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from booking_platform.operations.decisions import Decision
from booking_platform.operations.exports import ExportsAdmin
from booking_platform.operations.leased import (
    LONGEST_WAITING,
    NEXT_DUE,
    DueFilter,
    LeasedAdmin,
    PersonFilter,
    has_worker,
    settling,
    standing,
    why_not,
)
from booking_platform.operations.records import BOOKING_RECORDS, exact, foreign, moment, visible
from notifications.exported import EMAILS
from notifications.models import WAITING_FOR_PERSON, CancellationEmail

Emails = models.QuerySet[CancellationEmail]

BOOKING_RECORDS[CancellationEmail] = "booking_id"

State = CancellationEmail.State

UNCERTAIN = Q(state=State.UNCERTAIN, settled_at__isnull=True)
FAILED = Q(state=State.FAILED, settled_at__isnull=True)
UNDER_WAY = Q(state__in=(State.PENDING, State.SENDING), settled_at__isnull=True)
REST = Q(state=State.SENT) | Q(settled_at__isnull=False)

RESEND = Decision(
    action="resend",
    permission="notifications.resend_cancellationemail",
    listed="Send again: by the next sweep",
    title="Send {} again",
    done="marked to be sent again",
    undone="not marked to be sent again",
    explanation=f"The next sweep sends it, within {settings.SWEEP_SECONDS:g} seconds. An uncertain "
    "e-mail may have reached the customer already, who would then be told twice. It keeps its "
    "Message-ID, so that mail systems can recognise the repeat, but not all of them do. The reason "
    "is kept for longer than the address: don't name the customer in it.",
)
SETTLE = settling(
    "Nothing is sent any more. The reason is kept for longer than the address: don't name the "
    "customer in it.",
    permission="notifications.settle_cancellationemail",
)

# In a frame with an empty `sandbox` nothing runs, and nothing gets out; with this in front of it,
# nothing is fetched either, and nobody told that staff have looked.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@admin.register(CancellationEmail)
class CancellationEmailAdmin(ExportsAdmin, LeasedAdmin):
    exported = EMAILS
    stands, briefly = standing("state"), standing("state", short=True)
    addressee = foreign("recipient", "recipient", chars=40, otherwise="forgotten")
    to = foreign("recipient", "to")
    titled = foreign("subject", "subject")
    message = foreign("message_id", "Message-ID")
    language = foreign("locale", "language")
    wanted = moment("wanted_at", "to be sent since")
    sent = moment("sent_at", "accepted by the mail server")
    forgotten = moment("forgotten_at", "address and text forgotten")

    change_form_template = "admin/notifications/cancellationemail/change_form.html"
    list_display = (
        "booking",
        "step",
        "briefly",
        "next_briefly",
        "addressee",
        "language",
        "attempts",
        "updated",
    )
    sortable_by = ("booking",)  # by an index; the others would sort the whole table
    groups = (
        (UNCERTAIN, LONGEST_WAITING),
        (FAILED, LONGEST_WAITING),
        (UNDER_WAY, NEXT_DUE),
        (REST, None),
    )
    waiting = WAITING_FOR_PERSON
    list_filter = (PersonFilter, "state", DueFilter)
    search_fields = ("booking_id", "recipient__iexact", "message_id")
    search_help_text = "A whole booking id, address or Message-ID"
    decisions = (RESEND, SETTLE)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        if obj is not None and obj.forgotten:
            letter: tuple[str, ...] = ("forgotten", "message", "language")
            bodies = []
        else:
            letter = ("to", "titled", "message", "language")
            bodies = [("What the customer reads", {"fields": ("html_part", "text_part")})]
        mail = ("whose", "step", "more", *letter, "created", "wanted", "sent")
        return [*super().get_fieldsets(request, obj), ("E-mail", {"fields": mail}), *bodies]

    def get_queryset(self, request: HttpRequest) -> Emails:
        return super().get_queryset(request).defer("text_body", "html_body")

    # What is shown.

    def waits(self, email: CancellationEmail) -> bool:
        return email.waits_for_person

    def at_the_end(self, email: CancellationEmail) -> str:
        if email.state == State.SENT:
            return "nothing: sent"
        return "nothing by itself, though it is not sent: send it again"

    @admin.display(description="as HTML")
    def html_part(self, email: CancellationEmail) -> SafeString:
        return format_html(
            '<iframe class="mail" title="The e-mail as HTML" sandbox="" '
            'referrerpolicy="no-referrer" srcdoc="{}"></iframe>',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{email.html_body}',
        )

    @admin.display(description="as text")
    def text_part(self, email: CancellationEmail) -> SafeString:
        return format_html('<pre class="body">{}</pre>', visible(email.text_body))

    # What people decide.

    def obstacle(self, email: CancellationEmail, how: Decision) -> str:
        if how is not RESEND:
            return super().obstacle(email, how)
        if has_worker(email):
            return why_not(email)
        obstacles = {
            "it was sent": email.state == State.SENT,
            f"it was settled by {email.settled_by}": email.settled,
            f"its address and text were forgotten at {self.forgotten(email)}": email.forgotten,
            "it may have been sent, and the next sweep looks into that": email.state
            == State.SENDING,
        }
        return next((why for why, there in obstacles.items() if there), "")

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        return {
            "Booking": exact(record.booking_id),
            "Step": record.step,
            "To": visible(record.recipient) or "forgotten",
            "State": record.get_state_display(),
            "What is next": visible(self.what_is_next(record)),
        }

    def done(self, row: Any, how: Decision, *, by: str, why: str) -> bool:
        return bool(row.resend()) if how is RESEND else super().done(row, how, by=by, why=why)
