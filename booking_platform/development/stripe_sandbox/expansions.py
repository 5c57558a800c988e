"""Objects in place of their ids, where a request asks: https://docs.stripe.com/expand."""

from collections.abc import Sequence

from booking_platform.development.stripe_sandbox.account import Account
from booking_platform.development.stripe_sandbox.errors import StripeError
from booking_platform.development.stripe_sandbox.objects import Object

DEEPEST = 4  # levels: https://docs.stripe.com/api/expanding_objects

# What can be expanded in each kind of answer, and into what. The lists have plural names.
EXPANDABLE = {
    "payment_intent": {"latest_charge": "charge"},
    "charge": {"payment_intent": "payment_intent", "refunds": "refunds"},
    "refund": {"charge": "charge", "payment_intent": "payment_intent"},
    "payment_intents": {"data": "payment_intent"},
    "refunds": {"data": "refund"},
}


def check(kind: str, paths: Sequence[str]) -> None:
    """Refuse, before anything is done, what can't be expanded in an answer of a kind.

    Worded as Stripe's answers are quoted in many places: without a code, without a parameter.
    """
    for path in paths:
        names = path.split(".")
        if len(names) > DEEPEST:
            raise StripeError(f"You cannot expand more than {DEEPEST} levels of a property")
        of = kind
        for name in names:
            if name not in EXPANDABLE[of]:
                raise StripeError(f"This property cannot be expanded ({name}).")
            of = EXPANDABLE[of][name]


def expanded(account: Account, answer: Object, paths: Sequence[str]) -> Object:
    """Return an answer with objects in place of ids; ``answer`` itself stays as it is."""
    for path in paths:
        answer = _expanded(account, answer, path.split("."))
    return answer


def _expanded(account: Account, about: Object, names: Sequence[str]) -> Object:
    name, *rest = names
    if name == "data":
        return about | {
            "data": [_expanded(account, each, rest) if rest else each for each in about["data"]]
        }
    value = about.get(name)
    if name == "refunds" and value is None:
        value = account.refunds_of(about["id"], {})
    elif isinstance(value, str):
        value = account.payment(value) if name == "payment_intent" else account.charge(value)
    return about | {name: _expanded(account, value, rest) if rest and value else value}
