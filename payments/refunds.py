"""The rules of refunds: one for each cancelled booking, whatever crashes, repeats or times out.

::

                    BookingCancelled
                           │ the intent, committed with the event
                           ▼
          ┌─────────► in_progress ──────────────┐
          │ unknown:      │                     │ refused, and Stripe
          │ due later     │ Stripe has          │ lists none of ours
          └───────────────┤ the refund          │
                          ▼                     ▼
                      completed ◄─────────── failed
                          │   one turns up
                          └──► fetched anew when a webhook speaks of it

``judge`` is that machine: what Stripe answered and what it lists, to what becomes of the row. Any
state may need a person (``needs_review``); nothing is sent then until that person says so.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog
from django.conf import settings
from django.utils import timezone
from prometheus_client import Counter

from booking_platform.messaging import leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.retention import LONGEST_RETRY
from payments import stripe_gateway
from payments.models import NAMESPACE, IdempotencyStore, idempotency_key
from payments.money import format_money
from payments.stripe_gateway import OtherParameters, Refund, Refused, Unknown

log = structlog.get_logger(__name__)

Status = IdempotencyStore.Status
Stripe = IdempotencyStore.StripeStatus

# Stripe may forget a key after 24 hours, and would then take the request for a new one
# (https://docs.stripe.com/api/idempotent_requests). An hour is left for clocks and slow calls.
KEY_LIFETIME = timedelta(hours=23)

# A refund in one of these has not reached the customer, and won't by itself.
NOT_PAID = (Stripe.FAILED, Stripe.CANCELED, Stripe.REQUIRES_ACTION)

REFUND_ATTEMPTS = Counter(
    "refund_attempts_total", "Attempts at refunds, by what they came to.", ["result"]
)

Answer = Refund | Refused | OtherParameters | Unknown


class Plan(Enum):
    """What an attempt asks Stripe."""

    FETCH = auto()  # for the refund that is known
    SEND = auto()  # for a refund
    LOOK_AND_SEND = auto()  # whether there is one already, and only then for one
    LOOK = auto()  # whether there is one, and no more


@dataclass(frozen=True)
class Evidence:
    """What Stripe said in one attempt."""

    sent: Answer | None = None  # to the request for a refund, where that was sent
    listed: list[Refund] | Unknown | None = None  # the payment's refunds, where they were asked for


def attempt(pk: int) -> None:
    """Attempt a refund that is due; return when the outcome is committed, or left to the next."""
    leases.attempt(IdempotencyStore.objects.filter(pk=pk), _act)


def carry_on(refund: IdempotencyStore) -> None:
    """Attempt a refund that this worker has under lease."""
    leases.carry_on(refund, _act)


def plan(refund: IdempotencyStore, now: datetime) -> Plan:
    """Choose what to ask Stripe.

    A request is sent only while Stripe must still know its key, and never before a person's
    decision or against one.
    """
    if refund.stripe_refund_id:
        return Plan.FETCH
    if refund.status != Status.IN_PROGRESS or refund.needs_review or refund.settled:
        return Plan.LOOK
    if refund.first_sent_at is None:
        return Plan.SEND
    if _exhausted(refund, now, KEY_LIFETIME):
        return Plan.LOOK
    return Plan.LOOK_AND_SEND


def judge(refund: IdempotencyStore, said: Evidence, now: datetime) -> Conclusion:  # noqa: PLR0911  (a line a transition)
    """Decide what becomes of a refund; the first rule that fits decides."""
    sent, listed = said.sent, said.listed
    ours = [one for one in listed if is_ours(refund, one)] if isinstance(listed, list) else []
    if len(ours) > 1:
        ids = ", ".join(sorted(one.refund_id for one in ours))
        return _review(f"Stripe has {len(ours)} refunds for this booking: {ids}")
    if ours:
        return _found(refund, ours[0])
    if isinstance(sent, Refund):
        return _found(refund, sent)
    if isinstance(sent, OtherParameters):
        return _review(f"Stripe knows the key with other parameters: {sent.message}")
    if isinstance(sent, Unknown) and not sent.repeats:
        return _later(refund, sent.why)
    if not isinstance(listed, list):  # no verdict without it
        return _look_again(refund, listed.why if listed else "it was not asked", now)
    if isinstance(sent, Refused):
        return _failed(sent)
    if isinstance(sent, Unknown):
        return _review(f"{sent.why}: Stripe keeps this answer under the key, and lists no refund")
    return _nothing_listed(refund)


def judge_fetched(refund: IdempotencyStore, answer: Answer) -> Conclusion:
    """Decide what becomes of a refund whose id at Stripe is known."""
    match answer:
        case Refund():
            return _found(refund, answer)
        case Unknown(why):
            return _later(refund, why)
    return _review(f"Stripe does not give refund {refund.stripe_refund_id}: {answer.message}")


def is_ours(refund: IdempotencyStore, one: Refund) -> bool:
    """Tell whether a refund at Stripe was made for this booking, under any issue of its key."""
    base = idempotency_key(refund.booking_id)
    return one.key == base or one.key.startswith(f"{base}:")


def obstacle_to_reissue(refund: IdempotencyStore, now: datetime) -> str:
    """Say why a refund must not be sent under a new key; nothing if it may. Asks Stripe.

    Nothing of it may be there, and the old key must have been refused or be forgotten: a request
    under it that is still on its way would be a second refund.
    """
    if refund.stripe_refund_id or refund.settled or not refund.needs_review:
        return "only a refund that waits for a person, and that Stripe does not have, can be"
    if refund.status != Status.FAILED and refund.first_sent_at is not None:
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
            return (
                f"Stripe lists a refund of this payment: {one.refund_id}, "
                f"{format_money(one.amount_minor, one.currency)}, {one.status}"
            )
    return ""


# What an attempt does.


def _act(refund: IdempotencyStore) -> Conclusion:
    try:
        conclusion = _ask(refund)
    except LeaseLost:
        raise
    except Exception as error:  # a bug of ours proves nothing about Stripe
        log.exception("A bug: the refund is tried again later", booking_id=refund.booking_id)
        unknown = Unknown(f"a bug: {type(error).__name__}")
        conclusion = judge(refund, Evidence(listed=unknown), timezone.now())
    _tell(refund, conclusion)
    return conclusion


def _ask(refund: IdempotencyStore) -> Conclusion:
    now = timezone.now()
    chosen = plan(refund, now)
    if chosen is Plan.FETCH:
        leases.still_held(refund)
        return judge_fetched(refund, stripe_gateway.fetch(refund.stripe_refund_id or ""))
    if chosen is Plan.SEND:
        leases.write(refund, first_sent_at=now)
    else:
        listed = _look(refund)
        nothing = isinstance(listed, list) and not any(is_ours(refund, one) for one in listed)
        if chosen is Plan.LOOK or not nothing:
            return judge(refund, Evidence(listed=listed), now)
    return judge(refund, _send(refund), now)


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


# What an attempt concludes.


def _found(refund: IdempotencyStore, found: Refund) -> Conclusion:
    """Stripe has the refund: completed, whatever its own status; some need a person."""
    problem = ""
    if (found.amount_minor, found.currency) != (refund.amount_minor, refund.currency):
        other = format_money(found.amount_minor, found.currency)
        problem = f"Stripe refunded another amount: {other} instead of {refund.amount}"
    elif found.payment_id != refund.payment_id:
        problem = f"Stripe refunded another payment: {found.payment_id}"
    elif found.status in NOT_PAID:
        reason = found.record.get("failure_reason")
        problem = f"Stripe's refund is {found.status}" + (f": {reason}" if reason else "")
    if refund.settled:
        known = (refund.stripe_refund_id, refund.stripe_status)
        news = known != (found.refund_id, found.status)
        problem = f"settled before, but Stripe's refund is now {found.status}" if news else ""
    return Conclusion(
        {
            "status": Status.COMPLETED,
            "stripe_refund_id": found.refund_id,
            "stripe_status": found.status,
            "response_payload": found.record,
            "needs_review": bool(problem),
            "last_error": problem,
        }
    )


def _failed(refused: Refused) -> Conclusion:
    code = f" ({refused.code})" if refused.code else ""
    return Conclusion(
        {
            "status": Status.FAILED,
            "response_payload": {"error": {"code": refused.code, "message": refused.message}},
            "needs_review": True,
            "last_error": f"Stripe refused, and lists no refund: {refused.message}{code}",
        }
    )


def _review(why: str) -> Conclusion:
    return Conclusion({"needs_review": True, "last_error": why})


def _later(refund: IdempotencyStore, why: str) -> Conclusion:
    decided = refund.needs_review or refund.settled  # what was said about that stays
    return Conclusion({} if decided else {"last_error": why}, again=True)


def _look_again(refund: IdempotencyStore, why: str, now: datetime) -> Conclusion:
    """Stripe does not say what it has: ask again, but not for ever."""
    if refund.needs_review or not _exhausted(refund, now, LONGEST_RETRY):
        return _later(refund, why)
    return _review(f"given up after {refund.attempts} attempts; what Stripe has is unknown: {why}")


def _nothing_listed(refund: IdempotencyStore) -> Conclusion:
    """Stripe lists no refund of ours, and the time in which one may be sent is over."""
    if refund.status != Status.IN_PROGRESS or refund.needs_review or refund.settled:
        return Conclusion()  # as it was: a person decides, or has
    return _review(
        f"attempted {refund.attempts} times since {refund.first_sent_at:%Y-%m-%d %H:%M} UTC, and "
        f"not sent any more; Stripe lists no refund. Before: {refund.last_error}"
    )


def _exhausted(refund: IdempotencyStore, now: datetime, window: timedelta) -> bool:
    if refund.attempts >= settings.RETRY_ATTEMPTS:
        return True
    return refund.first_sent_at is not None and now - refund.first_sent_at >= window


def _tell(refund: IdempotencyStore, conclusion: Conclusion) -> None:
    """Log and count what an attempt came to."""
    columns = conclusion.columns
    level, line = logging.INFO, "Refund as before"
    if columns.get("needs_review"):
        level, line = logging.WARNING, "Refund waits for a person"
    elif conclusion.again:
        level, line = logging.WARNING, "Refund not known to be done: tried again later"
    elif columns:
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
