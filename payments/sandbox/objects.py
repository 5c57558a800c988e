"""What Stripe's objects look like, as far as the sandbox has them."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from booking_platform.money import major_units

Object = dict[str, Any]

SYMBOLS = {"eur": "€", "gbp": "£", "usd": "$"}


def new_id(prefix: str) -> str:
    """Make an id that no other run of the sandbox gives: databases outlive it."""
    return f"{prefix}_{uuid4().hex[:24]}"


@dataclass
class Payment:
    """A payment intent that succeeded, and its one charge."""

    amount: int  # in minor units
    currency: str
    created: int
    id: str = field(default_factory=lambda: new_id("pi"))
    charge: str = field(default_factory=lambda: new_id("ch"))
    metadata: dict[str, str] = field(default_factory=dict)
    disputed: bool = False
    refund_status: str = "succeeded"  # what its refunds begin as


def intent(payment: Payment) -> Object:
    """https://docs.stripe.com/api/payment_intents/object."""
    return {
        "id": payment.id,
        "object": "payment_intent",
        "amount": payment.amount,
        "amount_received": payment.amount,
        "created": payment.created,
        "currency": payment.currency,
        "latest_charge": payment.charge,
        "livemode": False,
        "metadata": dict(payment.metadata),
        "status": "succeeded",
    }


def charge(payment: Payment, *, refunded: int) -> Object:
    """https://docs.stripe.com/api/charges/object."""
    return {
        "id": payment.charge,
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": payment.amount,
        "amount_refunded": refunded,
        "captured": True,
        "created": payment.created,
        "currency": payment.currency,
        "disputed": payment.disputed,
        "livemode": False,
        "metadata": dict(payment.metadata),
        "paid": True,
        "payment_intent": payment.id,
        "refunded": refunded >= payment.amount,
        "status": "succeeded",
    }


def new_refund(payment: Payment, amount: int, now: int) -> Object:
    """https://docs.stripe.com/api/refunds/object.

    ``failure_reason`` is only there once a refund failed, as observed in test mode.
    """
    refund: Object = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": new_id("txn"),
        "charge": payment.charge,
        "created": now,
        "currency": payment.currency,
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": {},
        "payment_intent": payment.id,
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": payment.refund_status,
        "transfer_reversal": None,
    }
    return refund | ({"failure_reason": "unknown"} if refund["status"] == "failed" else {})


def money(units: int, currency: str) -> str:
    """Write an amount as in Stripe's messages; $ and € are known, the other signs are guessed."""
    sign = SYMBOLS.get(currency, f"{currency.upper()} ")
    return f"{sign}{major_units(units, currency)}"
