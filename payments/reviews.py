"""Why a refund waits for a person: codes, which are stored, and what they mean to the staff."""

from typing import NamedTuple


class Review(NamedTuple):
    """One such reason."""

    meaning: str
    approvable: bool = False  # a person may let the refund go out in spite of it
    at_once: bool = False  # the same for many refunds together


REVIEWS: dict[str, Review] = {}  # by code


def _review(code: str, meaning: str, *, approvable: bool = False, at_once: bool = False) -> str:
    REVIEWS[code] = Review(meaning, approvable, at_once)
    return code


NO_SUCH_PAYMENT = _review("no_such_payment", "Stripe has no such payment")
NOT_PAID = _review("not_paid", "the payment has brought no money")
PROCESSING = _review("processing", "the payment is still on its way, after weeks")
SAME_PAYMENT = _review(
    "same_payment", "another refund of this booking is of the same payment, under another id"
)
OTHER_CURRENCY = _review("other_currency", "the event names another currency than the payment's")
NO_EXACT_AMOUNT = _review("no_exact_amount", "the payment's currency does not have such an amount")
OTHER_BOOKING = _review(
    "other_booking", "the payment's metadata name another booking", approvable=True
)
UNNAMED_PAYMENT = _review(
    "unnamed_payment",
    "a further payment of the booking, whose metadata name no booking",
    approvable=True,
    at_once=True,
)
NOT_COVERED = _review("not_covered", "what is left of the payment does not cover the amount")
BY_HAND = _review(
    "by_hand", "the payment has a refund that may have been made by hand for this", approvable=True
)
FORGOTTEN = _review(
    "forgotten",
    "Stripe has a refund of the booking that the store does not know, as after a restored backup",
    approvable=True,
)
ABOVE_LIMIT = _review(
    "above_limit", "more than REFUND_REVIEW_ABOVE allows", approvable=True, at_once=True
)
NO_BALANCE = _review("no_balance", "the balance of the Stripe account has not sufficed for long")
