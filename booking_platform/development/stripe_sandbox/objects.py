"""Stripe's objects, as far as the sandbox has them."""

import operator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from booking_platform.development.stripe_sandbox import parameters
from booking_platform.development.stripe_sandbox.errors import missing
from booking_platform.development.stripe_sandbox.parameters import Parameters
from booking_platform.money import major_units

Object = dict[str, Any]

PAGE = ("created", "ending_before", "limit", "starting_after")  # the parameters of a page
COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
USUAL, LARGEST = 10, 100  # objects on a page

GIVEN_BACK = ("failed", "canceled")  # the money of such a refund is with the merchant again

SYMBOLS = {"eur": "€", "gbp": "£", "usd": "$"}


def new_id(prefix: str) -> str:
    """Return an id that no other run of the sandbox uses: databases outlive the sandbox."""
    return f"{prefix}_{uuid4().hex[:24]}"


# What a payment intent's status says of its charge:
# https://docs.stripe.com/payments/paymentintents/lifecycle
CHARGE_STATUS = {
    "succeeded": "succeeded",
    "requires_capture": "succeeded",  # authorized: nothing is received yet
    "processing": "pending",
    "requires_payment_method": "failed",
    "canceled": "failed",
}


@dataclass
class Payment:
    """A payment intent and its one charge; or a charge alone, as it was before there were intents."""

    amount: int  # in minor units
    currency: str
    created: int
    id: str | None = field(default_factory=lambda: new_id("pi"))  # of the intent, if there is one
    charge: str = field(default_factory=lambda: new_id("ch"))
    metadata: dict[str, str] = field(default_factory=dict)
    status: str = "succeeded"  # of the intent: one of CHARGE_STATUS
    disputed: bool = False
    refund_status: str = "succeeded"  # of new refunds
    refunds: list[Object] = field(default_factory=list)  # oldest first

    @property
    def refunded(self) -> int:
        """Sum the refunds that are or will be with the customer, not the failed and cancelled."""
        return sum(each["amount"] for each in self.refunds if each["status"] not in GIVEN_BACK)

    @property
    def received(self) -> int:
        return self.amount if self.status == "succeeded" else 0

    @property
    def charge_status(self) -> str:
        return CHARGE_STATUS[self.status]


def intent(payment: Payment) -> Object:
    """Return the object of https://docs.stripe.com/api/payment_intents/object."""
    return {
        "id": payment.id,
        "object": "payment_intent",
        "amount": payment.amount,
        "amount_received": payment.received,
        "created": payment.created,
        "currency": payment.currency,
        "latest_charge": payment.charge if payment.charge_status == "succeeded" else None,
        "livemode": False,
        "metadata": dict(payment.metadata),
        "status": payment.status,
    }


def charge(payment: Payment) -> Object:
    """Return the object of https://docs.stripe.com/api/charges/object."""
    return {
        "id": payment.charge,
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": payment.received,
        "amount_refunded": payment.refunded,
        "captured": payment.status == "succeeded",
        "created": payment.created,
        "currency": payment.currency,
        "disputed": payment.disputed,
        "livemode": False,
        "metadata": dict(payment.metadata),
        "paid": payment.charge_status == "succeeded",
        "payment_intent": payment.id,
        "refunded": payment.refunded >= payment.amount,
        "status": payment.charge_status,
    }


def new_refund(
    payment: Payment, amount: int, metadata: dict[str, str], reason: str | None, *, now: int
) -> Object:
    """Return the object of https://docs.stripe.com/api/refunds/object.

    ``failure_reason`` is only there once a refund failed, as observed in test mode.
    """
    reference = {"reference_status": "pending", "reference_type": "acquirer_reference_number"}
    refund: Object = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": new_id("txn"),
        "charge": payment.charge,
        "created": now,
        "currency": payment.currency,
        "destination_details": {"card": {**reference, "type": "refund"}, "type": "card"},
        "metadata": metadata,
        "payment_intent": payment.id,
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": payment.refund_status,
        "transfer_reversal": None,
    }
    return refund | ({"failure_reason": "unknown"} if refund["status"] == "failed" else {})


def money(units: int, currency: str) -> str:
    """Return an amount as Stripe's messages have it; $ and € are known, the other signs are guessed."""
    sign = SYMBOLS.get(currency, f"{currency.upper()} ")
    return f"{sign}{major_units(units, currency)}"


def page(objects: list[Object], given: Parameters, *, kind: str, url: str) -> Object:
    """Return the list that a request asks for: one page, newest first. ``objects`` is oldest first.

    https://docs.stripe.com/api/pagination

    Raises:
        StripeError: a parameter can't be read, or names an object that is not in the list.
    """
    limit = parameters.integer(given, "limit", largest=LARGEST) or USUAL
    newest = objects[::-1]
    for how, second in parameters.created(given).items():
        newest = [each for each in newest if COMPARISONS[how](each["created"], second)]
    before = parameters.text(given, "ending_before")
    if before is not None:
        earlier = newest[: _position(newest, before, kind, "ending_before")]
        data, more = earlier[-limit:], len(earlier) > limit
    else:
        after = parameters.text(given, "starting_after")
        start = 0 if after is None else _position(newest, after, kind, "starting_after") + 1
        data, more = newest[start : start + limit], len(newest) > start + limit
    return {"object": "list", "data": data, "has_more": more, "url": url}


def _position(objects: list[Object], identifier: str, kind: str, param: str) -> int:
    for position, each in enumerate(objects):
        if each["id"] == identifier:
            return position
    raise missing(kind, identifier, param)
