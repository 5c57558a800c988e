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
                              one turns up

``judge`` is that machine: what Stripe answered and what it lists, to what becomes of the row. Any
state may need a person (``needs_review``); nothing is sent then until that person says so. A
completed refund that a webhook speaks of is looked at again: banks send refunds back.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from django.conf import settings

from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.retention import LONGEST_RETRY
from booking_platform.money import format_money
from payments.models import NAMESPACE, IdempotencyStore, idempotency_key
from payments.stripe_gateway import OtherParameters, Refund, Refused, Unknown

Status = IdempotencyStore.Status
Stripe = IdempotencyStore.StripeStatus

# Stripe may forget a key after 24 hours, and would then take the request for a new one
# (https://docs.stripe.com/api/idempotent_requests). An hour is left for clocks and slow calls.
KEY_LIFETIME = timedelta(hours=23)

# Between our clock and Stripe's, at most.
CLOCKS_DIFFER = timedelta(minutes=5)

# A refund in any other has not reached the customer, and won't by itself.
PAID = (Stripe.PENDING, Stripe.SUCCEEDED)

Answer = Refund | Refused | OtherParameters | Unknown


class Plan(Enum):
    """What an attempt asks Stripe."""

    SEND = auto()  # for a refund
    LOOK_AND_SEND = auto()  # what refunds there are, and for one if that may be
    LOOK = auto()  # what refunds there are, and no more


@dataclass(frozen=True)
class Evidence:
    """What Stripe said in one attempt."""

    sent: Answer | None = None  # to the request for a refund, where that was sent
    listed: list[Refund] | Unknown | None = None  # the payment's refunds, where they were asked for


def plan(refund: IdempotencyStore, now: datetime) -> Plan:
    """Choose what to ask Stripe.

    A request is sent only while Stripe must still know its key, and never before a person's
    decision or against one.
    """
    if _decided(refund) or _exhausted(refund, now, KEY_LIFETIME):
        return Plan.LOOK
    # Only who has just stored it knows that nobody can have helped out, or restored a backup.
    new = refund.attempts == 1 and refund.first_sent_at is None and not refund.reissued
    just_now = now - refund.created_at < timedelta(seconds=settings.LEASE_SECONDS)
    return Plan.SEND if new and just_now else Plan.LOOK_AND_SEND


def judge(refund: IdempotencyStore, said: Evidence, now: datetime) -> Conclusion:  # noqa: PLR0911  (a line a transition)
    """Decide what becomes of a refund; the first rule that fits decides.

    Without a request sent, it is what became of a look: a look that lets a request be sent is not
    judged at all.
    """
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
    return _not_found(refund, listed)


def is_ours(refund: IdempotencyStore, one: Refund) -> bool:
    """Tell whether a refund at Stripe was made for this booking, under any issue of its key."""
    base = idempotency_key(refund.booking_id)
    return one.key == base or one.key.startswith(f"{base}:")


def made_by_hand(refund: IdempotencyStore, listed: list[Refund]) -> list[Refund]:
    """Give the refunds that were made elsewhere since this one was asked for.

    Somebody may have lost patience with it; before, they were made for a reason of their own.
    """
    since = refund.created_at - CLOCKS_DIFFER
    foreign = [one for one in listed if not one.key.startswith(NAMESPACE)]
    return [one for one in foreign if refund.reissued or one.created_at >= since]


def _found(refund: IdempotencyStore, found: Refund) -> Conclusion:
    """Stripe has the refund: completed, whatever its own status; some need a person."""
    problem = ""
    if refund.stripe_refund_id not in (None, found.refund_id):
        problem = f"Stripe has {found.refund_id} now instead of {refund.stripe_refund_id}"
    elif (found.amount_minor, found.currency) != (refund.amount_minor, refund.currency):
        other = format_money(found.amount_minor, found.currency)
        problem = f"Stripe refunded another amount: {other} instead of {refund.amount}"
    elif found.payment_id != refund.payment_id:
        problem = f"Stripe refunded another payment: {found.payment_id}"
    elif found.key and not is_ours(refund, found):
        problem = f"Stripe gave the refund of another key: {found.key}"
    elif found.status not in PAID:
        reason = found.record.get("failure_reason")
        status = found.status or "of no status"
        problem = f"Stripe's refund is {status}" + (f": {reason}" if reason else "")
    known = (refund.stripe_refund_id, refund.stripe_status) == (found.refund_id, found.status)
    if known and (refund.needs_review or refund.settled):
        return Conclusion({"response_payload": found.record})  # no news for that person
    if refund.settled:
        problem = f"settled before, but Stripe's refund is now {found.status}"
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
    said = refund.needs_review or refund.settled  # why a person decides, or has, stays
    return Conclusion({} if said else {"last_error": why}, again=True)


def _look_again(refund: IdempotencyStore, why: str, now: datetime) -> Conclusion:
    """Stripe does not say what it has: ask again, but not for ever."""
    if _decided(refund) or not _exhausted(refund, now, LONGEST_RETRY):
        return _later(refund, why)
    return _review(f"given up after {refund.attempts} attempts; what Stripe has is unknown: {why}")


def _not_found(refund: IdempotencyStore, listed: list[Refund]) -> Conclusion:
    """Stripe lists no refund of ours, and none was sent just now."""
    if refund.stripe_refund_id:
        return _review(f"Stripe does not list refund {refund.stripe_refund_id} any more")
    if _decided(refund):
        return Conclusion()  # as it was
    if by_hand := made_by_hand(refund, listed):
        return _review(f"not sent, since it may have been refunded by hand: {described(by_hand)}")
    return _review(
        f"attempted {refund.attempts} times since {refund.first_sent_at or refund.created_at:%F %R} "
        f"UTC, and not sent any more; Stripe lists no refund. Before: {refund.last_error}"
    )


def described(refunds: list[Refund]) -> str:
    return ", ".join(
        f"{one.refund_id}, {format_money(one.amount_minor, one.currency)}, {one.status}"
        for one in refunds
    )


def _decided(refund: IdempotencyStore) -> bool:
    """Tell whether nothing may be sent: it is done, or waits for a person, or one has decided."""
    return refund.status != Status.IN_PROGRESS or refund.needs_review or refund.settled


def _exhausted(refund: IdempotencyStore, now: datetime, window: timedelta) -> bool:
    if refund.attempts > settings.RETRY_ATTEMPTS:
        return True
    return refund.first_sent_at is not None and now - refund.first_sent_at >= window
