"""Refunds in each state that staff can meet."""

from typing import Any

from django.utils import timezone

from payments.models import Refund
from tests.factories import RefundFactory
from tests.integration.admin_pages import in_


def in_progress(**columns: Any) -> Refund:
    return RefundFactory.create(**columns)


def completed(**columns: Any) -> Refund:
    booking = columns.setdefault("booking_id", f"done-{Refund.objects.count()}")
    given = {
        "status": "completed",
        "stripe_status": "succeeded",
        "stripe_refund_id": f"re_{booking}",
    }
    return RefundFactory.create(**(given | columns))


def refused(**columns: Any) -> Refund:
    """Store a refund that Stripe refused, and that a person looks at."""
    given = {
        "status": "failed",
        "needs_review": True,
        "first_sent_at": in_(hours=-1),
        "attempts": 1,
        "last_error": "Stripe refused, and lists no refund: Insufficient funds.",
    }
    return RefundFactory.create(**(given | columns))


def awaiting(review_code: str, **columns: Any) -> Refund:
    """Store a refund that was not sent, and that waits for a person because of a review code."""
    given = {"needs_review": True, "review_code": review_code, "last_error": "not sent"}
    return RefundFactory.create(**(given | columns))


def settled(**columns: Any) -> Refund:
    by = {"settled_at": timezone.now(), "settled_by": "ada", "settlement": "paid by hand"}
    return refused(**({"needs_review": False} | by | columns))
