"""The sandbox as tests hold it: looked into, changed, made to fail."""

import copy
import re
from collections.abc import Sequence

from booking_platform.development.stripe_sandbox.account import Account, Record
from booking_platform.development.stripe_sandbox.faults import Fault
from booking_platform.development.stripe_sandbox.objects import (
    CHARGE_STATUS,
    Object,
    Payment,
    charge,
    intent,
)
from booking_platform.development.stripe_sandbox.webhooks import API_VERSION, Webhooks

PAYMENT_STATUSES = tuple(CHARGE_STATUS)
REFUND_STATUSES = ("pending", "requires_action", "succeeded", "failed", "canceled")


class Unknown(LookupError):
    """The sandbox has no object of that id."""


class Sandbox:
    """An account of Stripe's test mode with its API, its clock and its webhooks."""

    def __init__(
        self,
        *,
        webhook_url: str,
        webhook_secret: str,
        webhook_version: str = API_VERSION,
        latency: float,
    ) -> None:
        if latency < 0:
            raise ValueError(f"latency is {latency}: it can't be negative")
        self.url = ""  # once it listens
        self._latency = latency
        self._webhooks = Webhooks(webhook_url, webhook_secret, webhook_version)
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

    def payment(
        self,
        *,
        amount: int,
        currency: str,
        metadata: dict[str, str] | None = None,
        status: str = "succeeded",
    ) -> str:
        """Add a payment intent, in minor units, and return the intent's id.

        Raises:
            ValueError: the amount is no positive integer, the currency not three small letters, the
                metadata are not texts by name, or Stripe has no such status.
        """
        if type(amount) is not int or amount < 1:
            raise ValueError(f"amount is {amount!r}: give minor units, 15000 for 150.00 euros")
        _check_currency(currency)
        noted = metadata or {}
        if not all(isinstance(text, str) for pair in noted.items() for text in pair):
            raise ValueError(f"metadata is {metadata!r}: give texts by name")
        _check_status(status, PAYMENT_STATUSES)
        account = self.account
        with account.lock:
            payment = Payment(amount, currency, account.now(), metadata=dict(noted), status=status)
            account.add(payment)
        return str(payment.id)

    def change_payment(
        self,
        identifier: str,
        *,
        disputed: bool | None = None,
        refund_status: str | None = None,
        status: str | None = None,
    ) -> Object:
        """Change a payment, named by its intent or its charge: how it stands, and whether it is disputed.

        ``refund_status`` is what new refunds of the payment begin with.

        Raises:
            Unknown: there is no such payment.
            ValueError: Stripe has no such status.
        """
        if refund_status is not None:
            _check_status(refund_status, REFUND_STATUSES)
        if status is not None:
            _check_status(status, PAYMENT_STATUSES)
        account = self.account
        with account.lock:
            payment = account.find(identifier)
            if payment is None:
                raise Unknown(f"The sandbox has no payment {identifier!r}.")
            payment.disputed = payment.disputed if disputed is None else disputed
            payment.refund_status = refund_status or payment.refund_status
            payment.status = status or payment.status
            return intent(payment) if payment.id else charge(payment)

    def set_balance(self, currency: str, minor_units: int | None) -> None:
        """Set what the account has of a currency for refunds; None is no limit, as at first.

        A refund takes from it, and one that fails or is cancelled later gives back.

        Raises:
            ValueError: the currency is not three small letters, or the units are no integer.
        """
        _check_currency(currency)
        if minor_units is not None and type(minor_units) is not int:
            raise ValueError(
                f"minor_units is {minor_units!r}: give an integer, or none for no limit"
            )
        with self.account.lock:
            if minor_units is None:
                self.account.balances.pop(currency, None)
            else:
                self.account.balances[currency] = minor_units

    def change_refund(self, identifier: str, *, status: str, failure_reason: str = "") -> Object:
        """Change a refund's status, as a bank's answer may, days later; a webhook announces it.

        https://docs.stripe.com/refunds#failed-refunds

        Raises:
            Unknown: there is no such refund.
            ValueError: Stripe has no such status.
        """
        _check_status(status, REFUND_STATUSES)
        account = self.account
        with account.lock:
            refund = account.refunds.get(identifier)
            if refund is None:
                raise Unknown(f"The sandbox has no refund {identifier!r}.")
            account.change_refund(refund, status, failure_reason)
            return copy.deepcopy(refund)

    def fail(
        self,
        fault: str,
        times: int = 1,
        payment: str | None = None,
        seconds: float = 0.0,
        method: str = "POST",
    ) -> None:
        """Let the next requests go wrong that create refunds, or, with GET, read about payments.

        ``faults.py`` lists the faults. ``payment`` is the id of an intent or of a charge.

        ``seconds`` are those of ``slow_…``, if no ``release`` comes first.
        ``times=0`` is until ``clear_faults`` or ``reset``. A request takes the first fault that
        fits it; a replay takes one too, but there ``error_…`` and ``slow_before`` change nothing.

        Raises:
            ValueError: there is no such fault, or a number is negative.
        """
        with self.account.lock:
            self.account.fail(Fault(fault, times, payment, seconds, method))

    def release(self) -> None:
        """Let go on what ``slow_…`` holds up, as if the seconds had passed."""
        with self.account.lock:
            self.account.release()

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
        former.end()

    def close(self) -> None:
        self._webhooks.close()


def _check_status(status: str, known: Sequence[str]) -> None:
    if status not in known:
        raise ValueError(f"status is {status!r}: give one of {', '.join(known)}")


def _check_currency(currency: str) -> None:
    if not re.fullmatch("[a-z]{3}", currency):
        raise ValueError(f"currency is {currency!r}: give three letters, in lower case")
