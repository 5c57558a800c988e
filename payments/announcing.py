"""What the payments announce of a refund: each change of what the world should know of it.

That is derived from the columns alone, as they were and as they are stored. What stays the same is not
told again: another look, an attempt that is made again later, a pending refund that the bank has now.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from booking_platform.contract.announcements import (
    RefundAnnouncement,
    RefundCompleted,
    RefundFailed,
    RefundNeedsReview,
    RefundRequested,
    RefundSettled,
)
from booking_platform.contract.announcing import Announced, announced
from booking_platform.money import major_units
from payments.answers import GIVEN_BACK
from payments.reviews import REVIEWS

IN_PROGRESS, COMPLETED, FAILED = "in_progress", "completed", "failed"  # as the model has them

# Where the store has no review code: Stripe's own words are not told.
REFUSED, SENT_BACK, TAKEN_BACK = "refused", "sent_back", "taken_back"
REQUIRES_ACTION, MISMATCH, UNCLEAR = "requires_action", "mismatch", "unclear"

REASONS = {code: review.meaning for code, review in REVIEWS.items()} | {
    REFUSED: "Stripe refused, and has no refund",
    SENT_BACK: "the bank sent the money back",
    TAKEN_BACK: "it was taken back before it went out",
    REQUIRES_ACTION: "the customer must do something before the money can go out",
    MISMATCH: "what Stripe has is not what the platform knows",
    UNCLEAR: "it is not clear what Stripe has",
}

_AT_STRIPE = {"failed": SENT_BACK, "canceled": TAKEN_BACK, "requires_action": REQUIRES_ACTION}


class Facts(NamedTuple):
    """The columns of a refund that announcements tell of."""

    event_id: str
    booking_id: str
    payment_id: str
    seats_remaining: int
    revision: int | None
    amount_asked: Decimal | None
    amount_minor: int | None
    currency: str
    status: str
    stripe_refund_id: str | None
    stripe_status: str
    needs_review: bool
    review_code: str
    settled_at: datetime | None


def of_new(facts: Facts, at: datetime) -> list[Announced]:
    """Return what is announced of a refund that is stored for the first time."""
    return [_announced(facts, 1, at)]


def of_change(before: Facts, after: Facts, *, told: int, at: datetime) -> Sequence[Announced]:
    """Return what is announced of a change; ``told`` is how many announcements there were before."""
    if _payload(before, told) == _payload(after, told):
        return ()
    return [_announced(after, told + 1, at)]


def _announced(facts: Facts, version: int, at: datetime) -> Announced:
    payload = _payload(facts, version)
    # The version makes it one of its kind: what is refused, approved and refused again is new.
    return announced(payload, cause=msgspec.json.encode(payload).decode(), at=at)


def _payload(facts: Facts, version: int) -> RefundAnnouncement:
    amount, currency = _amount(facts)
    columns: dict[str, Any] = {
        "booking_id": facts.booking_id,
        "payment_id": facts.payment_id,
        "seats_remaining": facts.seats_remaining,
        "revision": facts.revision,
        "amount": amount,
        "currency": currency,
        "refund_id": facts.stripe_refund_id or None,
        "status": facts.status,
        "version": version,
        "caused_by": facts.event_id or None,
    }
    kind = _kind(facts)
    reason = _reason(facts) if kind in (RefundFailed, RefundNeedsReview) else None
    return kind(**columns, reason=reason)


def _kind(facts: Facts) -> type[RefundAnnouncement]:
    if facts.settled_at and not facts.needs_review:
        return RefundSettled
    if facts.status == FAILED or facts.stripe_status in GIVEN_BACK:
        return RefundFailed
    if facts.needs_review:
        return RefundNeedsReview
    return RefundCompleted if facts.status == COMPLETED else RefundRequested


def _reason(facts: Facts) -> str:
    if facts.review_code:
        return facts.review_code
    if facts.stripe_status in _AT_STRIPE:
        return _AT_STRIPE[facts.stripe_status]
    return {FAILED: REFUSED, COMPLETED: MISMATCH}.get(facts.status, UNCLEAR)


def _amount(facts: Facts) -> tuple[Decimal, str | None]:
    """Return the amount in major units, and its currency where that is known."""
    if facts.amount_minor is None:
        return facts.amount_asked or Decimal(0), facts.currency or None
    return Decimal(major_units(facts.amount_minor, facts.currency)), facts.currency or None
