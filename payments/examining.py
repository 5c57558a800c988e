"""What the look at a payment says of a refund: whether it is there, and whether it may be sent.

Everything here is pure. A refund is sent for the first time only if nothing stands against it: the
payment is paid, in the currency that the event names, and covers the amount; it is this booking's; and
nobody has refunded it by hand. What does stand against it waits for a person, and no money has moved.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings

from booking_platform.messaging.leases import Conclusion
from booking_platform.money import UnusableAmount, format_money, minor_units
from payments import reviews
from payments.answers import NoSuchPayment, StripePayment, StripeRefund
from payments.keys import NAMESPACE, booking_key, idempotency_key, without_issue
from payments.models import WHOLE_BOOKING, Refund
from payments.stripe_objects import is_charge

# Between our clock and Stripe's, at most.
CLOCKS_DIFFER = timedelta(minutes=5)

# A payment by direct debit may be on its way for two weeks: https://docs.stripe.com/payments/bank-debits
LONGEST_PROCESSING = timedelta(days=30)

RARELY = timedelta(days=1)  # the longest pause between looks at what takes its time


class Terms(NamedTuple):
    """On what terms a refund is sent: the amount, exactly, in the payment's currency."""

    amount_minor: int
    currency: str


class Objection(NamedTuple):
    """What stands against sending a refund."""

    code: str  # one of ``reviews``
    why: str
    failed: bool = False  # it can't be made as things are, so that no approval would help
    by_hand: str = ""  # ids of the refunds that it is about


class Beside(NamedTuple):
    """What the store knows beside a refund of its payment."""

    same_payment: bool = False  # another refund for this step, of the payment under another id
    forgotten: bool = False  # too little: Stripe has a refund of the booking that it does not know


def examine(
    refund: Refund, payment: StripePayment, now: datetime, beside: Beside
) -> Terms | Conclusion:
    """Return on what terms a refund is to be sent; if it is not to be, what becomes of it.

    The payment has no refund of ours for this.
    """
    if payment.processing and not refund.sent:
        return _processing(refund, now)
    units = units_in(refund, payment.currency)
    if refund.sent:
        objections = _after_a_send(refund, payment, units)
    else:
        objections = _before_the_first_send(refund, payment, units, beside)
    for objection in objections:
        if not _waived(refund, objection):
            columns: dict[str, Any] = {"status": Refund.Status.FAILED} if objection.failed else {}
            if objection.by_hand:
                columns["by_hand"] = objection.by_hand
            return for_a_person(f"not sent: {objection.why}", objection.code, **columns)
    assert units is not None  # that would be an objection
    return Terms(units, payment.currency)


def no_such_payment(refund: Refund, look: NoSuchPayment) -> Conclusion:
    """Return the conclusion for a refund of a payment that Stripe does not have."""
    # What was sent may have gone to another account, whose key was set then.
    failed = {} if refund.sent else {"status": Refund.Status.FAILED}
    return for_a_person(f"not sent: {look.message}", reviews.NO_SUCH_PAYMENT, **failed)


def for_a_person(why: str, code: str = "", **columns: Any) -> Conclusion:
    """Return the conclusion that a person must decide, and why."""
    return Conclusion({"needs_review": True, "review_code": code, "last_error": why, **columns})


def frozen(refund: Refund, terms: Terms) -> dict[str, Any]:
    """Return the columns of what every attempt sends; its metadata say whose refund it is."""
    payment = "charge" if is_charge(refund.payment_id) else "payment_intent"
    request = {
        payment: refund.payment_id,
        "amount": terms.amount_minor,
        "metadata": {
            "booking_id": refund.booking_id,
            "idempotency_key": refund.idempotency_key,
            "seats_remaining": str(refund.seats_remaining),
        },
    }
    return {**terms._asdict(), "request_payload": request}


def is_ours(refund: Refund, one: StripeRefund) -> bool:
    """Return whether a refund at Stripe was made for this one, under any issue of its key."""
    first = without_issue(one.key)
    if not first:
        return False
    if first == booking_key(refund.booking_id) and refund.seats_remaining == WHOLE_BOOKING:
        # The version before may have made it, and a restored backup may have forgotten that.
        return first == without_issue(refund.idempotency_key) or one.is_of(refund.payment_id)
    return first == idempotency_key(refund.booking_id, refund.payment_id, refund.seats_remaining)


def made_by_hand(
    refund: Refund, listed: Sequence[StripeRefund], units: int | None
) -> list[StripeRefund]:
    """Return the refunds that somebody may have made by hand in place of this one.

    That is what was made elsewhere since the booking was cancelled, or earlier of just this amount.
    Other earlier ones were made for a reason of their own. What a person has seen is left out.
    """
    asked_at = min(refund.created_at, refund.cancelled_at or refund.created_at)
    seen = refund.approved_by_hand.split()
    foreign = [
        one for one in listed if not one.key.startswith(NAMESPACE) and one.refund_id not in seen
    ]
    return [
        one
        for one in foreign
        if one.created_at + CLOCKS_DIFFER >= asked_at or one.amount_minor == units
    ]


