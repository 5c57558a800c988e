"""A real worker whose metrics can't be written and whose words nobody hears: its work is the same."""

import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from booking_platform.development.mail_server import MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import cancelled, created
from tests.platform import Platform, assert_adds_up, counter, parked
from tests.servers import PATIENCE
from tests.telemetry import fill, small_disk

WORKER = ("worker", "-c", "2", "--max-tasks-per-child", "1")
BROKEN = ("2>&-", ">/dev/full 2>&1", "<&- >&- 2>&-")  # as a shell redirects output
NOT_READ = "2>&1"  # a pipe that nobody reads from, though it is open
EVENTS = 4  # that each booking makes: its creation, and its cancellation at three consumers


@pytest.fixture
def whole(platform: Platform, stripe: Sandbox, mail_server: MailServer) -> Platform:
    """The platform with Stripe and a mail server, on which a mail without an answer is sent again."""
    platform.environment |= {
        "STRIPE_API_BASE": stripe.url,
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mail_server.port),
        "EMAIL_UNCERTAIN": "resend",
    }
    return platform


def publish(platform: Platform, tour: Tour, stripe: Sandbox, booking: str) -> None:
    """Publish a booking and its cancellation, each of them twice, and wait until both are processed."""
    before = ProcessedEvent.objects.count()
    platform.publish([created(tour.pk, booking, seats=2)] * 2)
    platform.wait_for(lambda: ProcessedEvent.objects.count() > before, f"{booking} is created")
    wanted: dict[str, Any] = {
        "paymentId": stripe.payment(amount=15_000, currency="eur"),
        "amount": 60,
        "userEmail": f"{booking.lower()}@example.com",
        "tourName": "Louvre",
    }
    end = cancelled(tour.pk, booking, seats=2, **wanted)
    platform.publish([end] * 2, key="booking.cancelled")
    platform.wait_for(
        lambda: ProcessedEvent.objects.count() == before + EVENTS and at_rest(),
        f"{booking} is cancelled",
    )


def at_rest() -> bool:
    refunds, mails = Refund.objects, CancellationEmail.objects
    return not any(
        rows.exclude(lease_until=None).exists() or rows.exclude(next_attempt_at=None).exists()
        for rows in (refunds, mails)
    )


def assert_done_once(tour: Tour, stripe: Sandbox, mail_server: MailServer, *bookings: str) -> None:
    assert parked() == []
    assert_adds_up(tour)
    assert (tour.reserved_seats, tour.unledgered_seats) == (0, 0)
    assert dict(Refund.objects.values_list("booking_id", "status")) == dict.fromkeys(
        bookings, "completed"
    )
    assert len(stripe.refunds) == len(bookings)
    assert dict(CancellationEmail.objects.values_list("booking_id", "state")) == dict.fromkeys(
        bookings, "sent"
    )
    told = sorted(str(mail["To"]) for mail in mail_server.received())
    assert told == [f"{booking.lower()}@example.com" for booking in bookings]


def take_away(folder: Path) -> None:
    """Put a file in the place of a folder at once, though others may just be writing into it."""
    gone = folder.with_name(f"{folder.name}-gone")
    folder.rename(gone)
    folder.touch()
    shutil.rmtree(gone, ignore_errors=True)


class TestAWorker:
    @pytest.mark.parametrize("redirection", [NOT_READ, "", *BROKEN])
    def test_it_works_on_without_metrics_and_words(
        self,
        whole: Platform,
        tour: Tour,
        stripe: Sandbox,
        mail_server: MailServer,
        redirection: str,
    ) -> None:
        """Its folder goes away and can't be made again, and its log has no reader, or one that is stuck.

        Each process of its pool ends after one group: the next one is forked by a process that can't
        say so, and can't write what it counts first.
        """
        folder = Path(whole.environment["PROMETHEUS_MULTIPROC_DIR"])
        worker = whole.start_unheard(redirection, *WORKER)
        if redirection != NOT_READ:
            worker.hang_up()
        publish(whole, tour, stripe, "A")
        take_away(folder)
        publish(whole, tour, stripe, "B")
        publish(whole, tour, stripe, "C")
        assert worker.process.poll() is None
        assert worker.stop() == 0
        assert_done_once(tour, stripe, mail_server, "A", "B", "C")

    def test_a_disk_of_metrics_that_fills_up_ends_no_process(
        self, whole: Platform, tour: Tour, stripe: Sandbox, mail_server: MailServer
    ) -> None:
        with ExitStack() as stack:
            disk = small_disk(stack, Path(whole.environment["PROMETHEUS_MULTIPROC_DIR"]))
            worker = whole.start("-c", "2", "--max-tasks-per-child", "1")
            publish(whole, tour, stripe, "A")
            fill(disk)
            publish(whole, tour, stripe, "B")
            publish(whole, tour, stripe, "C")
            assert worker.stop() == 0
        assert "exited with" not in worker.log
        assert_done_once(tour, stripe, mail_server, "A", "B", "C")

    def test_its_metrics_come_back_with_what_was_counted_meanwhile(
        self, platform: Platform, tour: Tour
    ) -> None:
        folder = Path(platform.environment["PROMETHEUS_MULTIPROC_DIR"])
        worker = platform.start("-c", "1", "-Q", "catalog")
        take_away(folder)
        platform.publish([created(tour.pk, "A")])
        platform.wait_for_processed(1)
        platform.wait_for(  # it counts after the commit
            lambda: "Metrics can't be written to their file" in worker.log, "the worker notices"
        )
        folder.unlink()

        def counted() -> Any:
            return folder.is_dir() and counter(platform.environment, "events_total")

        def publish_and_count() -> bool:
            platform.publish([created(tour.pk, "A")])
            shown = bool(counted() == ProcessedEvent.objects.count())
            return shown and "Metrics are written to their file again" in worker.log  # to all files

        platform.wait_for(publish_and_count, "what was counted is shown")
        assert worker.log.count("Metrics can't be written to their file") == 1
        assert worker.log.count("Metrics are written to their file again") == 1

    @pytest.mark.parametrize("name", ["file", "file/metrics"])
    def test_it_does_not_start_without_a_folder_for_its_metrics(
        self, platform: Platform, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").touch()
        folder = str(tmp_path / name)
        worker = platform.start("-c", "1", wait=False, PROMETHEUS_MULTIPROC_DIR=folder)
        assert worker.process.wait(PATIENCE) == 1
        assert f"ImproperlyConfigured: PROMETHEUS_MULTIPROC_DIR is {folder!r}" in worker.log


class TestBeat:
    @pytest.mark.parametrize("redirection", BROKEN)
    def test_it_has_what_is_due_taken_up(self, platform: Platform, redirection: str) -> None:
        schedule = str(platform.folder / "schedule")
        beat = platform.start_unheard(redirection, "beat", "-s", schedule, SWEEP_SECONDS="0.1")
        beat.hang_up()

        def asked() -> bool:
            with suppress(Exception), platform.channel() as channel:
                return bool(channel.queue_declare("payments", passive=True).message_count)
            return False

        platform.wait_for(asked, "a sweep is asked for")
        assert beat.process.poll() is None
