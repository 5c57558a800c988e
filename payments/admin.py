"""The admin of refunds: what becomes of each by itself, and what people decide about them."""

import json
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin, messages
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from booking_platform.messaging import clock
from booking_platform.operations.decisions import Decision
from booking_platform.operations.exports import ExportsAdmin
from booking_platform.operations.leased import (
    LONGEST_WAITING,
    NEXT_DUE,
    DueFilter,
    LeasedAdmin,
    PersonFilter,
    has_worker,
    standing,
)
from booking_platform.operations.records import (
    BOOKING_RECORDS,
    as_text,
    column_filter,
    exact,
    foreign,
    identifier,
    lines,
    moment,
    visible,
)
from payments import attempts
from payments.decisions import (
    APPROVE,
    REISSUE,
    SETTLE,
    TRY_NOW,
    ReissueForm,
    advice_for,
    meaning_of,
    obstacle_to_approval,
    obstacle_to_approval_with_others,
)
from payments.exported import REFUNDS
from payments.models import WHOLE_BOOKING, Refund
from payments.reviews import REVIEWS

Refunds = models.QuerySet[Refund]

BOOKING_RECORDS[Refund] = "booking_id"

Status, StripeStatus = Refund.Status, Refund.StripeStatus

WAITING = Q(needs_review=True)
UNDER_WAY = Q(needs_review=False, status=Status.IN_PROGRESS, settled_at__isnull=True)
REST = Q(needs_review=False) & (~Q(status=Status.IN_PROGRESS) | Q(settled_at__isnull=False))


class ReviewFilter(admin.SimpleListFilter):
    """Shows what waits for a person because of one thing."""

    title, parameter_name = "why it waits", "review"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        known = [(code, review.meaning) for code, review in REVIEWS.items()]
        return [*known, ("other", "another reason: its last problem")]

    def queryset(self, request: HttpRequest, queryset: Refunds) -> Refunds:
        match self.value():
            case None:
                return queryset
            case "other":
                return queryset.filter(WAITING).exclude(review_code__in=REVIEWS)
            case code:
                return queryset.filter(WAITING, review_code=code)


