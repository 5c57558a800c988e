"""Refunds whose workers are killed at every point, while Stripe fails in every way."""

import os
from secrets import token_urlsafe
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import leases
from payments.models import Refund
from tests.events import cancelled
from tests.integration.refunds import FAULTS, expire_lease
from tests.platform import Platform, parked
from tests.servers import PATIENCE

QUICK = {
    "LEASE_SECONDS": "3",
    "RETRY_BASE_SECONDS": "0.2",
    "RETRY_MAX_SECONDS": "0.5",
    "SWEEP_SECONDS": "0.5",
}
POINTS = (
    "after the intent", "before it is marked sent", "after it is marked sent", "before the call",
    "after the call", "before the look", "after the result",
)  # fmt: skip


LONG = 120  # seconds: a wait that no test sits out


@pytest.fixture
def paying(platform: Platform, stripe: Sandbox) -> Platform:
    """The platform, with quick attempts at a Stripe of our own and beat to sweep."""
    platform.environment |= QUICK | {"STRIPE_API_BASE": stripe.url}
    platform.start_beat()
    return platform


def events(payments: dict[str, str]) -> list[dict[str, Any]]:
    """One cancellation of 60 of 150 euros a booking, which Stripe would execute twice."""
    return [
        cancelled(1, booking, paymentId=payment, amount=60, event_id=f"e-{booking}")
        for booking, payment in payments.items()
    ]


def at_rest() -> bool:
    """Nothing is under way, and nothing will be taken up by itself."""
    rows = Refund.objects
    waiting = rows.exclude(next_attempt_at=None).count() + rows.exclude(lease_until=None).count()
    return waiting == 0 and not rows.filter(status="in_progress", needs_review=False).exists()


def refunds_of(stripe: Sandbox) -> dict[str, int]:
    """Count the refunds that each payment has at Stripe."""
    counts: dict[str, int] = {}
    for refund in stripe.refunds:
        counts[refund["payment_intent"]] = counts.get(refund["payment_intent"], 0) + 1
    return counts


class TestKills:
    @pytest.mark.parametrize("point", POINTS)
    def test_every_fault_and_a_kill_still_refund_once(
        self, paying: Platform, stripe: Sandbox, point: str
    ) -> None:
        deaths = paying.folder / "deaths"
        deaths.mkdir()
        names = ["none", "balance_insufficient", *FAULTS]
        payments = {name: stripe.payment(amount=15_000, currency="eur") for name in names}
        for name in names[1:]:
            stripe.fail(name, payment=payments[name])
        planted = {"DIE_AT": point, "DEATHS": str(deaths)}
        for _ in range(2):
            paying.start("-c", "2", "-Q", "payments", app="tests.faulty", wait=False, **planted)
        for worker in paying.workers[1:]:
            worker.wait_until_ready()
        # Up to eight of each, at the same time.
        wave = events(payments)
        paying.publish(
            [one for n in range(8) for one in wave[n:] + wave[:n]], key="booking.cancelled"
        )
        rows = Refund.objects
        paying.wait_for(
            lambda: rows.count() == len(payments) and at_rest(), "all refunds are at rest", 300
        )
        # The last deaths come when all is at rest already.
        paying.wait_for(
            lambda: len(list(deaths.iterdir())) >= len(names), "each worker has died of each"
        )
        counts = refunds_of(stripe)
        for name, payment in payments.items():
            row = rows.get(booking_id=name)
            if name == "error_before":  # Stripe keeps that answer under the key
                assert (payment in counts, row.needs_review) == (False, True), name
            else:
                assert counts[payment] == 1, name
                assert (row.status, row.needs_review) == ("completed", False), name
        assert parked() == []

    def test_a_frozen_process_that_wakes_changes_nothing(
        self, paying: Platform, stripe: Sandbox
    ) -> None:
        paying.environment["LEASE_SECONDS"] = str(LONG)
        payment = stripe.payment(amount=15_000, currency="eur")
        stripe.fail("slow_after", seconds=LONG)
        frozen = paying.start("-c", "1", "-Q", "payments")
        [process] = frozen.pool()
        paying.publish(events({"BK-1": payment}), key="booking.cancelled")
        paying.wait_for(lambda: len(stripe.refunds) == 1, "Stripe has executed")
        process.suspend()
        stripe.release()
        expire_lease()
        paying.start("-c", "1", "-Q", "payments")
        paying.wait_for(at_rest, "another worker has completed it")
        row = Refund.objects.get()
        assert row.status == "completed"
        process.resume()
        paying.wait_for(lambda: "Lease lost" in frozen.log, "the first notices")
        after = Refund.objects.get()
        assert (after.lease_token, after.status) == (row.lease_token, "completed")
        assert refunds_of(stripe) == {payment: 1}

    def test_a_worker_that_dies_with_stripes_answer_unwritten(
        self, paying: Platform, stripe: Sandbox
    ) -> None:
        paying.environment["LEASE_SECONDS"] = str(LONG)
        payment = stripe.payment(amount=15_000, currency="eur")
        stripe.fail("slow_after", seconds=LONG)
        worker = paying.start("-c", "1", "-Q", "payments")
        paying.publish(events({"BK-1": payment}), key="booking.cancelled")
        paying.wait_for(lambda: len(stripe.refunds) == 1, "Stripe has executed")
        worker.kill()
        stripe.release()
        expire_lease()
        assert Refund.objects.get().status == "in_progress"
        paying.start("-c", "1", "-Q", "payments")
        paying.wait_for(at_rest, "the sweep has found it")
        assert Refund.objects.get().status == "completed"
        assert refunds_of(stripe) == {payment: 1}


class TestOutages:
    def test_a_stripe_that_is_away_delays_refunds_and_loses_none(
        self, paying: Platform, stripe: Sandbox
    ) -> None:
        payments = {f"BK-{n}": stripe.payment(amount=15_000, currency="eur") for n in range(20)}
        stripe.fail("unavailable", times=0)
        stripe.fail("unavailable", times=0, method="GET")
        paying.start("-c", "2", "-Q", "payments")
        paying.publish(events(payments), key="booking.cancelled")
        rows = Refund.objects
        paying.wait_for(lambda: rows.filter(attempts__gte=2).count() == 20, "all were tried twice")
        assert stripe.refunds == []
        stripe.clear_faults()
        paying.wait_for(at_rest, "all are done")
        assert refunds_of(stripe) == dict.fromkeys(payments.values(), 1)
        assert not leases.due(rows.all(), timezone.now()).exists()


@pytest.mark.servers
class TestStart:
    def test_a_production_worker_does_not_start_on_refunds_without_a_key(
        self, platform: Platform
    ) -> None:
        production: dict[str, Any] = {
            "DJANGO_ENV": "production",
            "DJANGO_SECRET_KEY": token_urlsafe(60),
            "DJANGO_ALLOWED_HOSTS": "example.com",
            "STRIPE_API_BASE": "",
        }
        worker = platform.start("-c", "1", "-Q", "payments", wait=False, **production)
        assert worker.process.wait(PATIENCE) == os.EX_CONFIG
        assert "STRIPE_SECRET_KEY is not set" in worker.log
        assert "--queues" in worker.log
        platform.start("-c", "1", "-Q", "catalog,maintenance", **production)
