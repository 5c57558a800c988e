"""The demo's scenarios of refunds, on a Stripe sandbox that fails when it is told to."""

from collections.abc import Iterator

from django.db import connection, transaction

from booking_platform.development.processes import CeleryProcess
from booking_platform.development.scenario import (
    RUN,
    Scenario,
    cancelled,
    new_tour,
    publish,
    wait_for,
)
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import DeadLetter
from payments.models import Refund

PAID = 15_000  # cents; the refunds are of 60 euros, which Stripe would execute twice


def refund_scenarios(stripe: Sandbox, worker: CeleryProcess) -> Iterator[Scenario]:
    """Create payments at the sandbox, and yield the scenarios that refund them."""
    tour = new_tour("Giverny", capacity=20)
    yield _five_times(stripe, tour)
    yield _dropped(stripe, tour)
    yield _killed(stripe, tour, worker)
    yield _parked(stripe, tour)


def _five_times(stripe: Sandbox, tour: int) -> Scenario:
    payment = stripe.payment(amount=PAID, currency="eur")
    event = cancelled(tour, "f", paymentId=payment, amount=60)
    return Scenario(
        "the same cancellation of a paid booking five times",
        lambda: publish([event] * 5),
        lambda: _is("f", "completed"),
        [
            ("refunds at Stripe", 1, lambda: _at_stripe(stripe, payment)),
            ("the refund", "completed", lambda: _status("f")),
        ],
    )


def _dropped(stripe: Sandbox, tour: int) -> Scenario:
    payment = stripe.payment(amount=PAID, currency="eur")
    stripe.fail("drop_after", payment=payment)
    event = cancelled(tour, "g", paymentId=payment, amount=60)
    return Scenario(
        "a connection dropped after Stripe has executed the refund",
        lambda: publish([event]),
        lambda: _is("g", "completed"),
        [
            ("refunds at Stripe", 1, lambda: _at_stripe(stripe, payment)),
            ("the refund", "completed", lambda: _status("g")),
            ("attempts", 2, lambda: _refund("g").attempts),
        ],
    )


def _killed(stripe: Sandbox, tour: int, worker: CeleryProcess) -> Scenario:
    payment = stripe.payment(amount=PAID, currency="eur")
    stripe.fail("slow_after", payment=payment, seconds=1)
    event = cancelled(tour, "h", paymentId=payment, amount=60)

    def answered() -> bool:
        return any(one.answered and payment.encode() in one.body for one in stripe.requests)

    def kill_between_answer_and_commit() -> None:
        publish([event])
        wait_for(lambda: _at_stripe(stripe, payment) == 1)
        with transaction.atomic():  # the worker can't write down the answer that it gets
            Refund.objects.select_for_update().get(booking_id=f"{RUN}-h")
            wait_for(answered)
            worker.kill()
            _cut_off_whoever_waits()
        worker.start()
        worker.wait_until_ready()

    return Scenario(
        "a worker killed between Stripe's answer and the commit",
        kill_between_answer_and_commit,
        lambda: _is("h", "completed"),
        [
            ("refunds at Stripe", 1, lambda: _at_stripe(stripe, payment)),
            ("the refund", "completed", lambda: _status("h")),
            ("attempts", 2, lambda: _refund("h").attempts),
        ],
    )


def _parked(stripe: Sandbox, tour: int) -> Scenario:
    payment = stripe.payment(amount=PAID, currency="eur")
    half_cents = cancelled(tour, "i1", paymentId=payment, amount=10.005)
    too_much = cancelled(tour, "i2", paymentId=payment, amount=151)

    def why_parked() -> str:
        parked = DeadLetter.objects.filter(event_id=f"{RUN}-i1", queue__startswith="payment-")
        return "; ".join(parked.values_list("detail", flat=True))

    return Scenario(
        "a refund in half cents, and one of more than was paid",
        lambda: publish([half_cents, too_much]),
        lambda: bool(why_parked()) and _is("i2", "failed"),
        [
            (
                "parked",
                "payload.amount is 10.005: no currency goes in steps below 0.01",
                why_parked,
            ),
            ("waits for a person", True, lambda: _refund("i2").needs_review),
            ("because", _TOO_MUCH, lambda: _refund("i2").last_error),
            ("refunds at Stripe", 0, lambda: _at_stripe(stripe, payment)),
        ],
    )


_TOO_MUCH = "not sent: 151.00 EUR are asked for; 150.00 EUR were received, 0.00 EUR refunded"


def _cut_off_whoever_waits() -> None:
    """End what a dead worker still waits to write, as PostgreSQL does sooner or later."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )


# What the database says, and what Stripe.


def _refund(booking: str) -> Refund:
    return Refund.objects.get(booking_id=f"{RUN}-{booking}")


def _status(booking: str) -> str:
    return _refund(booking).status


def _is(booking: str, status: str) -> bool:
    rows = Refund.objects.filter(booking_id=f"{RUN}-{booking}", status=status)
    return rows.exists()


def _at_stripe(stripe: Sandbox, payment: str) -> int:
    return sum(refund["payment_intent"] == payment for refund in stripe.refunds)
