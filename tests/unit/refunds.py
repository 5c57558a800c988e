"""Refunds and what Stripe says of them, as values."""

from datetime import UTC, datetime, timedelta
from typing import Any

from payments.answers import StripePayment, StripeRefund
from payments.keys import idempotency_key
from payments.models import Refund

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = idempotency_key("BK-1", "pi_1")


def row(**columns: Any) -> Refund:
    """Return a refund of 150 euros that was sent a minute ago and not heard of since."""
    known: dict[str, Any] = {
        "booking_id": "BK-1",
        "payment_id": "pi_1",
        "amount_minor": 15_000,
        "currency": "eur",
        "idempotency_key": KEY,
        "attempts": 2,
        "created_at": NOW - timedelta(hours=1),
        "first_sent_at": NOW - timedelta(minutes=1),
        "request_payload": {"payment_intent": "pi_1", "amount": 15_000},
    }
    return Refund(**{**known, **columns})


def new(**columns: Any) -> Refund:
    """Return a refund of which nothing was sent."""
    return row(**{"first_sent_at": None, "request_payload": {}, "attempts": 1} | columns)


def at_stripe(**fields: Any) -> StripeRefund:
    known = {
        "refund_id": "re_1",
        "status": "succeeded",
        "amount_minor": 15_000,
        "currency": "eur",
        "payment_id": "pi_1",
        "charge_id": "ch_1",
        "key": KEY,
        "created_at": NOW,
        "record": {},
    }
    return StripeRefund(**{**known, **fields})


def paid(*refunds: StripeRefund, **fields: Any) -> StripePayment:
    """Return a payment of 150 euros."""
    known = {
        "intent_id": "pi_1",
        "charge_id": "ch_1",
        "status": "succeeded",
        "currency": "eur",
        "received_minor": 15_000,
        "refunded_by_charge": 0,
        "booking_id": "",
        "refunds": list(refunds),
    }
    return StripePayment(**{**known, **fields})
