"""The rules of refunds: one for each cancelled booking, whatever crashes, repeats or times out.

Everything here is pure. ``asked_for`` reads from the event what is to be refunded, ``plan`` chooses
what to ask Stripe, and ``judge`` returns what becomes of the row after what Stripe said.
``docs/refunds.md`` draws the states. A row in any state may need a person (``needs_review``): nothing is
sent then until that person says so. A completed refund that a webhook speaks of is looked at again,
since banks send refunds back.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from django.conf import settings
from django.db import models

from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.retention import LONGEST_RETRY
from booking_platform.messaging.rules import INVALID, Refused
from booking_platform.money import UnusableAmount, format_money, minor_units
from payments.answers import Answer, OtherParameters, StripeRefund, StripeRefusal, Unknown
from payments.keys import NAMESPACE, idempotency_key
from payments.models import Refund

Status = Refund.Status
Stripe = Refund.StripeStatus

# Stripe may forget a key after 24 hours, and would then take the request for a new one
# (https://docs.stripe.com/api/idempotent_requests). An hour is left for clocks and slow calls.
KEY_LIFETIME = timedelta(hours=23)

# Between our clock and Stripe's, at most.
CLOCKS_DIFFER = timedelta(minutes=5)

# A refund in any other has not reached the customer, and won't by itself.
PAID = (Stripe.PENDING, Stripe.SUCCEEDED)


class Outcome(models.TextChoices):
    REQUESTED = "refund_requested", "the booking's payment is to be refunded"
    KNOWN = "refund_known", "said again what was known of the booking's refund"
    NOTHING = "nothing_to_refund", "named neither a payment nor an amount"


class Wish(NamedTuple):
    """What a cancellation wants to be refunded."""

    payment_id: str
    amount_minor: int
    currency: str

    def __str__(self) -> str:
        if not self.payment_id:
            return "nothing"
        return f"{format_money(self.amount_minor, self.currency)} of payment {self.payment_id!r}"


NOTHING = Wish("", 0, "")


def asked_for(payload: BookingCancelled) -> Wish | Refused:
    """Return what a cancellation asks for, exactly, or what is wrong with it."""
    payment, amount = payload.payment_id, payload.amount
    if amount is not None and amount < 0:
        return _invalid(f"payload.amount is {amount}: it must not be negative")
    if not amount and (amount == 0 or not payment):
        return NOTHING
    if amount is None:
        # Stripe would refund all of it.
        return _invalid(f"payload.amount is missing, but payload.paymentId is {payment!r}")
    if not payment:
        return _invalid(f"payload.paymentId is missing, but payload.amount is {amount}")
    currency = (payload.currency or "").lower()
    try:
        return Wish(payment, minor_units(amount, currency), currency)
    except UnusableAmount as error:
        return _invalid(str(error))


def _invalid(detail: str) -> Refused:
    return Refused(INVALID, detail)


class Plan(Enum):
    """What an attempt asks Stripe."""

    SEND = auto()  # for a refund
    LOOK_AND_SEND = auto()  # what refunds there are, and for one if that may be
    LOOK = auto()  # what refunds there are, and no more


@dataclass(frozen=True)
class Evidence:
    """What Stripe said in one attempt."""

    sent: Answer | None = None  # to the request for a refund, where that was sent
    listed: list[StripeRefund] | Unknown | None = None  # of the payment, where asked for


def plan(refund: Refund, now: datetime) -> Plan:
    """Return what to ask Stripe.

    A request is sent only while Stripe must still know its key, and never before a person's
    decision or against one.
    """
    if _decided(refund) or _exhausted(refund, now, KEY_LIFETIME):
        return Plan.LOOK
    # Only who has just stored it knows that nobody can have helped out, or restored a backup.
    new = refund.attempts == 1 and refund.first_sent_at is None and not refund.reissued
    just_now = now - refund.created_at < timedelta(seconds=settings.LEASE_SECONDS)
    return Plan.SEND if new and just_now else Plan.LOOK_AND_SEND


def judge(refund: Refund, said: Evidence, now: datetime) -> Conclusion:
    """Return what becomes of a refund after what Stripe said.

    Evidence without an answer to a request is that of a look after which nothing was sent. A look
    after which a request may be sent is not judged at all: ``may_send_after`` says whether it may.
    """
    conclusion = _verdict(refund, said, now)
    if refund.settled and conclusion.columns.get("last_error") == refund.last_error:
        conclusion.columns["needs_review"] = False  # a person has dealt with just that
    return conclusion


def may_send_after(refund: Refund, listed: list[StripeRefund] | Unknown) -> bool:
    """Return whether the list of a payment's refunds leaves no doubt that this one is wanted."""
    if isinstance(listed, Unknown) or any(is_ours(refund, one) for one in listed):
        return False
    return not made_by_hand(refund, listed)


