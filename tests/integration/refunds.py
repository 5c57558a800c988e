"""Refunds that are requested, and the sweep that sees to them, in this process."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import clock, inbox, leases
from booking_platform.messaging.rules import CONSUMERS
from payments import stripe_gateway, tasks
from payments.models import Refund
from tests.events import cancelled, deliveries
from tests.factories import past
from tests.servers import PATIENCE

QUEUE = "payment-gateway.booking-cancelled"
FAULTS = (
    "drop_before", "drop_after", "error_before", "error_after", "unavailable", "failed_dependency",
    "rate_limited", "unauthorized", "forbidden", "conflict", "garbage", "truncated",
    "not_a_refund",
)  # fmt: skip


def cancel(
    booking: str, payment: str | None, amount: Any = 150.0, *, seats: int = 1, **over: Any
) -> None:
    refund = {"paymentId": payment, "amount": amount}
    inbox.process(CONSUMERS[QUEUE], deliveries(cancelled(1, booking, seats, **refund, **over)))


def sweep_until_quiet(limit: int = 30) -> None:
    """Attempt what is due, as the sweep would, until nothing is."""
    for _ in range(limit):
        due = leases.due(Refund.objects.all(), clock.now())
        pks = list(due.values_list("pk", flat=True))
        if not pks:
            return
        for pk in pks:
            tasks.attempt(pk)
    pytest.fail("refunds are due again and again")


def expire_lease() -> None:
    Refund.objects.exclude(lease_until=None).update(lease_until=past())


def only() -> Refund:
    return Refund.objects.get()


def by_hand(stripe: Sandbox, payment: str, key: str = "by hand") -> None:
    """Refund as somebody does in Stripe's dashboard: without our metadata."""
    stripe_gateway.send({"payment_intent": payment, "amount": 100}, key)


def due() -> list[int]:
    rows = leases.due(Refund.objects.all(), clock.now())
    return list(rows.values_list("pk", flat=True))


def age(*, hours: int) -> None:
    past = timezone.now() - timedelta(hours=hours)
    Refund.objects.update(first_sent_at=past)


def in_thread(call: Callable[[], object]) -> Callable[[], None]:
    """Start a call in another thread; return a function that waits for the end of the call."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> None:
        thread.join(PATIENCE)
        if errors:
            raise errors[0]

    return wait
