"""The account in the sandbox: its payments, its refunds, and what Stripe allows to be done to them.

Objects: https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/api/refunds.
"""

import copy
import re
from collections.abc import Callable

from payments.sandbox import parameters
from payments.sandbox.errors import invalid, missing, refused
from payments.sandbox.objects import Object, Payment, charge, intent, money, new_id, new_refund
from payments.sandbox.pages import PAGE, page
from payments.sandbox.parameters import Parameters

Announce = Callable[[str, Object, Object], None]  # an event's type, object, former attributes

# There as soon as it is named, so that demos need no preparation.
NAMED_PAYMENT = re.compile(r"pi_sandbox_([1-9][0-9]{0,11})_([a-z]{3})(_\w+)?")

STATUSES = ("pending", "requires_action", "succeeded", "failed", "canceled")
GIVEN_BACK = ("failed", "canceled")  # the money is with the merchant again
REASONS = ("duplicate", "fraudulent", "requested_by_customer")

REFUND = ("amount", "charge", "metadata", "payment_intent", "reason")


class Unknown(LookupError):
    """The sandbox has no object of that id."""


class Account:
    """Payments and refunds, in the order of their creation. Callers hold a lock around it."""

    def __init__(self, *, now: Callable[[], int], announce: Announce) -> None:
        self._now, self._announce = now, announce
        self._payments: dict[str, Payment] = {}
        self._charges: dict[str, Payment] = {}
        self._refunds: dict[str, Object] = {}

    @property
    def refunds(self) -> list[Object]:
        return copy.deepcopy(list(self._refunds.values()))

    def add(self, payment: Payment) -> Payment:
        self._payments[payment.id] = self._charges[payment.charge] = payment
        return payment

    def new_payment(self, given: Parameters) -> Object:
        """Create a payment that is paid at once, whatever is said about how.

        https://docs.stripe.com/api/payment_intents/create
        """
        amount = parameters.integer(given, "amount")
        currency = parameters.text(given, "currency")
        if amount is None or currency is None:
            raise parameters.required("amount" if amount is None else "currency")
        if not re.fullmatch("[a-z]{3}", currency):
            raise invalid(
                f"Invalid currency: {currency}. Give three letters, in lower case.",
                param="currency",
            )
        noted = parameters.metadata(given)
        return intent(self.add(Payment(amount, currency, self._now(), metadata=noted)))

    def payment(self, identifier: str) -> Object:
        """https://docs.stripe.com/api/payment_intents/retrieve."""
        return intent(self._payment(identifier, param="intent"))

    def payments(self, given: Parameters) -> Object:
        parameters.only(given, PAGE)
        intents = {payment.id: intent(payment) for payment in self._payments.values()}
        return page(intents, given, kind="payment_intent", url="/v1/payment_intents")

    def new_refund(self, given: Parameters) -> Object:
        """Refund what is asked, or what is left: https://docs.stripe.com/api/refunds/create.

        Only the sum is checked: two refunds of less than half are two refunds, as with Stripe.
        """
        parameters.only(given, REFUND)
        amount = parameters.integer(given, "amount")
        noted = parameters.metadata(given)
        reason = parameters.text(given, "reason")
        if reason is not None and reason not in REASONS:
            message = (
                "Invalid reason: must be one of duplicate, fraudulent, or requested_by_customer"
            )
            raise invalid(message, param="reason")
        payment = self._to_refund(given)
        amount = self._refundable(payment, amount)
        refund = new_refund(payment, amount, self._now()) | {"metadata": noted, "reason": reason}
        self._refunds[refund["id"]] = refund
        self._announce("refund.created", copy.deepcopy(refund), {})
        if refund["status"] == "failed":
            self._announce("refund.failed", copy.deepcopy(refund), {})
        self._announce("charge.refunded", charge(payment, refunded=self._refunded(payment)), {})
        return copy.deepcopy(refund)

    def refund(self, identifier: str) -> Object:
        """https://docs.stripe.com/api/refunds/retrieve."""
        if identifier not in self._refunds:
            raise missing("refund", identifier, "refund")
        return copy.deepcopy(self._refunds[identifier])

    def list_refunds(self, given: Parameters) -> Object:
        """List refunds, newest first: https://docs.stripe.com/api/refunds/list."""
        parameters.only(given, ("charge", "payment_intent", *PAGE))
        chosen = copy.deepcopy(self._refunds)
        for name in ("charge", "payment_intent"):
            if wanted := parameters.text(given, name):
                if name == "payment_intent":
                    self._payment(wanted, param=name)
                chosen = {key: refund for key, refund in chosen.items() if refund[name] == wanted}
        return page(chosen, given, kind="refund", url="/v1/refunds")

    def payment_named(self, path: str, given: Parameters) -> str | None:
        """Tell which payment a request to ``/v1/refunds…`` speaks of."""
        refund = self._refunds.get(path.rpartition("/")[2])
        if refund:
            return str(refund["payment_intent"])
        charged = self._charges.get(str(given.get("charge")))
        named = given.get("payment_intent") or (charged.id if charged else None)
        return str(named) if named else None

    def change_refund(self, identifier: str, *, status: str, failure_reason: str = "") -> Object:
        """Let a refund go from one status to another, as a bank's answer may, days later.

        https://docs.stripe.com/refunds#failed-refunds

        Raises:
            Unknown: there is no such refund.
            ValueError: Stripe has no such status.
        """
        _check_status(status)
        refund = self._refunds.get(identifier)
        if refund is None:
            raise Unknown(f"The sandbox has no refund {identifier!r}.")
        former = refund["status"]
        refund["status"] = status
        refund.pop("failure_reason", None)
        if status == "failed":
            refund["failure_reason"] = failure_reason or "unknown"
            refund["failure_balance_transaction"] = new_id("txn")
        if status != former:
            self._announce("refund.updated", copy.deepcopy(refund), {"status": former})
            if status == "failed":
                self._announce("refund.failed", copy.deepcopy(refund), {})
        return copy.deepcopy(refund)

    def change_payment(
        self, identifier: str, *, disputed: bool | None = None, refund_status: str | None = None
    ) -> Object:
        """Dispute a payment, or say what its next refunds begin as.

        Raises:
            Unknown: there is no such payment.
            ValueError: Stripe has no such status.
        """
        if refund_status is not None:
            _check_status(refund_status)
        payment = self._found(identifier)
        if payment is None:
            raise Unknown(f"The sandbox has no payment intent {identifier!r}.")
        if disputed is not None:
            payment.disputed = disputed
        if refund_status is not None:
            payment.refund_status = refund_status
        return intent(payment)

    def _found(self, identifier: str) -> Payment | None:
        payment = self._payments.get(identifier)
        if payment is None and (named := NAMED_PAYMENT.fullmatch(identifier)):
            amount, currency = int(named.group(1)), named.group(2)
            charge = f"ch_{identifier.removeprefix('pi_')}"
            return self.add(Payment(amount, currency, self._now(), id=identifier, charge=charge))
        return payment

    def _payment(self, identifier: str, *, param: str) -> Payment:
        payment = self._found(identifier)
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
            raise invalid(f"Charge {charged} does not belong to PaymentIntent {named}.")
        if charged is None:
            raise invalid(
                "One of the following params should be provided for this request: payment_intent "
                "or charge."
            )
        return self._charges[charged]

    def _refundable(self, payment: Payment, amount: int | None) -> int:
        """Decide how much is refunded; https://docs.stripe.com/error-codes names the refusals."""
        if payment.disputed:
            message = f"Charge {payment.charge} has been charged back; cannot issue a refund."
            raise refused(message, code="charge_disputed")
        left = payment.amount - self._refunded(payment)
        if left <= 0:
            message = f"Charge {payment.charge} has already been refunded."
            raise refused(message, code="charge_already_refunded")
        if amount is not None and amount > left:
            # No code: only the message and the parameter tell it from other refusals.
            asked, rest = (money(units, payment.currency) for units in (amount, left))
            message = (
                f"Refund amount ({asked}) is greater than unrefunded amount on charge ({rest})"
            )
            raise refused(message, param="amount")
        return amount or left

    def _refunded(self, payment: Payment) -> int:
        """Sum what is or will be with the customer; failed and cancelled refunds are not."""
        return sum(
            refund["amount"]
            for refund in self._refunds.values()
            if refund["payment_intent"] == payment.id and refund["status"] not in GIVEN_BACK
        )


def _check_status(status: str) -> None:
    if status not in STATUSES:
        raise ValueError(f"status is {status!r}: give one of {', '.join(STATUSES)}")