def obstacle_to_reissue(refund: Refund, now: datetime) -> str:
    """Return why a refund must not be sent under a new key; empty if Stripe's list is to decide.

    The old key must have been refused or be forgotten: a request under it that is still on its way
    would be a second refund.
    """
    if refund.stripe_refund_id or refund.settled or not refund.needs_review:
        return "only a refund that waits for a person, and that Stripe does not have, can be"
    if refund.status != Status.FAILED and refund.first_sent_at is not None:
        forgotten = refund.first_sent_at + LONGEST_RETRY
        if now < forgotten:
            return (
                f"Stripe may still act on the key that was sent: wait until {forgotten:%F %R} UTC"
            )
    return ""


def obstacle_in_list(refund: Refund, listed: list[StripeRefund] | Unknown) -> str:
    """Return why Stripe's list of a payment's refunds forbids a new key; empty if it does not."""
    if isinstance(listed, Unknown):
        return f"what Stripe has is not known: {listed.why}"
    for one in listed:
        if is_ours(refund, one) or not one.key.startswith(NAMESPACE):
            return f"Stripe lists a refund of this payment: {described([one])}"
    return ""


def _verdict(refund: Refund, said: Evidence, now: datetime) -> Conclusion:  # noqa: PLR0911  (a line a transition)
    """Return the conclusion of the first rule that fits."""
    sent, listed = said.sent, said.listed
    ours = [one for one in listed if is_ours(refund, one)] if isinstance(listed, list) else []
    if len(ours) > 1:
        ids = ", ".join(sorted(one.refund_id for one in ours))
        return _review(f"Stripe has {len(ours)} refunds for this booking: {ids}")
    if ours:
        return _found(refund, ours[0])
    if isinstance(sent, StripeRefund):
        return _found(refund, sent)
    if isinstance(sent, OtherParameters):
        return _review(f"Stripe knows the key with other parameters: {sent.message}")
    if isinstance(sent, Unknown) and not sent.repeats:
        return _later(refund, sent.why)
    if not isinstance(listed, list):  # no verdict without it
        return _look_again(refund, listed.why if listed else "it was not asked", now)
    if isinstance(sent, StripeRefusal):
        return _failed(sent)
    if isinstance(sent, Unknown):
        return _review(f"{sent.why}: Stripe keeps this answer under the key, and lists no refund")
    return _not_found(refund, listed)


def is_ours(refund: Refund, one: StripeRefund) -> bool:
    """Return whether a refund at Stripe was made for this booking, under any issue of its key."""
    base = idempotency_key(refund.booking_id)
    return one.key == base or one.key.startswith(f"{base}:")


def made_by_hand(refund: Refund, listed: list[StripeRefund]) -> list[StripeRefund]:
    """Return the refunds that were made elsewhere since this one was asked for.

    Somebody may have lost patience with it. Earlier ones were made for a reason of their own.
    """
    since = refund.created_at - CLOCKS_DIFFER
    foreign = [one for one in listed if not one.key.startswith(NAMESPACE)]
    return [one for one in foreign if refund.reissued or one.created_at >= since]


def _found(refund: Refund, found: StripeRefund) -> Conclusion:
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


def _failed(refused: StripeRefusal) -> Conclusion:
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


def _later(refund: Refund, why: str) -> Conclusion:
    said = refund.needs_review or refund.settled  # why a person decides, or has, stays
    return Conclusion({} if said else {"last_error": why}, again=True)


def _look_again(refund: Refund, why: str, now: datetime) -> Conclusion:
    """Stripe does not say what it has: ask again, but not for ever."""
    if _decided(refund) or not _exhausted(refund, now, LONGEST_RETRY):
        return _later(refund, why)
    return _review(f"given up after {refund.attempts} attempts; what Stripe has is unknown: {why}")


def _not_found(refund: Refund, listed: list[StripeRefund]) -> Conclusion:
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


def described(refunds: list[StripeRefund]) -> str:
    return ", ".join(
        f"{one.refund_id}, {format_money(one.amount_minor, one.currency)}, {one.status}"
        for one in refunds
    )


def _decided(refund: Refund) -> bool:
    """Return whether nothing may be sent: it is done, or it waits for a person or had one decide."""
    return refund.status != Status.IN_PROGRESS or refund.needs_review or refund.settled


def _exhausted(refund: Refund, now: datetime, window: timedelta) -> bool:
    if refund.attempts > settings.RETRY_ATTEMPTS:
        return True
    return refund.first_sent_at is not None and now - refund.first_sent_at >= window
