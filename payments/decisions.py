"""The decisions that people take about refunds: each with its right, its words, and what forbids it."""

from django import forms
from django.conf import settings
from unfold.widgets import UnfoldBooleanWidget

from booking_platform.operations.decisions import Decision
from booking_platform.operations.leased import SeenForm, settling
from payments.models import Refund
from payments.reviews import REVIEWS

SWEEP = f"within {settings.SWEEP_SECONDS:g} seconds"

APPROVE = Decision(
    action="approve",
    permission="payments.approve_refund",
    listed="Approve: send it",
    title="Approve {}",
    done=f"approved, and taken up by the next sweep, {SWEEP}",
    undone="not approved",
    explanation="Says that the money is to go out in spite of what is shown here. The next sweep, "
    f"{SWEEP}, looks at the payment once more and sends the refund. If anything else stands against "
    "it, it waits for a person again, and no money has moved.",
)
TRY_NOW = Decision(
    action="try_now",
    permission="payments.retry_refund",
    listed="Try now: by the next sweep, under the same key",
    title="Try {} now",
    done=f"taken up by the next sweep, {SWEEP}",
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
    explanation=f"The next sweep sends the refund again, {SWEEP}, as a new request. Stripe "
    "recognises a repeat by its key alone: with a new key it would refund a second time what it has "
    "refunded already.",
)


class ReissueForm(SeenForm):
    looked = forms.BooleanField(
        widget=UnfoldBooleanWidget,
        label="I have seen in Stripe's dashboard that this payment has no refund for this booking",
    )
    field_order = ("looked", "why")


def meaning_of(code: str) -> str:
    """Return what a review code means; the code itself where this version does not know it."""
    return REVIEWS[code].meaning if code in REVIEWS else code


def advice_for(refund: Refund) -> str:
    """Return what a person can do about a refund that waits, and what can't help."""
    if refund.stripe_refund_id:
        return (
            "Compare it with Stripe's dashboard. Have Stripe asked again by trying now, or mark it settled if "
            "the customer has the money."
        )
    if review := REVIEWS.get(refund.review_code):
        return review.advice
    return (
        "Look at the payment in Stripe's dashboard. If the customer has the money, mark it settled. If the cause "
        "is gone, try now, under the same key. Re-issue it under a new key only if Stripe keeps its old answer "
        "under this one."
    )


def obstacle_to_approval(refund: Refund) -> str:
    """Return why a refund can't be approved as it is; empty if it can."""
    if not refund.needs_review:
        return "it does not wait for a person"
    if refund.settled:
        return "a person has settled it"
    if refund.stripe_refund_id:
        return "Stripe has made it already"
    review = REVIEWS.get(refund.review_code)
    if review is None or not review.approvable:
        waits_for = f" ({meaning_of(refund.review_code)})" if refund.review_code else ""
        return f"what it waits for can't be approved{waits_for}"
    return ""


def obstacle_to_approval_with_others(refund: Refund) -> str:
    """Return why a refund can't be approved together with others; empty if it can."""
    review = REVIEWS.get(refund.review_code)
    if review is None or review.at_once:
        return ""
    return f"it must be looked at and approved alone ({review.meaning})"
