"""The rules of refunds: each once, whatever crashes, repeats or times out.

Everything here is pure. ``after_look`` says whether a refund may be sent after the look at its payment
(``examining`` has what stands against it), and ``judge`` what becomes of it after what Stripe said.
``docs/refunds.md`` draws the states. A row in any state may need a person (``needs_review``): nothing is
sent then until that person says so. A completed refund that is pending, or that a webhook speaks of, is
looked at again, since banks send refunds back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.retention import LONGEST_RETRY
from booking_platform.money import format_money
from payments import reviews
from payments.answers import (
    NO_BALANCE,
    Answer,
    Look,
    NoSuchPayment,
    OtherParameters,
    StripePayment,
    StripeRefund,
    StripeRefusal,
    Unknown,
)
from payments.examining import (
    Beside,
    Terms,
    described,
    examine,
    for_a_person,
    ids,
    is_ours,
    made_by_hand,
    no_such_payment,
    pause_after,
    units_in,
)
from payments.keys import NAMESPACE
from payments.models import Refund

Status = Refund.Status
Stripe = Refund.StripeStatus

# Stripe may forget a key after 24 hours, and would then take the request for a new one
# (https://docs.stripe.com/api/idempotent_requests). An hour is left for clocks and slow calls.
KEY_LIFETIME = timedelta(hours=23)

# A refund in any other has not reached the customer, and won't by itself.
PAID = (Stripe.PENDING, Stripe.SUCCEEDED)


@dataclass(frozen=True)
class Evidence:
    """What Stripe said in one attempt."""

    sent: Answer | None = None  # to the request for a refund, where that was sent
    listed: list[StripeRefund] | Unknown | None = None  # of the payment, where asked for


def may_send(refund: Refund, now: datetime) -> bool:
    """Return whether a request may be sent at all.

    Only while Stripe must still know its key, and never before a person's decision or against one.
    """
    return not _decided(refund) and not _exhausted(refund, now, KEY_LIFETIME)


def after_look(
    refund: Refund, look: Look, now: datetime, beside: Callable[[StripePayment], Beside]
) -> Terms | Conclusion:
    """Return on what terms a refund is to be sent after a look; if it is not to be, its conclusion.

    ``beside`` returns what the store knows beside the refund of a payment.
    """
    listed = listed_in(look)
    known = isinstance(listed, Unknown) or any(is_ours(refund, one) for one in listed)
    if known or not may_send(refund, now):
        return judge(refund, Evidence(listed=listed), now)
    if isinstance(look, StripePayment):
        return examine(refund, look, now, beside(look))
    assert isinstance(look, NoSuchPayment)
    return no_such_payment(refund, look)


def listed_in(look: Look) -> list[StripeRefund] | Unknown:
    """Return the refunds of a payment, as far as they are known."""
    if isinstance(look, StripePayment):
        return look.refunds
    return [] if isinstance(look, NoSuchPayment) else look


def judge(refund: Refund, said: Evidence, now: datetime) -> Conclusion:
    """Return what becomes of a refund after what Stripe said.

    Evidence without an answer to a request is that of a look after which nothing was sent.
    """
    conclusion = _verdict(refund, said, now)
    if refund.settled and conclusion.columns.get("last_error") == refund.last_error:
        conclusion.columns["needs_review"] = False  # a person has dealt with just that
    return conclusion


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
        return for_a_person(f"Stripe has {len(ours)} refunds for this booking: {ids}")
    if ours:
        return _found(refund, ours[0], now)
    if isinstance(sent, StripeRefund):
        return _found(refund, sent, now)
    if isinstance(sent, OtherParameters):
        return for_a_person(f"Stripe knows the key with other parameters: {sent.message}")
    if isinstance(sent, Unknown) and not sent.repeats:
        return _later(refund, sent.why, **({} if sent.reached else _not_begun(refund)))
    if not isinstance(listed, list):  # no verdict without it
        return _look_again(refund, listed.why if listed else "it was not asked", now)
    if isinstance(sent, StripeRefusal):
        return _no_balance(refund, sent) if _lacks_balance(sent) else _failed(sent)
    if isinstance(sent, Unknown):
        return for_a_person(
            f"{sent.why}: Stripe keeps this answer under the key, and lists no refund"
        )
    return _not_found(refund, listed)


def _found(refund: Refund, found: StripeRefund, now: datetime) -> Conclusion:
    """Stripe has the refund: completed, whatever its own status; some need a person."""
    pending = found.status == Stripe.PENDING  # looked at again: webhooks may not come
    pause = pause_after(now - found.created_at) if pending else None
    known = (refund.stripe_refund_id, refund.stripe_status) == (found.refund_id, found.status)
    if known and (refund.needs_review or refund.settled):
        return Conclusion({"response_payload": found.record}, again=pending, pause=pause)  # no news
    problem = _problem(refund, found)
    if refund.settled:
        problem = f"settled before, but Stripe's refund is now {found.status}"
    if known and not problem and refund.status == Status.COMPLETED:
        unchanged = {"response_payload": found.record, "last_error": ""}
        return Conclusion(unchanged, again=pending, pause=pause)
    columns = {
        "status": Status.COMPLETED,
        "stripe_refund_id": found.refund_id,
        "stripe_status": found.status,
        "response_payload": found.record,
        "needs_review": bool(problem),
        "review_code": "",
        "last_error": problem,
    }
    if refund.amount_minor is None and units_in(refund, found.currency) == found.amount_minor:
        columns |= {"amount_minor": found.amount_minor, "currency": found.currency}
    return Conclusion(columns, again=pending, pause=pause)


def _problem(refund: Refund, found: StripeRefund) -> str:
    """Return why a person must look at a refund that Stripe has; empty if nobody must."""
    if refund.stripe_refund_id not in (None, found.refund_id):
        return f"Stripe has {found.refund_id} now instead of {refund.stripe_refund_id}"
    if found.amount_minor != _units(refund, found.currency):
        other = format_money(found.amount_minor, found.currency)
        return f"Stripe refunded another amount: {other} instead of {refund.amount}"
    if not found.is_of(refund.payment_id):
        return f"Stripe refunded another payment: {found.payment_id or found.charge_id}"
    if found.key and not is_ours(refund, found):
        return f"Stripe gave the refund of another key: {found.key}"
    if found.status not in PAID:
        reason = found.record.get("failure_reason")
        status = found.status or "of no status"
        return f"Stripe's refund is {status}" + (f": {reason}" if reason else "")
    return ""


def _units(refund: Refund, currency: str) -> int | None:
    """Return the amount to refund in minor units; none where it is not known, or of another currency."""
    if refund.amount_minor is None:
        return units_in(refund, currency)
    return refund.amount_minor if refund.currency == currency else None


def _failed(refused: StripeRefusal) -> Conclusion:
    why = f"Stripe refused, and lists no refund: {_worded(refused)}"
    return for_a_person(why, status=Status.FAILED, response_payload=_kept(refused))


def _lacks_balance(refused: StripeRefusal) -> bool:
    """Return whether a refusal passes once the Stripe account has money again.

    Some accounts get it without a code: https://github.com/Automattic/woocommerce-payments/issues/10025
    """
    uncoded = not refused.code and refused.message.startswith("Insufficient funds in your Stripe")
    return uncoded or refused.code == NO_BALANCE


def _no_balance(refund: Refund, refused: StripeRefusal) -> Conclusion:
    """Ask again under the next issue of the key: Stripe keeps the refusal under this one.

    That is safe. No request under this key can be executed any more, and the look before the next
    request finds what there is. https://docs.stripe.com/api/idempotent_requests
    """
    why = f"not refunded yet: {_worded(refused)}"
    columns = {"response_payload": _kept(refused), **refund.under_next_key()}
    if refund.attempts >= settings.RETRY_ATTEMPTS:
        return for_a_person(why, reviews.NO_BALANCE, status=Status.FAILED, **columns)
    return Conclusion({"last_error": why, **columns}, again=True)


def _worded(refused: StripeRefusal) -> str:
    return refused.message + (f" ({refused.code})" if refused.code else "")


def _kept(refused: StripeRefusal) -> dict[str, object]:
    return {"error": {"code": refused.code, "message": refused.message}}


def _later(refund: Refund, why: str, **columns: object) -> Conclusion:
    said = refund.needs_review or refund.settled  # why a person decides, or has, stays
    return Conclusion(columns if said else {"last_error": why, **columns}, again=True)


def _not_begun(refund: Refund) -> dict[str, object]:
    """Return the columns of a key whose life has not started with the request just made.

    The row is as it was before: where it has no time, that request was the first.
    """
    return {"first_sent_at": None} if refund.first_sent_at is None else {}


def _look_again(refund: Refund, why: str, now: datetime) -> Conclusion:
    """Stripe does not say what it has: ask again, but not for ever."""
    if _decided(refund) or not _exhausted(refund, now, LONGEST_RETRY):
        return _later(refund, why)
    return for_a_person(
        f"given up after {refund.attempts} attempts; what Stripe has is unknown: {why}"
    )


def _not_found(refund: Refund, listed: list[StripeRefund]) -> Conclusion:
    """Stripe lists no refund of ours, and none was sent just now."""
    if refund.stripe_refund_id:
        return for_a_person(f"Stripe does not list refund {refund.stripe_refund_id} any more")
    if _decided(refund):
        return Conclusion()  # as it was
    if by_hand := made_by_hand(refund, listed, refund.amount_minor):
        why = f"not sent: it may have been refunded by hand: {described(by_hand)}"
        return for_a_person(why, reviews.BY_HAND, by_hand=ids(by_hand))
    return for_a_person(
        f"attempted {refund.attempts} times since {refund.first_sent_at or refund.created_at:%F %R} "
        f"UTC, and not sent any more; Stripe lists no refund. Before: {refund.last_error}"
    )


def _decided(refund: Refund) -> bool:
    """Return whether nothing may be sent: it is done, or it waits for a person or had one decide."""
    return refund.status != Status.IN_PROGRESS or refund.needs_review or refund.settled


def _exhausted(refund: Refund, now: datetime, window: timedelta) -> bool:
    if refund.attempts > settings.RETRY_ATTEMPTS:
        return True
    return refund.first_sent_at is not None and now - refund.first_sent_at >= window
