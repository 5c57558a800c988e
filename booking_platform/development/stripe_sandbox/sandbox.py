"""The sandbox as tests hold it: looked into, changed, made to fail."""

import copy
import re

from booking_platform.development.stripe_sandbox.account import Account, Record
from booking_platform.development.stripe_sandbox.faults import Fault
from booking_platform.development.stripe_sandbox.objects import Object, Payment, intent, new_id
from booking_platform.development.stripe_sandbox.webhooks import Webhooks

STATUSES = ("pending", "requires_action", "succeeded", "failed", "canceled")  # of a refund


class Unknown(LookupError):
    """The sandbox has no object of that id."""


class Sandbox:
    """An account of Stripe's test mode with its API, its clock and its webhooks."""

    def __init__(self, *, webhook_url: str, webhook_secret: str, latency: float) -> None:
        if latency < 0:
            raise ValueError(f"latency is {latency}: it can't be negative")
        self.url = ""  # once it listens
        self._latency = latency
        self._webhooks = Webhooks(webhook_url, webhook_secret)
        self._begin()

    def _begin(self) -> None:
        self._sent_before = self._webhooks.sent
        self.account = Account(self._webhooks, latency=self._latency)

    @property
    def refunds(self) -> list[Object]:
        """All refunds as they are now, oldest first; a copy."""
        with self.account.lock:
            return copy.deepcopy(list(self.account.refunds.values()))

    @property
    def requests(self) -> list[Record]:
        """All requests to Stripe's API, in the order they came; a copy."""
        with self.account.lock:
            return copy.deepcopy(self.account.requests)

    @property
    def webhooks_sent(self) -> int:
        """How many webhooks were answered with a 2xx."""
        return self._webhooks.sent - self._sent_before

    def payment(self, *, amount: int, currency: str) -> str:
        """Add a payment intent that succeeded, in minor units, and return the intent's id.

        Raises:
            ValueError: the amount is no positive integer, or the currency not three small letters.
        """
        if type(amount) is not int or amount < 1:
            raise ValueError(f"amount is {amount!r}: give minor units, 15000 for 150.00 euros")
        if not re.fullmatch("[a-z]{3}", currency):
            raise ValueError(f"currency is {currency!r}: give three letters, in lower case")
        account = self.account
        with account.lock:
            return account.add(Payment(amount, currency, account.now())).id

    def change_payment(
        self, identifier: str, *, disputed: bool | None = None, refund_status: str | None = None
    ) -> Object:
        """Dispute a payment, or set the status that new refunds of the payment begin with.

        Raises:
            Unknown: there is no such payment.
            ValueError: Stripe has no such status.
        """
        if refund_status is not None:
            _check_status(refund_status)
        with self.account.lock:
            payment = self.account.find(identifier)
            if payment is None:
                raise Unknown(f"The sandbox has no payment intent {identifier!r}.")
            if disputed is not None:
                payment.disputed = disputed
            if refund_status is not None:
                payment.refund_status = refund_status
            return intent(payment)

    def change_refund(self, identifier: str, *, status: str, failure_reason: str = "") -> Object:
        """Change a refund's status, as a bank's answer may, days later; a webhook announces it.

        https://docs.stripe.com/refunds#failed-refunds

        Raises:
            Unknown: there is no such refund.
            ValueError: Stripe has no such status.
        """
        _check_status(status)
        account = self.account
        with account.lock:
            refund = account.refunds.get(identifier)
            if refund is None:
                raise Unknown(f"The sandbox has no refund {identifier!r}.")
            former = refund["status"]
            refund["status"] = status
            refund.pop("failure_reason", None)
            if status == "failed":
                refund["failure_reason"] = failure_reason or "unknown"
                refund["failure_balance_transaction"] = new_id("txn")
            if status != former:
                account.announce("refund.updated", refund, {"status": former})
                if status == "failed":
                    account.announce("refund.failed", refund)
            return copy.deepcopy(refund)

    def fail(
        self,
        fault: str,
        times: int = 1,
        payment: str | None = None,
        seconds: float = 0.0,
        method: str = "POST",
    ) -> None:
        """Let the next requests about refunds go wrong; ``faults.py`` lists the faults.

        ``times=0`` is until ``clear_faults`` or ``reset``. A request takes the first fault that
        fits it; a replay takes one too, but there ``error_…`` and ``slow_before`` change nothing.

        Raises:
            ValueError: there is no such fault, or a number is negative.
        """
        with self.account.lock:
            self.account.faults.append(Fault(fault, times, payment, seconds, method))

    def clear_faults(self) -> None:
        with self.account.lock:
            self.account.faults.clear()

    def advance(self, seconds: float) -> None:
        """Put the clock forward: keys are forgotten, new objects are younger.

        Raises:
            ValueError: that is no positive number.
        """
        if not isinstance(seconds, int | float) or seconds < 0:
            raise ValueError(f"seconds is {seconds!r}: the clock only goes forward")
        with self.account.lock:
            self.account.ahead += seconds

    def reset(self) -> None:
        """Forget everything. Requests that wait are dropped, and touch nothing that comes after."""
        former = self.account
        self._begin()
        former.ended.set()

    def close(self) -> None:
        self._webhooks.close()


def _check_status(status: str) -> None:
    if status not in STATUSES:
        raise ValueError(f"status is {status!r}: give one of {', '.join(STATUSES)}")