def units_in(refund: Refund, currency: str) -> int | None:
    """Return the amount in a currency's minor units; None where it is no such amount."""
    if refund.currency not in ("", currency):
        return None
    if refund.amount_asked is None:
        return refund.amount_minor
    try:
        return minor_units(refund.amount_asked, currency)
    except UnusableAmount:
        return None


def ids(refunds: Sequence[StripeRefund]) -> str:
    return " ".join(one.refund_id for one in refunds)


def described(refunds: Sequence[StripeRefund]) -> str:
    return ", ".join(
        f"{one.refund_id}, {format_money(one.amount_minor, one.currency)}, {one.status}"
        for one in refunds
    )


def pause_after(lasting: timedelta) -> timedelta:
    """Return when to look again at what takes its time: after as long as it has lasted, once more."""
    return min(max(lasting, timedelta(seconds=settings.RETRY_MAX_SECONDS)), RARELY)


def _processing(refund: Refund, now: datetime) -> Conclusion:
    lasting, why = now - refund.created_at, "not sent yet: the payment is still processing"
    if lasting > LONGEST_PROCESSING:
        return for_a_person(why, reviews.PROCESSING)
    return Conclusion({"last_error": why}, again=True, pause=pause_after(lasting))


def _waived(refund: Refund, objection: Objection) -> bool:
    """Return whether a person has let the refund go out in spite of just that.

    Refunds by hand that a person has seen are left out before; others are a new objection.
    """
    approved = objection.code in refund.approved and objection.code != reviews.BY_HAND
    return approved and reviews.REVIEWS[objection.code].approvable


def _before_the_first_send(
    refund: Refund, payment: StripePayment, units: int | None, beside: Beside
) -> Iterator[Objection]:
    """Yield what stands against a refund of which nothing was sent."""
    if payment.received_minor <= 0:
        why = f"nothing was received, the payment is {payment.status!r}"
        yield Objection(reviews.NOT_PAID, why, failed=True)
    if beside.same_payment:
        why = "the booking has another refund for this step, of the same payment under another id"
        yield Objection(reviews.SAME_PAYMENT, why, failed=True)
    if beside.forgotten:
        why = "Stripe has a refund of this booking and payment that the store does not know"
        yield Objection(reviews.FORGOTTEN, why)
    if units is None:
        yield _no_such_amount(refund, payment.currency)
        return
    yield from _of_whom(refund, payment)
    if payment.received_minor - payment.refunded_minor < units:
        asked, received, refunded = (
            format_money(each, payment.currency)
            for each in (units, payment.received_minor, payment.refunded_minor)
        )
        why = f"{asked} are asked for; {received} were received, {refunded} refunded"
        yield Objection(reviews.NOT_COVERED, why, failed=True)
    yield from _after_a_send(refund, payment, units)
    limit = settings.REFUND_REVIEW_ABOVE.get(payment.currency)
    if limit is not None and units > limit:
        above = format_money(limit, payment.currency)
        yield Objection(reviews.ABOVE_LIMIT, f"above {above}, a person decides")


def _after_a_send(refund: Refund, payment: StripePayment, units: int | None) -> Iterator[Objection]:
    """Yield what stands against a refund that was sent: its own is why the rest may not fit now."""
    if units is None:  # stored by the version before, which guessed the currency
        yield _no_such_amount(refund, payment.currency)._replace(failed=False)
    if by_hand := made_by_hand(refund, payment.refunds, units):
        why = f"it may have been refunded by hand: {described(by_hand)}"
        yield Objection(reviews.BY_HAND, why, by_hand=ids(by_hand))


def _no_such_amount(refund: Refund, currency: str) -> Objection:
    if refund.currency not in ("", currency):
        who = "the version before assumed" if refund.amount_asked is None else "the event names"
        why = f"{who} {refund.currency.upper()}, the payment is in {currency.upper()}"
        return Objection(reviews.OTHER_CURRENCY, why, failed=True)
    why = f"{refund.asked} is no amount that {currency.upper()} has"
    return Objection(reviews.NO_EXACT_AMOUNT, why, failed=True)


def _of_whom(refund: Refund, payment: StripePayment) -> Iterator[Objection]:
    if payment.booking_id and payment.booking_id != refund.booking_id:
        why = f"the payment's metadata name booking {payment.booking_id!r}"
        yield Objection(reviews.OTHER_BOOKING, why)
    if refund.further_payment and not payment.booking_id:
        why = "another payment of the booking is refunded, and this one's metadata name no booking"
        yield Objection(reviews.UNNAMED_PAYMENT, why)
