"""Machines whose clocks are wrong: nothing is forgotten, stolen, doubled or left undone by it."""

from pathlib import Path
from typing import Any

import pytest
from celery import current_app

from booking_platform.development.mail_server import RCPT, MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import SWEEPS
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import cancelled, created
from tests.factories import RefundFactory, past
from tests.platform import Platform, parked

pytestmark = pytest.mark.servers

SHIFTED = str(Path(__file__).resolve().parent.parent / "shifted_clock")
ROOT = str(Path(__file__).resolve().parent.parent.parent)
DAYS, MINUTES = 24 * 3600, 60
LONG = 120  # seconds: a wait that no test sits out
QUICK = {"RETRY_BASE_SECONDS": "0.2", "RETRY_MAX_SECONDS": "0.5", "SWEEP_SECONDS": "0.5"}


def ahead(seconds: int) -> dict[str, Any]:
    """Return the environment of a machine whose clock is so far ahead, or behind."""
    return {"CLOCK_AHEAD": str(seconds), "PYTHONPATH": f"{SHIFTED}:{ROOT}"}


@pytest.fixture
def calling(platform: Platform, stripe: Sandbox, mail_server: MailServer) -> Platform:
    """The platform with a Stripe and a mail server of our own."""
    platform.environment |= QUICK | {
        "STRIPE_API_BASE": stripe.url,
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mail_server.port),
    }
    return platform


def bookings(stripe: Sandbox, count: int) -> list[dict[str, Any]]:
    return [
        cancelled(
            1,
            f"BK-{n}",
            paymentId=stripe.payment(amount=15_000, currency="eur"),
            amount=60,
            userEmail=f"bk-{n}@example.com",
        )
        for n in range(count)
    ]


def done(count: int) -> bool:
    return (
        Refund.objects.filter(status="completed", lease_until=None).count() == count
        and CancellationEmail.objects.filter(state="sent").count() == count
    )


def posts(stripe: Sandbox) -> int:
    return sum(request.method == "POST" for request in stripe.requests)


def send(task: str, queue: str) -> None:
    """Send a task on a connection of its own: the broker may close those that are kept."""
    with current_app.connection_for_write() as connection:
        current_app.send_task(task, queue=queue, connection=connection)


class TestProgress:
    @pytest.mark.parametrize(
        ("beat", "worker"),
        [(-90, 0), (0, 10 * MINUTES), (0, 40 * DAYS), (40 * DAYS, -90)],
        ids=["beat behind", "worker ahead", "worker far ahead", "beat far ahead"],
    )
    def test_what_failed_at_first_is_tried_again(
        self,
        calling: Platform,
        stripe: Sandbox,
        mail_server: MailServer,
        beat: int,
        worker: int,
    ) -> None:
        stripe.fail("unavailable", times=3)
        mail_server.fail(RCPT, "450 later", times=3)
        calling.start_beat(**ahead(beat))
        calling.start("-c", "2", "-Q", "payments,notifications", **ahead(worker))
        calling.publish(bookings(stripe, 3), key="booking.cancelled")
        calling.wait_for(lambda: done(3), "all are refunded and told")
        assert len(stripe.refunds) == len(mail_server.received()) == 3
        assert parked() == []


class TestBeat:
    def test_it_sends_sweeps_though_it_ran_last_in_the_future(self, platform: Platform) -> None:
        platform.environment |= QUICK
        platform.start_beat(**ahead(40 * DAYS))
        [first] = platform.workers
        for sweep in SWEEPS:  # all of them: between two rounds it has time to be told to stop
            platform.wait_for(lambda: f"due task {sweep}" in first.log, f"it sends {sweep}")  # noqa: B023
        first.stop()
        platform.start_beat(**ahead(0))
        second = platform.workers[1]
        for sweep in SWEEPS:
            platform.wait_for(lambda: f"due task {sweep}" in second.log, f"it sends {sweep}")  # noqa: B023


class TestLeases:
    def test_two_workers_whose_clocks_differ_call_once(
        self, calling: Platform, stripe: Sandbox
    ) -> None:
        stripe.fail("slow_before", seconds=LONG)
        calling.start("-c", "1", "-Q", "payments", **ahead(-90))
        calling.publish(bookings(stripe, 1), key="booking.cancelled")
        calling.wait_for(lambda: posts(stripe) == 1, "the first has called")
        calling.start("-c", "2", "-Q", "payments", **ahead(10 * MINUTES))
        other = RefundFactory.create(
            booking_id="another",
            payment_id=stripe.payment(amount=15_000, currency="eur"),
            next_attempt_at=past(),
        )
        for _ in range(8):  # either worker takes them in turn
            send("payments.sweep", "payments")
        rows = Refund.objects.filter(status="completed")
        calling.wait_for(rows.filter(pk=other.pk).exists, "the second has swept")
        first = Refund.objects.exclude(pk=other.pk).get()
        assert first.status == "in_progress"
        stripe.release()
        calling.wait_for(rows.filter(pk=first.pk).exists, "the first is done")
        first.refresh_from_db()
        assert (posts(stripe), first.attempts) == (2, 1)


class TestCleanup:
    def test_a_worker_far_ahead_forgets_nothing(self, platform: Platform, tour: Tour) -> None:
        worker = platform.start("-c", "1", "-Q", "catalog,maintenance", **ahead(40 * DAYS))
        event = created(tour.pk, "B")
        platform.publish([event])
        platform.wait_for_processed(1)
        send("messaging.cleanup", "maintenance")
        platform.wait_for(lambda: "Cleanup: processed events deleted" in worker.log, "it has run")
        assert (ProcessedEvent.objects.count(), parked()) == (1, [])
