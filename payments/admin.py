"""The admin of refunds: what becomes of each by itself, and what people decide about them."""

import json
from typing import Any
from urllib.parse import quote

from django import forms
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
from booking_platform.operations.leased import (
    LONGEST_WAITING,
    NEXT_DUE,
    DueFilter,
    LeasedAdmin,
    PersonFilter,
    SeenForm,
    has_worker,
    settling,
    standing,
)
from booking_platform.operations.records import (
    BOOKING_RECORDS,
    as_text,
    column_filter,
    exact,
    identifier,
    moment,
    visible,
)
from payments import attempts
from payments.models import Refund

Refunds = models.QuerySet[Refund]

BOOKING_RECORDS[Refund] = "booking_id"

Status, StripeStatus = Refund.Status, Refund.StripeStatus

WAITING = Q(needs_review=True)
UNDER_WAY = Q(needs_review=False, status=Status.IN_PROGRESS, settled_at__isnull=True)
REST = Q(needs_review=False) & (~Q(status=Status.IN_PROGRESS) | Q(settled_at__isnull=False))

TRY_NOW = Decision(
    action="try_now",
    permission="payments.retry_refund",
    listed="Try now: by the next sweep, under the same key",
    title="Try {} now",
    done=f"taken up by the next sweep, within {settings.SWEEP_SECONDS:g} seconds",
    undone="not tried anew",
    explanation="The next sweep takes it up: it asks Stripe what there is, and sends at most under "
    "the same key, so never a second refund. If it was refunded by hand, mark it settled instead.",
    why_required=False,
    asks=False,
)
SETTLE = settling(
    "Nothing is sent to Stripe any more; what Stripe tells of it later is still recorded.",
    permission="payments.settle_refund",
)
REISSUE = Decision(
    action="reissue",
    permission="payments.reissue_refund",
    listed="Re-issue under a new key: one at a time",
    title="Re-issue {} under a new key",
    done="re-issued under a new key",
    undone="not re-issued",
    explanation="The next sweep sends the refund again, within "
    f"{settings.SWEEP_SECONDS:g} seconds, as a new request. Stripe recognises a repeat by its key "
    "alone: with a new key it would refund a second time what it has refunded already.",
)


class ReissueForm(SeenForm):
    looked = forms.BooleanField(
        label="I have seen in Stripe's dashboard that this payment has no refund for this booking"
    )
    field_order = ("looked", "why")


@admin.register(Refund)
class RefundAdmin(LeasedAdmin):
    stands, briefly = standing("status"), standing("status", short=True)
    payment = identifier("payment_id", "payment", chars=30)
    refund_id = identifier("stripe_refund_id", "refund id", otherwise="none that is known")
    key = identifier("idempotency_key", "idempotency key")
    first_sent = moment("first_sent_at", "first sent")

    change_list_template = "admin/payments/refund/change_list.html"
    list_display = (
        "booking",
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
        column_filter("status", lambda: Status.choices),
        column_filter("stripe_status", lambda: StripeStatus.choices, title="Stripe's status"),
        DueFilter,
    )
    search_fields = ("booking_id", "payment_id", "stripe_refund_id", "idempotency_key")
    search_help_text = "A whole booking id, payment id, refund id or key"
    decisions = (TRY_NOW, SETTLE, REISSUE)
    groups = ((WAITING, LONGEST_WAITING), (UNDER_WAY, NEXT_DUE), (REST, None))
    waiting = WAITING

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        refund = ("whose", "more", "payment_at_stripe", "amount", "created")
        stripe = (
            "refund_id",
            "its_status",
            "first_sent",
            "key",
            "request_as_text",
            "response_as_text",
        )
        return [
            *super().get_fieldsets(request, obj),
            ("Refund", {"fields": refund}),
            ("Stripe", {"fields": stripe}),
        ]

    def get_queryset(self, request: HttpRequest) -> Refunds:
        return super().get_queryset(request).defer("request_payload", "response_payload")

    # What the list shows.

    @admin.display(description="at Stripe")
    def at_stripe(self, refund: Refund) -> str:
        return visible(refund.stripe_status).replace("_", " ") or "-"

    # What the page shows.

    def waits(self, refund: Refund) -> bool:
        return refund.needs_review

    def at_the_end(self, refund: Refund) -> str:
        match refund.status:
            case Status.COMPLETED:
                return "nothing: done"
            case Status.FAILED:
                return "nothing: Stripe refused it"
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
    def request_as_text(self, refund: Refund) -> SafeString:
        return _as_json(refund.request_payload)

    @admin.display(description="response")
    def response_as_text(self, refund: Refund) -> SafeString | str:
        return _as_json(refund.response_payload) if refund.response_payload else "none yet"

    # What people decide.

    def named(self, record: Any) -> str:
        return f"{exact(record.booking_id)} ({record.amount})"

    def is_open(self, record: Any, how: Decision) -> bool:
        if how is TRY_NOW:
            return not has_worker(record)
        return record.needs_review and not (how is REISSUE and record.stripe_refund_id)

    def obstacle(self, record: Any, how: Decision) -> str:
        return super().obstacle(record, how) if how is SETTLE else ""

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        key = {"Key until now": visible(record.idempotency_key)} if how is REISSUE else {}
        return {
            "Booking": exact(record.booking_id),
            "Amount": record.amount,
            "Payment": exact(record.payment_id),
            "What is next": visible(self.what_is_next(record)),
            **key,
        }

    def history_of(self, record: Any, how: Decision, why: str) -> str:
        if how is TRY_NOW:
            return f"to be {TRY_NOW.done}, under the same key"
        if how is REISSUE:
            looked = "Seen in Stripe's dashboard: no refund for this booking"
            return f"{how.done}: {why}. {looked}. The key before: {record.idempotency_key}"
        return super().history_of(record, how, why)

    def done(self, row: Any, how: Decision, *, by: str, why: str) -> bool:
        if how is TRY_NOW:
            return bool(row.try_again())
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


def _as_json(payload: Any) -> SafeString:
    text = json.dumps(payload, ensure_ascii=False).encode(errors="replace")
    return format_html('<pre class="body">{}</pre>', as_text(text, complete=True))
