"""The admin of refunds: what becomes of each by itself, and what people decide about them."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ORDER_VAR
from django.core.paginator import Page, Paginator
from django.db import models
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import localtime

from booking_platform.messaging.admin import (
    BOOKING_RECORDS,
    MOST_AT_ONCE,
    OUTCOMES,
    Decision,
    DecisionsAdmin,
    ReasonForm,
    as_text,
    moment,
    records_of,
    visible,
)
from payments import attempts, cancellations
from payments.listing import (
    ORDERING,
    DueFilter,
    InGroups,
    ReviewFilter,
    StatusFilter,
    StripeStatusFilter,
    because,
    has_worker,
    next_attempt,
    what_is_next,
)
from payments.models import IdempotencyStore

if TYPE_CHECKING:
    RefundPaginator = Paginator[IdempotencyStore]
    RefundPage = Page[IdempotencyStore]
    Refunds = models.QuerySet[IdempotencyStore]
else:
    RefundPaginator, RefundPage, Refunds = Paginator, Page, models.QuerySet

BOOKING_RECORDS[IdempotencyStore] = "booking_id"
OUTCOMES.update(cancellations.Outcome.choices)

Status = IdempotencyStore.Status

TRY_NOW = Decision(
    action="try_now",
    title="Try {} now",
    done=f"taken up by the next sweep, within {settings.SWEEP_SECONDS:g} seconds",
    explanation="The next sweep takes it up: it asks Stripe what there is, and sends at most under "
    "the same key, so never a second refund. If it was refunded by hand, mark it settled instead.",
    why_required=False,
    asks=False,
)
SETTLE = Decision(
    action="settle",
    title="Mark {} settled",
    done="marked settled",
    explanation="Closed by a person, who has seen to it elsewhere or decided that nothing is to be "
    "done. Nothing is sent to Stripe any more; what Stripe tells of it later is still recorded.",
)
REISSUE = Decision(
    action="reissue",
    title="Re-issue {} under a new key",
    done="re-issued under a new key",
    explanation="Sends the refund again as a new request. Stripe recognises a repeat by its key "
    "alone: with a new key it would refund a second time what it has refunded already.",
)


def as_seen(refund: IdempotencyStore) -> str:
    """Name a refund as a page has shown it: a decision is about that, not about what came since."""
    return f"{refund.pk}@{refund.updated_at.isoformat()}"


def foreign(
    field: str, label: str, *, chars: int | None = None, otherwise: str = "-"
) -> Callable[[Any, Any], str]:
    """Make a column of text that others wrote, cut where it would push the rest aside."""

    @admin.display(description=label, ordering=field)
    def column(_admin: Any, row: Any) -> str:
        text = visible(getattr(row, field) or otherwise)
        return Truncator(text).chars(chars) if chars else text

    return column


class SettleForm(ReasonForm):
    seen = forms.CharField(widget=forms.HiddenInput)


class ReissueForm(SettleForm):
    looked = forms.BooleanField(
        label="I have seen in Stripe's dashboard that this payment has no refund for this booking"
    )
    field_order = ("looked", "why")


@admin.register(IdempotencyStore)
class IdempotencyStoreAdmin(DecisionsAdmin):
    booking = foreign("booking_id", "booking", chars=60)
    payment = foreign("payment_id", "payment", chars=30)
    whose = foreign("booking_id", "booking")
    last_problem = foreign("last_error", "last problem")
    refund_id = foreign("stripe_refund_id", "refund id", otherwise="none that is known")
    key = foreign("idempotency_key", "idempotency key")
    who_settled = foreign("settled_by", "by")
    why_settled = foreign("settlement", "why")
    created = moment("created_at", "created")
    updated = moment("updated_at", "updated")
    first_sent = moment("first_sent_at", "first sent")
    settled_on = moment("settled_at", "settled")

    change_list_template = "admin/payments/idempotencystore/change_list.html"
    change_form_template = "admin/payments/idempotencystore/change_form.html"
    list_display = (
        "booking",
        "short_status",
        "next_briefly",
        "amount",
        "payment",
        "at_stripe",
        "attempts",
        "updated",
    )
    sortable_by = ("booking", "payment")  # by an index; the others would sort the whole table
    ordering = ORDERING
    list_filter = (ReviewFilter, StatusFilter, StripeStatusFilter, DueFilter)
    search_fields = ("booking_id", "payment_id", "stripe_refund_id", "idempotency_key")
    search_help_text = "A whole booking id, payment id, refund id or key"
    actions = ("try_now", "settle", "reissue")
    decisions = (TRY_NOW, SETTLE, REISSUE)
    oldest_first = ("created_at", "pk")

    def get_fieldsets(self, request: HttpRequest, obj: IdempotencyStore | None = None) -> Any:
        standing = ["next", "marked_status", "attempts", "updated"]
        if obj is not None and not what_is_next(obj, timezone.now()).endswith(because(obj)):
            standing.insert(1, "last_problem")
        sections: list[Any] = [
            (None, {"fields": standing}),
            ("Refund", {"fields": ("whose", "more", "payment_at_stripe", "amount", "created")}),
            (
                "Stripe",
                {
                    "fields": (
                        "refund_id",
                        "its_status",
                        "first_sent",
                        "key",
                        "request_as_text",
                        "response_as_text",
                    )
                },
            ),
        ]
        if obj is not None and obj.settled:
            settlement = ("settled_on", "who_settled", "why_settled")
            sections.insert(1, ("Settlement", {"fields": settlement}))
        return sections

    def get_queryset(self, request: HttpRequest) -> Refunds:
        return super().get_queryset(request).defer("request_payload", "response_payload")

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **options: Any) -> Any:
        # Django asks for a paginator of the history too.
        grouped = queryset.model is IdempotencyStore and not request.GET.get(ORDER_VAR)
        return (InGroups if grouped else Paginator)(queryset, *args, **options)

    def get_search_results(
        self, request: HttpRequest, queryset: Refunds, search_term: str
    ) -> tuple[Refunds, bool]:
        """Look for the words as one id: a booking's may hold spaces and quotes."""
        words = search_term.strip()
        ids: list[Any] = [(field, words) for field in self.search_fields]
        return queryset.filter(Q.create(ids, connector=Q.OR)) if words else queryset, False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("payments.retry_refund")

    def has_settle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("payments.settle_refund")

    def has_reissue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("payments.reissue_refund")

    # What the list shows.

    @admin.display(description="status")
    def short_status(self, refund: IdempotencyStore) -> SafeString:
        return _marked(refund, refund.status.replace("_", " "))

    @admin.display(description="at Stripe")
    def at_stripe(self, refund: IdempotencyStore) -> str:
        return visible(refund.stripe_status).replace("_", " ") or "-"

    @admin.display(description="what is next")
    def next_briefly(self, refund: IdempotencyStore) -> str:
        return Truncator(visible(what_is_next(refund, timezone.now()))).chars(120)

    # What the page shows.

    @admin.display(description="what is next")
    def next(self, refund: IdempotencyStore) -> SafeString:
        return format_html("<strong>{}</strong>", visible(what_is_next(refund, timezone.now())))

    @admin.display(description="status")
    def marked_status(self, refund: IdempotencyStore) -> SafeString:
        return _marked(refund, refund.get_status_display())

    @admin.display(description="more of this booking")
    def more(self, refund: IdempotencyStore) -> SafeString:
        return records_of(refund.booking_id, but=refund)

    @admin.display(description="payment")
    def payment_at_stripe(self, refund: IdempotencyStore) -> SafeString:
        test = "test/" if settings.STRIPE_SECRET_KEY.startswith(("sk_test_", "rk_test_")) else ""
        return format_html(
            '<a href="{}" target="_blank" rel="noopener noreferrer">{}</a> (in Stripe\'s dashboard)',
            f"https://dashboard.stripe.com/{test}payments/{quote(refund.payment_id, safe='')}",
            visible(refund.payment_id),
        )

    @admin.display(description="status at Stripe")
    def its_status(self, refund: IdempotencyStore) -> str:
        known: dict[str, str] = {
            str(value): str(text) for value, text in IdempotencyStore.StripeStatus.choices
        }
        return known.get(refund.stripe_status) or visible(refund.stripe_status) or "-"

    @admin.display(description="request")
    def request_as_text(self, refund: IdempotencyStore) -> SafeString:
        return _as_json(refund.request_payload)

    @admin.display(description="response")
    def response_as_text(self, refund: IdempotencyStore) -> SafeString | str:
        return _as_json(refund.response_payload) if refund.response_payload else "none yet"

    # What people decide.

    def is_open(self, refund: IdempotencyStore, how: Decision) -> bool:
        if how is TRY_NOW:
            return not has_worker(refund)
        return refund.needs_review and not (how is REISSUE and refund.stripe_refund_id)

    def described(self, refund: IdempotencyStore, how: Decision) -> dict[str, object]:
        key = {"Key until now": visible(refund.idempotency_key)} if how is REISSUE else {}
        return {
            "Booking": visible(refund.booking_id),
            "Amount": refund.amount,
            "Payment": visible(refund.payment_id),
            "What is next": visible(what_is_next(refund, timezone.now())),
            **key,
        }

    @admin.action(
        description="Try now: by the next sweep, under the same key", permissions=["retry"]
    )
    def try_now(self, request: HttpRequest, queryset: Refunds) -> HttpResponse | None:
        done, problems = [], []
        chosen = self.chosen(request, queryset)
        left = chosen.count() - MOST_AT_ONCE  # before they leave what the list is filtered by
        for refund in chosen[:MOST_AT_ONCE]:
            if refund.try_again():
                done.append(_named(refund))
                self.log_change(request, refund, f"to be {TRY_NOW.done}, under the same key")
            else:
                problems.append(f"{_named(refund)}: not tried anew: {_why_not(refund)}")
        if left > 0:
            problems.append(f"Only the {MOST_AT_ONCE} oldest: do it again for the other {left}.")
        self.tell(request, done, problems, TRY_NOW)
        return None

    @admin.action(description="Mark settled: closed by a person", permissions=["settle"])
    def settle(self, request: HttpRequest, queryset: Refunds) -> HttpResponse | None:
        chosen = self.chosen(request, queryset)
        seen = " ".join(map(as_seen, chosen[:MOST_AT_ONCE]))
        form = SettleForm(_confirmed(request), initial={"seen": seen})
        if not form.is_valid():
            return self.ask(request, chosen, SETTLE, form)
        done, problems = [], []
        seen_then, why = form.cleaned_data["seen"].split(), form.cleaned_data["why"]
        for refund in chosen[:MOST_AT_ONCE]:
            if not refund.needs_review:
                problems.append(
                    f"{_named(refund)}: not marked settled: it does not wait for a person"
                )
            elif as_seen(refund) not in seen_then:
                problems.append(
                    f"{_named(refund)}: not marked settled: it changed since it was shown"
                )
            elif refund.settle(by=request.user.get_username(), why=why):
                done.append(_named(refund))
                self.log_change(request, refund, f"{SETTLE.done}: {why}")
            else:
                problems.append(f"{_named(refund)}: not marked settled: {_why_not(refund)}")
        self.tell(request, done, problems, SETTLE)
        return None

    @admin.action(description="Re-issue under a new key: one at a time", permissions=["reissue"])
    def reissue(self, request: HttpRequest, queryset: Refunds) -> HttpResponse | None:
        """Ask Stripe before the form is shown, and again before what it says is done.

        The row is read before Stripe is asked, and written only as it was read. No transaction is
        open meanwhile: the admin's lists run in none.
        """
        chosen = self.chosen(request, queryset)
        if len(selected := list(chosen[:2])) != 1:
            problem = (
                "Refunds are re-issued one at a time, each after a look at Stripe: select one."
            )
            self.message_user(request, problem, messages.WARNING)
            return None
        [refund] = selected
        form = ReissueForm(_confirmed(request), initial={"seen": as_seen(refund)})
        obstacle = ""
        if form.is_bound and form["seen"].value() != as_seen(refund):
            obstacle = "it changed since it was shown"
        obstacle = obstacle or attempts.obstacle_to_reissue(refund, timezone.now())
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
        self._reissue(request, refund, form.cleaned_data["why"])
        return None

    def _reissue(self, request: HttpRequest, refund: IdempotencyStore, why: str) -> None:
        done, problems = [], []
        if refund.reissue():
            done.append(
                f"{_named(refund)}. The next sweep sends it, within {settings.SWEEP_SECONDS:g} s."
            )
            looked = "Seen in Stripe's dashboard: no refund for this booking"
            old_key = f"The key before: {refund.idempotency_key}"
            self.log_change(request, refund, f"{REISSUE.done}: {why}. {looked}. {old_key}")
        else:
            problems.append(f"{_named(refund)}: not re-issued: {_why_not(refund)}")
        self.tell(request, done, problems, REISSUE)


def _named(refund: IdempotencyStore) -> str:
    return f"{refund.booking_id} ({refund.amount})"


def _confirmed(request: HttpRequest) -> Any:
    return request.POST if "confirmed" in request.POST else None


def _why_not(refund: IdempotencyStore) -> str:
    """Say why the row took no decision."""
    refund.refresh_from_db(fields=("lease_until",))
    if has_worker(refund):
        return f"a worker has it, {next_attempt(refund, timezone.now())}"
    return "it changed meanwhile: look at it again"


def _marked(refund: IdempotencyStore, status: str) -> SafeString:
    marks = {"needs review": refund.needs_review, "settled": refund.settled}
    shown = [(label.replace(" ", "-"), label) for label, there in marks.items() if there]
    marked = format_html_join("", ' <strong class="mark {}">{}</strong>', shown)
    return format_html("{}{}", status, marked)


def _as_json(payload: Any) -> SafeString:
    text = json.dumps(payload, ensure_ascii=False).encode(errors="replace")
    return format_html('<pre class="body">{}</pre>', as_text(text, complete=True))
