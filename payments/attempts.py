"""Attempts at refunds, each under a lease: look at the payment, send if that may be, store the rest.

``rules`` decides; what is here reads and writes.
"""

import logging
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog

from booking_platform.messaging import clock, leases
from booking_platform.messaging.attempt_log import Said
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.metrics import Counter
from payments import rules, stripe_gateway
from payments.answers import (
    GIVEN_BACK,
    Answer,
    Look,
    NoSuchPayment,
    OtherParameters,
    StripePayment,
    StripeRefund,
    StripeRefusal,
    Unknown,
)
from payments.examining import Beside, Terms, frozen
from payments.keys import booking_key, booking_of, without_issue
from payments.models import Refund
from payments.rules import Evidence

log = structlog.get_logger(__name__)

REFUND_ATTEMPTS = Counter(
    "refund_attempts_total", "Attempts at refunds, by what they came to.", ["result"]
)


AS_BEFORE, COMPLETED = "Refund as before", "Refund completed"


def attempt(refund: Refund) -> Conclusion:
    """Ask Stripe for a refund that this worker has under lease."""
    try:
        conclusion, said = _ask(refund)
    except LeaseLost:
        raise
    except Exception as error:  # a bug of ours proves nothing about Stripe
        log.exception("A bug: the refund is tried again later", booking_id=refund.booking_id)
        said = Unknown(f"a bug: {type(error).__name__}")
        conclusion = rules.judge(refund, Evidence(listed=said), clock.now())
    level, line = _line(refund, conclusion)
    return replace(
        conclusion,
        tell=partial(_tell, refund, conclusion, level, line),
        said=Said(line, str(said), said.request_id),
    )


def obstacle_to_reissue(refund: Refund, now: datetime) -> str:
    """Return why a refund must not be sent under a new key; empty if it may. Asks Stripe."""
    obstacle = rules.obstacle_to_reissue(refund, now)
    return obstacle or rules.obstacle_in_list(refund, rules.listed_in(_at_stripe(refund)))


def _ask(refund: Refund) -> tuple[Conclusion, Answer | Look]:
    """Return what becomes of a refund, and the answer of Stripe's from which that follows."""
    now = clock.now()
    look = _look(refund)
    terms = rules.after_look(refund, look, now, partial(_beside, refund))
    if isinstance(terms, Conclusion):
        return terms, look
    if not refund.sent:
        _freeze(refund, terms, now)
    sent, listed = _send(refund)
    return rules.judge(refund, Evidence(sent, listed), now), sent


def _freeze(refund: Refund, terms: Terms, now: datetime) -> None:
    """Commit what is sent from here on, and that it is sent.

    ``first_sent_at`` stays as it was in this process: the verdict asks whether this was the first time.
    """
    columns = frozen(refund, terms)
    leases.write(refund, first_sent_at=now, **columns)
    for name, value in columns.items():
        setattr(refund, name, value)


def _send(refund: Refund) -> tuple[Answer, list[StripeRefund] | Unknown | None]:
    """Send the request. If the answer is final, get the list too, as a verdict needs both."""
    leases.still_held(refund)
    sent = stripe_gateway.send(refund.request_payload, refund.idempotency_key)
    final = isinstance(sent, StripeRefusal) or (isinstance(sent, Unknown) and sent.repeats)
    return sent, rules.listed_in(_look(refund)) if final else None


def _look(refund: Refund) -> Look:
    leases.still_held(refund)
    return _at_stripe(refund)


def _at_stripe(refund: Refund) -> Look:
    match stripe_gateway.look(refund.payment_id):
        case StripeRefusal(code="resource_missing", message=message, request_id=request_id):
            return NoSuchPayment(message, request_id=request_id)
        case StripeRefusal(message=message) | OtherParameters(message=message) as refused:
            why = f"the look at the payment was refused: {message}"
            return Unknown(why, request_id=refused.request_id)
        case look:
            return look


def _beside(refund: Refund, payment: StripePayment) -> Beside:
    """Return what the store knows beside a refund of its payment."""
    of_booking = Refund.objects.filter(booking_id=refund.booking_id)
    others = of_booking.filter(
        seats_remaining=refund.seats_remaining, payment_id__in=payment.ids
    ).exclude(pk=refund.pk)
    # Under which ids ever: the booking is what a restored backup and Stripe both know.
    theirs = {
        without_issue(one.key)
        for one in payment.refunds
        if booking_of(one.key) == booking_key(refund.booking_id) and one.status not in GIVEN_BACK
    }
    if theirs:
        theirs -= {
            without_issue(key) for key in of_booking.values_list("idempotency_key", flat=True)
        }
    return Beside(same_payment=refund.further_payment and others.exists(), forgotten=bool(theirs))


def _line(refund: Refund, conclusion: Conclusion) -> tuple[int, str]:
    """Return what an attempt came to, as a line of the log and its level."""
    columns = conclusion.columns
    level, line = logging.INFO, AS_BEFORE
    if columns.get("needs_review"):
        level, line = logging.WARNING, "Refund waits for a person"
    elif "status" in columns:
        line = COMPLETED
    elif conclusion.again and refund.status != Refund.Status.COMPLETED:
        level, line = logging.WARNING, "Refund not known to be done: tried again later"
    return level, line


def _tell(refund: Refund, conclusion: Conclusion, level: int, line: str) -> None:
    """Log and count what an attempt came to."""
    columns = conclusion.columns
    REFUND_ATTEMPTS.labels(line.lower()).inc()
    log.log(
        level,
        line,
        booking_id=refund.booking_id,
        payment_id=refund.payment_id,
        seats_remaining=refund.seats_remaining,
        amount=refund.amount,
        attempt=refund.attempts,
        refund_id=columns.get("stripe_refund_id", refund.stripe_refund_id),
        stripe_status=columns.get("stripe_status", refund.stripe_status),
        why=columns.get("last_error") or None,
    )