@admin.register(Refund)
class RefundAdmin(ExportsAdmin, LeasedAdmin):
    exported = REFUNDS
    stands, briefly = standing("status"), standing("status", short=True)
    payment = identifier("payment_id", "payment", chars=30)
    refund_id = identifier("stripe_refund_id", "refund id", otherwise="none that is known")
    key = identifier("idempotency_key", "idempotency key")
    first_sent = moment("first_sent_at", "first sent")
    approved_on = moment("approved_at", "approved")
    who_approved = foreign("approved_by", "by")
    why_approved = foreign("approval", "why")

    list_display = (
        "booking",
        "step",
        "briefly",
        "next_briefly",
        "amount",
        "payment",
        "at_stripe",
        "attempts",
        "updated",
    )
    sortable_by = ("booking", "payment")  # by an index; the others would sort the whole table
    list_filter = (
        PersonFilter,
        ReviewFilter,
        column_filter("status", lambda: Status.choices),
        column_filter("stripe_status", lambda: StripeStatus.choices, title="Stripe's status"),
        DueFilter,
    )
    search_fields = ("booking_id", "payment_id", "stripe_refund_id", "idempotency_key")
    search_help_text = "A whole booking id, payment id, refund id or key"
    decisions = (APPROVE, TRY_NOW, SETTLE, REISSUE)
    groups = ((WAITING, LONGEST_WAITING), (UNDER_WAY, NEXT_DUE), (REST, None))
    waiting = WAITING

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        refund = ("whose", "step", "more", "payment_at_stripe", "amount", "created")
        approval = ("approved_on", "who_approved", "in_spite_of", "why_approved")
        stripe = (
            "refund_id",
            "its_status",
            "first_sent",
            "key",
            "request_as_text",
            "response_as_text",
        )
        facts, *settlement = super().get_fieldsets(request, obj)
        if obj is not None and obj.needs_review:
            why = ["why_it_waits"] if obj.review_code else []
            facts[1]["fields"][1:1] = [*why, "what_to_do"]
        if obj is not None and obj.approved_at:
            settlement.append(("Approval", {"fields": approval}))
        return [
            facts,
            *settlement,
            ("Refund", {"fields": refund}),
            ("Stripe", {"fields": stripe}),
        ]

    def get_queryset(self, request: HttpRequest) -> Refunds:
        return super().get_queryset(request).defer("request_payload", "response_payload")

    # What the list shows.

    @admin.display(description="at Stripe")
    def at_stripe(self, refund: Refund) -> str:
        return visible(refund.stripe_status).replace("_", " ") or "-"

    @admin.display(description="step")
    def step(self, refund: Refund) -> str:
        return step_of(refund)

    # What the page shows.

    @admin.display(description="why it waits")
    def why_it_waits(self, refund: Refund) -> str:
        return visible(meaning_of(refund.review_code))

    @admin.display(description="what to do")
    def what_to_do(self, refund: Refund) -> str:
        return advice_for(refund)

    @admin.display(description="in spite of")
    def in_spite_of(self, refund: Refund) -> SafeString:
        return lines(visible(meaning_of(code)) for code in sorted(refund.approved))

    def waits(self, refund: Refund) -> bool:
        return refund.needs_review

    def at_the_end(self, refund: Refund) -> str:
        match refund.status:
            case Status.COMPLETED:
                return "nothing: done"
            case Status.FAILED:
                return "nothing: it can't be made"
        return "nothing by itself, though it is not done: try it now"

    @admin.display(description="payment")
    def payment_at_stripe(self, refund: Refund) -> SafeString:
        test = "test/" if settings.STRIPE_SECRET_KEY.startswith(("sk_test_", "rk_test_")) else ""
        return format_html(
            '<a href="{}" target="_blank" rel="noopener noreferrer">{}</a> (in Stripe\'s dashboard)',
            f"https://dashboard.stripe.com/{test}payments/{quote(refund.payment_id, safe='')}",
            exact(refund.payment_id),
        )

    @admin.display(description="status at Stripe")
    def its_status(self, refund: Refund) -> str:
        known = {str(value): str(text) for value, text in StripeStatus.choices}
        return known.get(refund.stripe_status) or visible(refund.stripe_status) or "-"

    @admin.display(description="request")
    def request_as_text(self, refund: Refund) -> SafeString | str:
        return _as_json(refund.request_payload) if refund.request_payload else "none yet"

    @admin.display(description="response")
    def response_as_text(self, refund: Refund) -> SafeString | str:
        return _as_json(refund.response_payload) if refund.response_payload else "none yet"

    # What people decide.

    def named(self, record: Any) -> str:
        return f"{exact(record.booking_id)} ({record.amount})"

    def is_open(self, record: Any, how: Decision) -> bool:
        if how is TRY_NOW:
            return not has_worker(record)
        if how is APPROVE:
            return not obstacle_to_approval(record)
        return record.needs_review and not (how is REISSUE and record.stripe_refund_id)

    def obstacle(self, record: Any, how: Decision) -> str:
        if how is APPROVE:
            return obstacle_to_approval(record)
        return super().obstacle(record, how) if how is SETTLE else ""

    def obstacle_with_others(self, record: Any, how: Decision) -> str:
        return obstacle_to_approval_with_others(record) if how is APPROVE else ""

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        why = {"Why it waits": visible(meaning_of(record.review_code))} if how is APPROVE else {}
        advice = {"What to do": advice_for(record)} if how in (APPROVE, SETTLE) else {}
        key = {"Key until now": visible(record.idempotency_key)} if how is REISSUE else {}
        return {
            "Booking": exact(record.booking_id),
            **why,
            "Step": step_of(record),
            "Amount": record.amount,
            "Payment": exact(record.payment_id),
            "What is next": visible(self.what_is_next(record)),
            **advice,
            **key,
        }

    def history_of(self, record: Any, how: Decision, why: str) -> str:
        if how is TRY_NOW:
            return f"to be {TRY_NOW.done}, under the same key"
        if how is APPROVE:
            return f"approved in spite of this: {meaning_of(record.review_code)}. {why}"
        if how is REISSUE:
            looked = "Seen in Stripe's dashboard: no refund for this booking"
            return f"{how.done}: {why}. {looked}. The key before: {record.idempotency_key}"
        return super().history_of(record, how, why)

    def done(self, row: Any, how: Decision, *, by: str, why: str) -> bool:
        if how is TRY_NOW:
            return bool(row.try_again())
        if how is APPROVE:
            return bool(row.approve(by=by, why=why))
        if how is REISSUE:
            return bool(row.reissue())
        return super().done(row, how, by=by, why=why)

    def decide(self, request: HttpRequest, listed: Refunds, how: Decision) -> HttpResponse | None:
        if how is REISSUE:
            return self._reissue(request, listed)
        return super().decide(request, listed, how)

    def _reissue(self, request: HttpRequest, listed: Refunds) -> HttpResponse | None:
        """Check with Stripe before the form is shown, and again before the refund is re-issued.

        The row is read before Stripe is asked, and written only as it was read. No transaction is
        open meanwhile: the admin's lists run in none.
        """
        chosen = self.chosen(request, listed)
        if len(selected := list(chosen[:2])) != 1:
            problem = (
                "Refunds are re-issued one at a time, each after a look at Stripe: select one."
            )
            self.message_user(request, problem, messages.WARNING)
            return None
        [refund] = selected
        form = ReissueForm.about([refund], request)
        obstacle = "" if form.has_shown(refund) else "it changed since it was shown"
        obstacle = obstacle or attempts.obstacle_to_reissue(refund, clock.now())
        asked = f"{localtime():%H:%M:%S %Z}"
        if obstacle:
            obstacle = visible(f"It can't be re-issued ({asked}): {obstacle}.")
            return self.ask(request, chosen, REISSUE, None, obstacle=obstacle)
        if not form.is_valid():
            note = (
                f"Stripe was asked at {asked}: it lists no refund of this payment, or only those "
                "that the platform made for other bookings."
            )
            return self.ask(request, chosen, REISSUE, form, note=note)
        self.carry_out_each(request, [refund], REISSUE, form.cleaned_data["why"])
        return None


def step_of(refund: Refund) -> str:
    """Return which step of its booking's life a refund is for."""
    kept = refund.seats_remaining
    if kept == WHOLE_BOOKING:
        return "whole booking" if refund.step_named else "not named: taken for the whole booking"
    return f"keeps {kept} seat{'' if kept == 1 else 's'}"


def _as_json(payload: Any) -> SafeString:
    text = json.dumps(payload, ensure_ascii=False).encode(errors="replace")
    return format_html('<pre class="body">{}</pre>', as_text(text, complete=True))
