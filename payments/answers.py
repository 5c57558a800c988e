"""What Stripe says, as values.

What an answer does not prove is ``Unknown``. Only a refusal that Stripe itself worded, about this very
request, is a ``StripeRefusal``.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from booking_platform.money import format_money


@dataclass(frozen=True)
class Answered:
    """What every answer has: the id by which Stripe knows the request, where it names one."""

    request_id: str = field(default="", kw_only=True, compare=False)


@dataclass(frozen=True)
class StripeRefund(Answered):
    """A refund as Stripe has it."""

    refund_id: str
    status: str
    amount_minor: int
    currency: str
    payment_id: str  # of the payment intent; empty where the charge has none
    key: str  # ours, from its metadata; empty where it is not ours
    created_at: datetime
    record: dict[str, Any]  # what is kept of it
    charge_id: str = ""

    def __str__(self) -> str:
        amount = format_money(self.amount_minor, self.currency)
        why = self.record.get("failure_reason") or self.record.get("pending_reason")
        status = f"{self.status}: {why}" if why else self.status
        return f"Stripe has refund {self.refund_id} of {amount}: {status or 'no status'}"

    def is_of(self, payment_id: str) -> bool:
        """Return whether it is of a payment, whichever of its ids is given."""
        return payment_id in (self.payment_id, self.charge_id)


GIVEN_BACK = ("failed", "canceled")  # the money of such a refund is with the merchant again


@dataclass(frozen=True)
class StripePayment(Answered):
    """A payment as Stripe has it, with all its refunds, whoever made them."""

    intent_id: str  # empty where the charge has none
    charge_id: str  # empty where it was not paid yet
    status: str
    currency: str
    received_minor: int
    refunded_by_charge: int  # as Stripe adds it up; 0 where it does not say
    booking_id: str  # that its metadata name; empty where they name none
    refunds: list[StripeRefund]

    def __str__(self) -> str:
        received = format_money(self.received_minor, self.currency)
        if not self.refunds:
            return (
                f"Stripe has the payment, {self.status}, of {received}, and lists no refund of it"
            )
        listed = ", ".join(f"{one.refund_id} ({one.status})" for one in self.refunds)
        return f"Stripe has the payment, {self.status}, of {received}, and its refunds: {listed}"

    @property
    def ids(self) -> frozenset[str]:
        return frozenset({self.intent_id, self.charge_id} - {""})

    @property
    def processing(self) -> bool:
        """Whether it is neither paid nor failed yet."""
        return self.status in ("processing", "pending")

    @property
    def refunded_minor(self) -> int:
        """What is with the customer again, or on its way there."""
        listed = sum(one.amount_minor for one in self.refunds if one.status not in GIVEN_BACK)
        return max(listed, self.refunded_by_charge)


@dataclass(frozen=True)
class NoSuchPayment(Answered):
    """Stripe says that it has no payment of this id."""

    message: str

    def __str__(self) -> str:
        return f"Stripe has no such payment: {self.message}"


NO_BALANCE = "balance_insufficient"  # https://docs.stripe.com/error-codes#balance-insufficient


@dataclass(frozen=True)
class StripeRefusal(Answered):
    """Stripe refused this request for good; ``code`` is its own, or empty."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"Stripe refused: {self.message}" + (f" ({self.code})" if self.code else "")


@dataclass(frozen=True)
class OtherParameters(Answered):
    """Stripe knows the key, but with other parameters: a request was changed."""

    message: str

    def __str__(self) -> str:
        return f"Stripe knows the key with other parameters: {self.message}"


@dataclass(frozen=True)
class Unknown(Answered):
    """Nothing is proven: the request may have been executed or not.

    ``repeats``: Stripe keeps this answer under the key, and will give no other. Not ``reached``: it is
    proven that the request was not executed, and that Stripe remembers nothing of its key.
    """

    why: str
    repeats: bool = False
    reached: bool = True

    def __str__(self) -> str:
        return self.why


class InvalidWebhook(ValueError):
    """The body is not what Stripe signed, or not an event."""


@dataclass(frozen=True)
class Notice:
    """What a webhook speaks of: ids to find a refund by, where it names them."""

    event_type: str
    refund_id: str
    key: str
    payment_id: str
    charge_id: str = ""


Failure = StripeRefusal | OtherParameters | Unknown  # no refund, or none that is known
Answer = StripeRefund | Failure  # to a request for one refund
Look = StripePayment | NoSuchPayment | Unknown  # what there is at Stripe
