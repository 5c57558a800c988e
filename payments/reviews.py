"""Why a refund waits for a person: codes, which are stored, what they mean to the staff, and what to do."""

from typing import NamedTuple


class Review(NamedTuple):
    """One such reason."""

    meaning: str
    advice: str  # what a person can do, and whether to try again can help
    approvable: bool = False  # a person may let the refund go out in spite of it
    at_once: bool = False  # the same for many refunds together


REVIEWS: dict[str, Review] = {}  # by code

BY_DASHBOARD = "Refund in Stripe's dashboard what the customer is owed, then mark it settled"


def _review(
    code: str, meaning: str, advice: str, *, approvable: bool = False, at_once: bool = False
) -> str:
    REVIEWS[code] = Review(meaning, advice, approvable, at_once)
    return code


NO_SUCH_PAYMENT = _review(
    "no_such_payment",
    "Stripe has no such payment",
    "Compare the payment's id with the shop's. If the platform asks the wrong Stripe account, have its key "
    "set right, then try now. If the id is wrong, to try now can't help: refund the right payment in "
    "Stripe's dashboard, then mark it settled.",
)
NOT_PAID = _review(
    "not_paid",
    "the payment has brought no money",
    "There is nothing to give back by this payment: mark it settled. If the customer paid in another way, "
    "pay that back first. To try now helps only if money has come in since.",
)
PROCESSING = _review(
    "processing",
    "the payment is still on its way, after weeks",
    "Look in Stripe's dashboard what holds it up. If it has succeeded by now, try now; if it has failed, "
    "mark it settled.",
)
SAME_PAYMENT = _review(
    "same_payment",
    "another refund of this booking is of the same payment, under another id",
    "Look at the other refund, by the story of the booking. If the customer has got the money by that, mark "
    "this one settled. To try now can't help: the other one stays.",
)
OTHER_CURRENCY = _review(
    "other_currency",
    "the event names another currency than the payment's",
    f"To try now can't help: the platform converts no money. {BY_DASHBOARD}. Tell whoever publishes the "
    "cancellations.",
)
NO_EXACT_AMOUNT = _review(
    "no_exact_amount",
    "the payment's currency does not have such an amount",
    f"To try now can't help: the platform rounds no money. {BY_DASHBOARD}. Tell whoever publishes the "
    "cancellations.",
)
OTHER_BOOKING = _review(
    "other_booking",
    "the payment's metadata name another booking",
    "Find out in the shop whose payment it is. If it is this booking's, approve the refund. If not, refund "
    "the right payment in Stripe's dashboard, then mark it settled. To try now can't help.",
    approvable=True,
)
UNNAMED_PAYMENT = _review(
    "unnamed_payment",
    "a further payment of the booking, whose metadata name no booking",
    "Find out in the shop whose payment it is. If it is this booking's, approve the refund; if not, mark it "
    "settled. To try now can't help.",
    approvable=True,
    at_once=True,
)
NOT_COVERED = _review(
    "not_covered",
    "what is left of the payment does not cover the amount",
    "To try now can't help while the payment is what it is: more is asked for than is left of it. Find out "
    f"in the shop how much was paid. {BY_DASHBOARD}.",
)
BY_HAND = _review(
    "by_hand",
    "the payment has a refund that may have been made by hand for this",
    "Look at that refund in Stripe's dashboard. If it was for this cancellation, mark this one settled. If it "
    "was for something else, approve this one: the money goes out in addition. To try now can't help.",
    approvable=True,
)
FORGOTTEN = _review(
    "forgotten",
    "Stripe has a refund of the booking that the store does not know, as after a restored backup",
    "Look at that refund in Stripe's dashboard. If it gave the customer this money, mark this one settled. "
    "Approve it only if the customer is owed this amount besides. To try now can't help.",
    approvable=True,
)
ABOVE_LIMIT = _review(
    "above_limit",
    "more than REFUND_REVIEW_ABOVE allows",
    "Compare the amount with what was paid in the shop. If it is right, approve the refund; if not, mark it "
    "settled. To try now can't help: only an approval passes the limit.",
    approvable=True,
    at_once=True,
)
NO_BALANCE = _review(
    "no_balance",
    "the balance of the Stripe account has not sufficed for long",
    "Have money added to the balance in Stripe's dashboard, then try now.",
)
