"""What Stripe says, as values.

What an answer does not prove is ``Unknown``. Only a refusal that Stripe itself worded, about this very
request, is a ``StripeRefusal``.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class StripeRefund:
    """A refund as Stripe has it."""

    refund_id: str
    status: str
    amount_minor: int
    currency: str
    payment_id: str
    key: str  # ours, from its metadata; empty where it is not ours
    created_at: datetime
    record: dict[str, Any]  # what is kept of it


@dataclass(frozen=True)
class StripeRefusal:
    """Stripe refused this request for good; ``code`` is its own, or empty."""

    code: str
    message: str


@dataclass(frozen=True)
class OtherParameters:
    """Stripe knows the key, but with other parameters: a request was changed."""

    message: str


@dataclass(frozen=True)
class Unknown:
    """Nothing is proven: the request may have been executed or not.

    ``repeats``: Stripe keeps this answer under the key, and will give no other.
    """

    why: str
    repeats: bool = False


class InvalidWebhook(ValueError):
    """The body is not what Stripe signed, or not an event."""


@dataclass(frozen=True)
class Notice:
    """What a webhook speaks of: ids to find a refund by, where it names them."""

    event_type: str
    refund_id: str
    key: str
    payment_id: str


Failure = StripeRefusal | OtherParameters | Unknown  # no refund, or none that is known
Answer = StripeRefund | Failure  # to a request for one refund
