"""The account in the sandbox: payments, refunds, and the rules that Stripe has for them.

Objects: https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/api/charges,
https://docs.stripe.com/api/refunds.
"""

import re
import threading
import time
from dataclasses import dataclass

from booking_platform.development.stripe_sandbox import objects, parameters
from booking_platform.development.stripe_sandbox.errors import (
    SavedError,
    StripeError,
    insufficient_balance,
    missing,
)
from booking_platform.development.stripe_sandbox.faults import Fault
from booking_platform.development.stripe_sandbox.keys import Keys
from booking_platform.development.stripe_sandbox.objects import (
    GIVEN_BACK,
    PAGE,
    Object,
    Payment,
    intent,
    page,
)
from booking_platform.development.stripe_sandbox.parameters import Parameters
from booking_platform.development.stripe_sandbox.webhooks import Webhooks

# There as soon as it is named, so that demos need no preparation: a payment intent with its charge
# (pi_…), or a charge alone (ch_…, py_…).
NAMED_PAYMENT = re.compile(r"(pi|ch|py)_sandbox_([1-9][0-9]{0,11})_([a-z]{3})(_\w+)?")

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
    """All that the sandbox remembers. A reset takes a new account and ends the old one.

    Callers hold the lock until they have copied or written out the objects that they get.
    """

    def __init__(self, webhooks: Webhooks, *, latency: float) -> None:
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.latency = latency  # seconds before each answer
        self.ahead = 0.0  # seconds that the account's clock is ahead
        self.payments: dict[str, Payment] = {}  # by the id of the intent, oldest first
        self.balances: dict[str, int] = {}  # minor units by currency; without an entry: no limit
        self.refunds: dict[str, Object] = {}  # oldest first
        self.requests: list[Record] = []
        self.faults: list[Fault] = []
        self.keys = Keys()
        self._given: list[Fault] = []
        self._charges: dict[str, Payment] = {}
        self._webhooks = webhooks

    def now(self) -> int:
        return int(time.time() + self.ahead)

    def add(self, payment: Payment) -> Payment:
        self._charges[payment.charge] = payment
        if payment.id:
            self.payments[payment.id] = payment
        return payment

    def fail(self, fault: Fault) -> None:
        self.faults.append(fault)
        self._given.append(fault)

    def release(self) -> None:
        """End the waits of all faults until now, those that no request has met included."""
        for fault in self._given:
            fault.over.set()
        self._given.clear()

    def end(self) -> None:
        """Drop the requests that wait, and execute no more."""
        self.ended.set()
        with self.lock:
            self.release()

    def find(self, identifier: str) -> Payment | None:
        """Return the payment of an intent's or a charge's id.

        It is created if the id names amount and currency.
        """
        payment = self.payments.get(identifier) or self._charges.get(identifier)
        if payment is None and (named := NAMED_PAYMENT.fullmatch(identifier)):
            kind, amount, currency = named.group(1), int(named.group(2)), named.group(3)
            whole = kind == "pi"
            intent_id, charge = (identifier, f"ch_{identifier}") if whole else (None, identifier)
            return self.add(Payment(amount, currency, self.now(), id=intent_id, charge=charge))
        return payment

    def announce(self, kind: str, about: Object, former: Object | None = None) -> None:
        """Send a webhook about an object; ``former`` has the values that its change replaced."""
        self._webhooks.announce(kind, about, former=former or {}, now=self.now())

    def change_refund(self, refund: Object, status: str, failure_reason: str) -> None:
        """Change a refund's status; what comes back from the customer is in the balance again."""
        former = refund["status"]
        if status == former:
            return
        back = (status in GIVEN_BACK) - (former in GIVEN_BACK)
        self._book(refund["currency"], back * refund["amount"])
        refund["status"] = status
        refund.pop("failure_reason", None)
        if status == "failed":
            refund["failure_reason"] = failure_reason or "unknown"
            refund["failure_balance_transaction"] = objects.new_id("txn")
        self.announce("refund.updated", refund, {"status": former})
        if status == "failed":
            self.announce("refund.failed", refund)

    def new_payment(self, given: Parameters) -> Object:
        """Create a payment that is paid at once, unless the request says ``confirm=false``.

        What else it says about how to pay means nothing here.

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
        status = "requires_payment_method" if given.get("confirm") == "false" else "succeeded"
        paid = Payment(amount, currency, self.now(), metadata=noted, status=status)
        return intent(self.add(paid))

    def payment(self, identifier: str) -> Object:
        """Retrieve a payment: https://docs.stripe.com/api/payment_intents/retrieve."""
        return intent(self._payment(identifier, param="intent"))

    def charge(self, identifier: str) -> Object:
        """Retrieve a charge: https://docs.stripe.com/api/charges/retrieve."""
        return objects.charge(self._charge(identifier, param="charge"))

    def list_payments(self, given: Parameters) -> Object:
        """List payments, newest first: https://docs.stripe.com/api/payment_intents/list."""
        parameters.only(given, (*PAGE, "expand"))
        intents = [intent(payment) for payment in self.payments.values()]
        return page(intents, given, kind="payment_intent", url="/v1/payment_intents")

    def new_refund(self, given: Parameters) -> Object:
        """Refund the amount of the request, or the rest: https://docs.stripe.com/api/refunds/create.

        Only the sum is checked: two refunds of less than half are two refunds, as with Stripe.
        """
        parameters.only(
            given, ("amount", "charge", "expand", "metadata", "payment_intent", "reason")
        )
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
        payment.refunds.append(refund)
        if refund["status"] not in GIVEN_BACK:
            self._book(payment.currency, -amount)
        self.announce("refund.created", refund)
        if refund["status"] == "failed":
            self.announce("refund.failed", refund)
        self.announce("charge.refunded", objects.charge(payment))
        return refund

    def refund(self, identifier: str) -> Object:
        """Retrieve a refund: https://docs.stripe.com/api/refunds/retrieve."""
        if identifier not in self.refunds:
            raise missing("refund", identifier, "refund")
        return self.refunds[identifier]

    def list_refunds(self, given: Parameters) -> Object:
        """List refunds, newest first: https://docs.stripe.com/api/refunds/list."""
        parameters.only(given, ("charge", "expand", "payment_intent", *PAGE))
        charge, whole = (parameters.text(given, name) for name in ("charge", "payment_intent"))
        chosen = list(self.refunds.values())
        if charge:
            chosen = self._charge(charge, param="charge").refunds
        if whole:
            of_intent = self._payment(whole, param="payment_intent").refunds
            chosen = [refund for refund in of_intent if charge in (None, refund["charge"])]
        return page(chosen, given, kind="refund", url="/v1/refunds")

    def refunds_of(self, charge: str, given: Parameters) -> Object:
        """List the refunds of a charge, newest first, as the charge itself holds the first page.

        https://docs.stripe.com/api/charges/object#charge_object-refunds
        """
        listed = self.list_refunds({**given, "charge": charge})
        return listed | {"url": f"/v1/charges/{charge}/refunds"}

    def named(self, path: str, given: Parameters) -> set[str]:
        """Return the ids of intent and charge that a request is about, those it names at least."""
        last = path.rpartition("/")[2]
        refund = self.refunds.get(last, {})
        ids = (last, given.get("charge"), given.get("payment_intent"), refund.get("charge"))
        named = {each for each in ids if isinstance(each, str)}
        payments = [payment for each in named if (payment := self.find(each))]
        return named.union(*((each.id or "", each.charge) for each in payments))

    def _payment(self, identifier: str, *, param: str) -> Payment:
        payment = self.find(identifier)
        if payment is None or payment.id != identifier:
            raise missing("payment_intent", identifier, param)
        return payment

    def _charge(self, identifier: str, *, param: str) -> Payment:
        payment = self.find(identifier)
        if payment is None or payment.charge != identifier:
            raise missing("charge", identifier, param)
        return payment

    def _to_refund(self, given: Parameters) -> Payment:
        named, charged = (parameters.text(given, name) for name in ("payment_intent", "charge"))
        if charged is not None:
            payment = self._charge(charged, param="id")  # "id": observed in test mode
            if named not in (None, payment.id):
                raise StripeError(f"Charge {charged} does not belong to PaymentIntent {named}.")
            return payment
        if named is None:
            raise StripeError(
                "One of the following params should be provided for this request: payment_intent "
                "or charge."
            )
        return self._payment(named, param="payment_intent")

    def _refundable(self, payment: Payment, amount: int | None) -> int:
        """Return the units to refund; https://docs.stripe.com/error-codes names the refusals."""
        if payment.status != "succeeded":
            # The message is quoted in many places; the code is the one that the list has for it.
            named = f"PaymentIntent ({payment.id})" if payment.id else f"Charge ({payment.charge})"
            message = f"This {named} does not have a successful charge to refund."
            raise SavedError(message, code="payment_intent_unexpected_state")
        if payment.disputed:
            message = f"Charge {payment.charge} has been charged back; cannot issue a refund."
            raise SavedError(message, code="charge_disputed")
        left = payment.amount - payment.refunded
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
        units = amount or left
        if units > self.balances.get(payment.currency, units):
            raise insufficient_balance()
        return units

    def _book(self, currency: str, units: int) -> None:
        """Add to the balance of a currency; one without a limit stays so."""
        if currency in self.balances:
            self.balances[currency] += units
