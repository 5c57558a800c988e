"""The columns of refunds as CSV."""

from booking_platform.money import major_units
from booking_platform.operations.exports import Column, columns


def _amount(minor: int | None, currency: str, asked: object) -> object:
    """Return an amount in major units; where its currency is not known yet, as the event says it."""
    return asked if minor is None else major_units(minor, currency)


REFUNDS = (
    *columns("booking_id", "payment_id", "seats_remaining", "step_named", "event_id"),
    Column("amount", ("amount_minor", "currency", "amount_asked"), _amount),
    *columns("currency", "status", "stripe_refund_id", "stripe_status", "idempotency_key"),
    *columns("needs_review", "review_code"),
    Column("last_error", foreign=True),
    *columns(
        "attempts", "next_attempt_at", "created_at", "cancelled_at", "first_sent_at", "updated_at"
    ),
    *columns("approved_at", "approved_by", "approved_codes"),
    Column("approval", foreign=True),
    *columns("settled_at", "settled_by"),
    Column("settlement", foreign=True),
)
