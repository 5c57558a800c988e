"""The account in the sandbox: payments, refunds, and the rules that Stripe has for them.

Objects: https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/api/refunds.
"""

import copy
import re
import threading
import time
from dataclasses import dataclass

from booking_platform.development.stripe_sandbox import objects, parameters
from booking_platform.development.stripe_sandbox.errors import SavedError, StripeError, missing
from booking_platform.development.stripe_sandbox.faults import Fault
from booking_platform.development.stripe_sandbox.keys import Keys
from booking_platform.development.stripe_sandbox.objects import PAGE, Object, Payment, intent, page
from booking_platform.development.stripe_sandbox.parameters import Parameters
from booking_platform.development.stripe_sandbox.webhooks import Webhooks, event

# There as soon as it is named, so that demos need no preparation.
NAMED_PAYMENT = re.compile(r"pi_sandbox_([1-9][0-9]{0,11})_([a-z]{3})(_\w+)?")

GIVEN_BACK = ("failed", "canceled")  # the money is with the merchant again
REASONS = ("duplicate", "fraudulent", "requested_by_customer")


@dataclass
class Record:
    """A request as it came, without its credentials, and how it was answered."""

    method: str
    path: str
    query: str
    key: str | None  # Idempotency-Key
    body: bytes
    status: int | None = None  # None while, or because, it was never answered
    replayed: bool = False
    fault: str | None = None
    answered: bool = False


