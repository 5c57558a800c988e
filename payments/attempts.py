"""Refunds: stored with the event that asks for them, and attempted at Stripe under a lease.

``rules`` decides; what is here reads and writes.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog

from booking_platform.contract.envelope import Event
from booking_platform.messaging import clock, leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.metrics import Counter
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import insert_missing
from booking_platform.messaging.rules import DIFFERS, Applied, Refused, Result
from payments import rules, stripe_gateway
from payments.answers import OtherParameters, StripeRefund, StripeRefusal, Unknown
from payments.keys import idempotency_key
from payments.models import NothingToRefund, Refund
from payments.rules import Evidence, Outcome, Plan, Wish

log = structlog.get_logger(__name__)

REFUND_ATTEMPTS = Counter(
    "refund_attempts_total", "Attempts at refunds, by what they came to.", ["result"]
)


def request(events: Sequence[Event]) -> list[Result]:
    """Store what is to be refunded, in the transaction of the caller; attempt it after the commit.

    A booking has one refund, whichever event asks for it. An event that asks for another than an
    earlier one did is refused: a person decides which of them is right.
    """
    return [_request(event) for event in events]


def attempt(refund: Refund) -> Conclusion:
    """Ask Stripe for a refund that this worker has under lease."""
    try:
        conclusion = _ask(refund)
    except LeaseLost:
        raise
    except Exception as error:  # a bug of ours proves nothing about Stripe
        log.exception("A bug: the refund is tried again later", booking_id=refund.booking_id)
        unknown = Unknown(f"a bug: {type(error).__name__}")
        conclusion = rules.judge(refund, Evidence(listed=unknown), clock.now())
    return replace(conclusion, tell=partial(_tell, refund, conclusion))


def obstacle_to_reissue(refund: Refund, now: datetime) -> str:
    """Return why a refund must not be sent under a new key; empty if it may. Asks Stripe."""
    obstacle = rules.obstacle_to_reissue(refund, now)
    return obstacle or rules.obstacle_in_list(refund, _listed(refund.payment_id))


def _request(event: Event) -> Result:
    booking, wanted = event.payload.booking_id, rules.asked_for(event.payload)
    if isinstance(wanted, Refused):
        return wanted
    if (earlier := _earlier(booking)) is None:
        applied = _remember_nothing(event) if wanted == rules.NOTHING else _insert(booking, wanted)
        if applied:
            return applied
        earlier = _earlier(booking)  # another worker was faster
    if earlier == wanted:
        return Applied(Outcome.KNOWN)
    return Refused(DIFFERS, f"booking {booking!r} was to refund {earlier}; now it is {wanted}")


def _earlier(booking: str) -> Wish | None:
    """Return what an earlier cancellation of the booking asked for."""
    for refund in Refund.objects.filter(booking_id=booking):
        return Wish(refund.payment_id, refund.amount_minor, refund.currency)
    nothing = NothingToRefund.objects.filter(booking_id=booking)
    # A worker of the version before, still there during a deployment, has remembered only this.
    events = ProcessedEvent.objects.filter(aggregate_id=booking, outcome=Outcome.NOTHING)
    return rules.NOTHING if nothing.exists() or events.exists() else None


def _remember_nothing(event: Event) -> Applied | None:
    """Store that a booking has nothing to be refunded; return None if that is stored already."""
    row = {
        "booking_id": event.payload.booking_id,
        "event_id": event.event_id,
        "created_at": clock.now(),
    }
    inserted = insert_missing(NothingToRefund, [row], key="booking_id")
    return Applied(Outcome.NOTHING) if inserted else None


def _insert(booking: str, wanted: Wish) -> Applied | None:
    """Store a booking's refund, under the lease of this worker; return None if it has one already."""
    key, now = idempotency_key(booking), clock.now()
    columns = {
        **wanted._asdict(),
        **leases.new_lease(),
        "booking_id": booking,
        "idempotency_key": key,
        "request_payload": refund_request(booking, wanted.payment_id, wanted.amount_minor, key),
        "status": Refund.Status.IN_PROGRESS,
        "created_at": now,
        "updated_at": now,
    }
    inserted = insert_missing(Refund, [columns], key="id")
    if not inserted:
        return None
    refund = Refund(pk=inserted.pop(), **columns)
    return Applied(Outcome.REQUESTED, then=partial(leases.carry_on, refund, attempt))


def _ask(refund: Refund) -> Conclusion:
    now = clock.now()
    plan = rules.plan(refund, now)
    if plan is not Plan.SEND:
        listed = _look(refund)
        if plan is Plan.LOOK or not rules.may_send_after(refund, listed):
            return rules.judge(refund, Evidence(listed=listed), now)
    if refund.first_sent_at is None:
        leases.write(refund, first_sent_at=now)
    return rules.judge(refund, _send(refund), now)


def _send(refund: Refund) -> Evidence:
    """Send the request. If the answer is final, get the list too, as a verdict needs both."""
    leases.still_held(refund)
    sent = stripe_gateway.send(refund.request_payload, refund.idempotency_key)
    final = isinstance(sent, StripeRefusal) or (isinstance(sent, Unknown) and sent.repeats)
    return Evidence(sent, _look(refund) if final else None)


def _look(refund: Refund) -> list[StripeRefund] | Unknown:
    leases.still_held(refund)
    return _listed(refund.payment_id)


def _listed(payment_id: str) -> list[StripeRefund] | Unknown:
    match stripe_gateway.look(payment_id):
        case StripeRefusal(code="resource_missing"):
            return []  # no such payment, so no refund of it
        case StripeRefusal(message=message) | OtherParameters(message=message):
            return Unknown(f"the list of refunds was refused: {message}")
        case listed:
            return listed


def _tell(refund: Refund, conclusion: Conclusion) -> None:
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
