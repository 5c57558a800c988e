"""Attempts at refunds: what ``refunds`` plans, asked of Stripe under a lease."""

import logging
from datetime import datetime

import structlog
from django.utils import timezone
from prometheus_client import Counter

from booking_platform.messaging import leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.retention import LONGEST_RETRY
from payments import stripe_gateway
from payments.models import NAMESPACE, IdempotencyStore
from payments.refunds import Evidence, Plan, described, is_ours, judge, made_by_hand, plan
from payments.stripe_gateway import OtherParameters, Refund, Refused, Unknown

log = structlog.get_logger(__name__)

REFUND_ATTEMPTS = Counter(
    "refund_attempts_total", "Attempts at refunds, by what they came to.", ["result"]
)


def attempt(pk: int) -> None:
    """Attempt a refund that is due; return when the outcome is committed, or left to the next."""
    leases.attempt(IdempotencyStore.objects.filter(pk=pk), _act)


def carry_on(refund: IdempotencyStore) -> None:
    """Attempt a refund that this worker has under lease."""
    leases.carry_on(refund, _act)


def obstacle_to_reissue(refund: IdempotencyStore, now: datetime) -> str:
    """Say why a refund must not be sent under a new key; nothing if it may. Asks Stripe.

    Nothing of it may be there, and the old key must have been refused or be forgotten: a request
    under it that is still on its way would be a second refund.
    """
    if refund.stripe_refund_id or refund.settled or not refund.needs_review:
        return "only a refund that waits for a person, and that Stripe does not have, can be"
    if refund.status != IdempotencyStore.Status.FAILED and refund.first_sent_at is not None:
        forgotten = refund.first_sent_at + LONGEST_RETRY
        if now < forgotten:
            return (
                f"Stripe may still act on the key that was sent: wait until {forgotten:%F %R} UTC"
            )
    listed = _listed(refund.payment_id)
    if isinstance(listed, Unknown):
        return f"what Stripe has is not known: {listed.why}"
    for one in listed:
        if is_ours(refund, one) or not one.key.startswith(NAMESPACE):
            return f"Stripe lists a refund of this payment: {described([one])}"
    return ""


def _act(refund: IdempotencyStore) -> Conclusion:
    try:
        conclusion = _ask(refund)
    except LeaseLost:
        raise
    except Exception as error:  # a bug of ours proves nothing about Stripe
        log.exception("A bug: the refund is tried again later", booking_id=refund.booking_id)
        unknown = Unknown(f"a bug: {type(error).__name__}")
        conclusion = judge(refund, Evidence(listed=unknown), timezone.now())
    if refund.settled and conclusion.columns.get("last_error") == refund.last_error:
        conclusion.columns["needs_review"] = False  # a person has dealt with just that
    _tell(refund, conclusion)
    return conclusion


def _ask(refund: IdempotencyStore) -> Conclusion:
    now = timezone.now()
    chosen = plan(refund, now)
    if chosen is not Plan.SEND:
        listed = _look(refund)
        if chosen is Plan.LOOK or not _may_send_after(refund, listed):
            return judge(refund, Evidence(listed=listed), now)
    if refund.first_sent_at is None:
        leases.write(refund, first_sent_at=now)
    return judge(refund, _send(refund), now)


def _may_send_after(refund: IdempotencyStore, listed: list[Refund] | Unknown) -> bool:
    """Tell whether a look leaves no doubt that a refund is still wanted."""
    if isinstance(listed, Unknown) or any(is_ours(refund, one) for one in listed):
        return False
    return not made_by_hand(refund, listed)


def _send(refund: IdempotencyStore) -> Evidence:
    """Send the request; where the answer settles it for good, ask for the list before a verdict."""
    leases.still_held(refund)
    sent = stripe_gateway.send(refund.request_payload, refund.idempotency_key)
    final = isinstance(sent, Refused) or (isinstance(sent, Unknown) and sent.repeats)
    return Evidence(sent, _look(refund) if final else None)


def _look(refund: IdempotencyStore) -> list[Refund] | Unknown:
    leases.still_held(refund)
    return _listed(refund.payment_id)


def _listed(payment_id: str) -> list[Refund] | Unknown:
    match stripe_gateway.look(payment_id):
        case Refused(code="resource_missing"):
            return []  # no such payment, so no refund of it
        case Refused(message=message) | OtherParameters(message=message):
            return Unknown(f"the list of refunds was refused: {message}")
        case listed:
            return listed


def _tell(refund: IdempotencyStore, conclusion: Conclusion) -> None:
    """Log and count what an attempt came to."""
    columns = conclusion.columns
    level, line = logging.INFO, "Refund as before"
    if columns.get("needs_review"):
        level, line = logging.WARNING, "Refund waits for a person"
    elif conclusion.again:
        level, line = logging.WARNING, "Refund not known to be done: tried again later"
    elif "status" in columns:
        line = "Refund completed"
    REFUND_ATTEMPTS.labels(line.lower()).inc()
    log.log(
        level,
        line,
        booking_id=refund.booking_id,
        payment_id=refund.payment_id,
        amount=refund.amount,
        attempt=refund.attempts,
        refund_id=columns.get("stripe_refund_id", refund.stripe_refund_id),
        stripe_status=columns.get("stripe_status", refund.stripe_status),
        why=columns.get("last_error") or None,
    )
