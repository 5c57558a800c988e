"""The sandbox as tests hold it: started, looked into, made to fail."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from payments.sandbox.api import Answer, Api, Record
from payments.sandbox.faults import Fault
from payments.sandbox.objects import Object, Payment
from payments.sandbox.server import Server
from payments.sandbox.state import Account
from payments.sandbox.webhooks import Webhooks


class Sandbox:
    """An account of Stripe's test mode with its API, its clock and its webhooks."""

    def __init__(self, *, webhook_url: str, webhook_secret: str, latency: float) -> None:
        if latency < 0:
            raise ValueError(f"latency is {latency}: it can't be negative")
        self.url = ""  # once it listens
        self._latency = latency
        self._webhooks = Webhooks(webhook_url, webhook_secret, now=self._now)
        self._sent_before = 0
        self._begin()

    def _begin(self) -> None:
        self._ahead = 0.0
        account = Account(now=self._now, announce=self._webhooks.announce)
        self._api = Api(account, now=self._now, latency=self._latency)

    def _now(self) -> int:
        return int(time.time() + self._ahead)

    def payment(self, *, amount: int, currency: str) -> str:
        """Add a payment intent that succeeded, in minor units; returns its id.

        Raises:
            ValueError: the amount is no positive integer, or the currency not three small letters.
        """
        if type(amount) is not int or amount < 1:
            raise ValueError(f"amount is {amount!r}: give minor units, 15000 for 150.00 euros")
        if not re.fullmatch("[a-z]{3}", currency):
            raise ValueError(f"currency is {currency!r}: give three letters, in lower case")
        with self._api.lock:
            payment = Payment(amount, currency, self._now())
            return self._api.account.add(payment).id

    @property
    def refunds(self) -> list[Object]:
        """All refunds as they are now, oldest first; a copy."""
        with self._api.lock:
            return self._api.account.refunds

    @property
    def requests(self) -> list[Record]:
        """All requests to Stripe's API, in the order they came; a copy."""
        return self._api.requests

    @property
    def webhooks_sent(self) -> int:
        """How many webhooks were answered with a 2xx."""
        return self._webhooks.sent - self._sent_before

    def fail(
        self,
        fault: str,
        times: int = 1,
        payment: str | None = None,
        seconds: float = 0.0,
        method: str = "POST",
    ) -> None:
        """Let the next requests about refunds go wrong; ``faults.py`` says how.

        ``times=0`` is until ``clear_faults`` or ``reset``. A request takes the first fault that
        fits it; a replay takes one too, but there ``error_…`` and ``slow_before`` change nothing.

        Raises:
            ValueError: there is no such fault, or a number is negative.
        """
        with self._api.lock:
            self._api.faults.add(Fault(fault, times, payment, seconds, method))

    def clear_faults(self) -> None:
        with self._api.lock:
            self._api.faults.clear()

    def advance(self, seconds: float) -> None:
        """Put the clock forward: keys are forgotten, new objects are younger.

        Raises:
            ValueError: that is no positive number.
        """
        if not isinstance(seconds, int | float) or seconds < 0:
            raise ValueError(f"seconds is {seconds!r}: the clock only goes forward")
        with self._api.lock:
            self._ahead += seconds

    def change_refund(self, identifier: str, *, status: str, failure_reason: str = "") -> Object:
        """Give a refund another status, which a webhook announces.

        Raises:
            Unknown: there is no such refund.
            ValueError: Stripe has no such status.
        """
        with self._api.lock:
            return self._api.account.change_refund(
                identifier, status=status, failure_reason=failure_reason
            )

    def change_payment(
        self, identifier: str, *, disputed: bool | None = None, refund_status: str | None = None
    ) -> Object:
        """Dispute a payment, or say what its next refunds begin as.

        Raises:
            Unknown: there is no such payment.
            ValueError: Stripe has no such status.
        """
        with self._api.lock:
            return self._api.account.change_payment(
                identifier, disputed=disputed, refund_status=refund_status
            )

    def reset(self) -> None:
        """Forget everything; requests that wait are dropped and touch nothing that comes after."""
        former = self._api
        self._sent_before = self._webhooks.sent
        self._begin()
        former.interrupt()

    def answer(self, record: Record, authorization: str | None) -> tuple[Answer | None, Api]:
        """Answer a request; the API that did so wants to know whether the answer arrived."""
        api = self._api
        return api.answer(record, authorization), api

    def interrupt(self) -> None:
        """End every wait at once; those requests are never answered."""
        self._api.interrupt()

    def close(self) -> None:
        self._webhooks.close()


@contextmanager
def running(
    port: int = 0, webhook_url: str = "", webhook_secret: str = "", latency: float = 0.0
) -> Iterator[Sandbox]:
    """Run a sandbox on 127.0.0.1 for as long as a block runs; port 0 takes a free one.

    ``latency``, in seconds, is waited before each answer, with the key in flight as it is while
    Stripe works.

    Raises:
        OSError: the port is in use.
        ValueError: an argument can't be.
    """
    sandbox = Sandbox(webhook_url=webhook_url, webhook_secret=webhook_secret, latency=latency)
    with closing(sandbox):
        server = Server(port, sandbox)
        sandbox.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve, daemon=True, name="stripe-sandbox")
        thread.start()
        try:
            yield sandbox
        finally:
            sandbox.interrupt()
            server.stop()
            thread.join()