class Account:
    """All that the sandbox remembers. A reset takes a new account and sets ``ended`` on the old one.

    Callers hold the lock until they have copied or written out the objects that they get.
    """

    def __init__(self, webhooks: Webhooks, *, latency: float) -> None:
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.latency = latency  # seconds before each answer
        self.ahead = 0.0  # seconds that the account's clock is ahead
        self.payments: dict[str, Payment] = {}  # oldest first
        self.refunds: dict[str, Object] = {}  # oldest first
        self.requests: list[Record] = []
        self.faults: list[Fault] = []
        self.keys = Keys()
        self._charges: dict[str, Payment] = {}
        self._webhooks = webhooks

    def now(self) -> int:
        return int(time.time() + self.ahead)

    def add(self, payment: Payment) -> Payment:
        self.payments[payment.id] = self._charges[payment.charge] = payment
        return payment

    def find(self, identifier: str) -> Payment | None:
        """Return the payment of an id; create the payment if the id names amount and currency."""
        payment = self.payments.get(identifier)
        if payment is None and (named := NAMED_PAYMENT.fullmatch(identifier)):
            amount, currency = int(named.group(1)), named.group(2)
            charge = f"ch_{identifier.removeprefix('pi_')}"
            return self.add(Payment(amount, currency, self.now(), id=identifier, charge=charge))
        return payment

    def announce(self, kind: str, about: Object, former: Object | None = None) -> None:
        """Send a webhook about an object; ``former`` has the values that its change replaced."""
        about = copy.deepcopy(about)
        self._webhooks.send(event(kind, about, former=former or {}, now=self.now()))

    def new_payment(self, given: Parameters) -> Object:
        """Create a payment that is paid at once, whatever the request says about how to pay.

        https://docs.stripe.com/api/payment_intents/create
        """
        amount = parameters.integer(given, "amount")
        currency = parameters.text(given, "currency")
        if amount is None or currency is None:
            name = "amount" if amount is None else "currency"
            message = f"Missing required param: {name}."
            raise StripeError(message, code="parameter_missing", param=name)
        if not re.fullmatch("[a-z]{3}", currency):
            message = f"Invalid currency: {currency}. Give three letters, in lower case."
            raise StripeError(message, param="currency")
        noted = parameters.metadata(given)
        return intent(self.add(Payment(amount, currency, self.now(), metadata=noted)))

    def payment(self, identifier: str) -> Object:
        """Retrieve a payment: https://docs.stripe.com/api/payment_intents/retrieve."""
        return intent(self._payment(identifier, param="intent"))

    def list_payments(self, given: Parameters) -> Object:
        """List payments, newest first: https://docs.stripe.com/api/payment_intents/list."""
        parameters.only(given, PAGE)
        intents = [intent(payment) for payment in self.payments.values()]
        return page(intents, given, kind="payment_intent", url="/v1/payment_intents")

    def new_refund(self, given: Parameters) -> Object:
        """Refund the amount of the request, or the rest: https://docs.stripe.com/api/refunds/create.

        Only the sum is checked: two refunds of less than half are two refunds, as with Stripe.
        """
        parameters.only(given, ("amount", "charge", "metadata", "payment_intent", "reason"))
        amount = parameters.integer(given, "amount")
        noted = parameters.metadata(given)
        reason = parameters.text(given, "reason")
        if reason is not None and reason not in REASONS:
            message = (
                "Invalid reason: must be one of duplicate, fraudulent, or requested_by_customer"
            )
            raise StripeError(message, param="reason")
        payment = self._to_refund(given)
        amount = self._refundable(payment, amount)
        refund = objects.new_refund(payment, amount, noted, reason, now=self.now())
        self.refunds[refund["id"]] = refund
        self.announce("refund.created", refund)
        if refund["status"] == "failed":
            self.announce("refund.failed", refund)
        charge = objects.charge(payment, refunded=self._refunded(payment))
        self.announce("charge.refunded", charge)
        return refund

    def refund(self, identifier: str) -> Object:
        """Retrieve a refund: https://docs.stripe.com/api/refunds/retrieve."""
        if identifier not in self.refunds:
            raise missing("refund", identifier, "refund")
        return self.refunds[identifier]

    def list_refunds(self, given: Parameters) -> Object:
        """List refunds, newest first: https://docs.stripe.com/api/refunds/list."""
        parameters.only(given, ("charge", "payment_intent", *PAGE))
        chosen = list(self.refunds.values())
        for name in ("charge", "payment_intent"):
            if wanted := parameters.text(given, name):
                if name == "payment_intent":
                    self._payment(wanted, param=name)
                chosen = [refund for refund in chosen if refund[name] == wanted]
        return page(chosen, given, kind="refund", url="/v1/refunds")

    def payment_named(self, path: str, given: Parameters) -> str | None:
        """Return the id of the payment that a request to ``/v1/refunds…`` is about."""
        refund = self.refunds.get(path.rpartition("/")[2])
        if refund:
            return str(refund["payment_intent"])
        charged = self._charges.get(str(given.get("charge")))
        named = given.get("payment_intent") or (charged.id if charged else None)
        return str(named) if named else None

    def _payment(self, identifier: str, *, param: str) -> Payment:
        payment = self.find(identifier)
        if payment is None:
            raise missing("payment_intent", identifier, param)
        return payment

    def _to_refund(self, given: Parameters) -> Payment:
        named, charged = (parameters.text(given, name) for name in ("payment_intent", "charge"))
        if charged is not None and charged not in self._charges:
            raise missing("charge", charged, "id")  # "id": observed in test mode
        if named is not None:
            payment = self._payment(named, param="payment_intent")
            if charged in (None, payment.charge):
                return payment
            raise StripeError(f"Charge {charged} does not belong to PaymentIntent {named}.")
        if charged is None:
            raise StripeError(
                "One of the following params should be provided for this request: payment_intent "
                "or charge."
            )
        return self._charges[charged]

    def _refundable(self, payment: Payment, amount: int | None) -> int:
        """Return the units to refund; https://docs.stripe.com/error-codes names the refusals."""
        if payment.disputed:
            message = f"Charge {payment.charge} has been charged back; cannot issue a refund."
            raise SavedError(message, code="charge_disputed")
        left = payment.amount - self._refunded(payment)
        if left <= 0:
            message = f"Charge {payment.charge} has already been refunded."
            raise SavedError(message, code="charge_already_refunded")
        if amount is not None and amount > left:
            # No code: only the message and the parameter tell it from other refusals.
            asked, rest = (objects.money(units, payment.currency) for units in (amount, left))
            message = (
                f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
            )
            raise SavedError(message, param="amount")
        return amount or left

    def _refunded(self, payment: Payment) -> int:
        """Sum the refunds that are or will be with the customer, not the failed and cancelled."""
        return sum(
            refund["amount"]
            for refund in self.refunds.values()
            if refund["payment_intent"] == payment.id and refund["status"] not in GIVEN_BACK
        )
