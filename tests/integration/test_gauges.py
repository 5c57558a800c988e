"""What ``/metrics`` of the web process shows by the values of labels, and how often the database is asked."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client

from booking_platform import web_metrics
from booking_platform.messaging import clock
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import gauges
from booking_platform.web_metrics import Kept
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.factories import EmailFactory, RefundFactory
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    yield
    web_metrics.STATE.forget()


def shown() -> list[str]:
    web_metrics.STATE.forget()
    return Client().get("/metrics").content.decode().splitlines()


def seconds(name: str) -> float:
    [line] = [line for line in shown() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


class TestLeases:
    def test_what_is_due_is_shown_by_queue_and_what_is_overdue_too(self) -> None:
        now = clock.now()
        for before in (timedelta(seconds=5), timedelta(days=1)):
            RefundFactory.create(next_attempt_at=now - before)
        RefundFactory.create(lease_until=now - timedelta(days=1), attempts=1)
        RefundFactory.create(next_attempt_at=now + timedelta(days=1))
        RefundFactory.create(lease_until=now + timedelta(days=1))
        page = shown()
        assert 'leases_due{queue="payments"} 3.0' in page
        assert 'leases_overdue{queue="payments"} 2.0' in page
        assert 'leases_due{queue="notifications"} 0.0' in page
        assert 'leases_due{queue="maintenance"} 0.0' in page  # of what has no queue of its own
        assert 'leases_overdue{queue="notifications"} 0.0' in page


class TestDeadLetters:
    def test_they_are_shown_by_queue_and_reason(self) -> None:
        queue = next(iter(CONSUMERS))
        park(queue, "invalid", 2)
        park(queue, "stale", 1)
        park(queue, "stale", 1, state="discarded")
        page = shown()
        assert f'dead_letters_open_by_reason{{queue="{queue}",reason="invalid"}} 2.0' in page
        assert f'dead_letters_open_by_reason{{queue="{queue}",reason="stale"}} 1.0' in page

    def test_a_queue_that_somebody_has_named_is_no_label(self) -> None:
        for name in ("evil\n", 'a"b', "anna@example.com"):
            park(name, "broker", 1)
        page = shown()
        assert 'dead_letters_open_by_reason{queue="none of ours",reason="broker"} 3.0' in page
        assert not any("anna" in line for line in page)

    def test_no_more_than_so_many_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gauges, "MOST", 3)
        park(next(iter(CONSUMERS)), "invalid", 5)
        assert any(line.endswith('reason="invalid"} 3.0') for line in shown())
        assert gauges.counted(DeadLetter.objects.all()) == 3


def park(queue: str, reason: str, count: int, state: str = "parked") -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter(
            queue=queue, event_id=f"{reason}-{number}", fingerprint="f", reason=reason, state=state, body=b""
        )
        for number in range(count)
    )  # fmt: skip


class TestRefundsAndEmails:
    def test_refunds_are_shown_by_state(self) -> None:
        RefundFactory.create(status="in_progress")
        RefundFactory.create(status="in_progress", needs_review=True)
        RefundFactory.create(status="failed")
        page = shown()
        assert 'refunds_by_state{state="in_progress"} 1.0' in page
        assert 'refunds_by_state{state="needs_review"} 1.0' in page
        assert 'refunds_by_state{state="failed"} 1.0' in page

    def test_the_age_of_the_oldest_is_of_one_that_waits_for_no_person(self) -> None:
        assert seconds("refunds_oldest_in_progress_seconds") == 0
        for age, review in ((60, False), (9000, True)):
            refund = RefundFactory.create(status="in_progress", needs_review=review)
            since = clock.now() - timedelta(seconds=age)
            Refund.objects.filter(pk=refund.pk).update(created_at=since)
        assert 60 <= seconds("refunds_oldest_in_progress_seconds") < 600

    def test_emails_are_shown_by_state_without_those_that_are_closed(self) -> None:
        EmailFactory.create(state="pending")
        EmailFactory.create(state="failed")
        EmailFactory.create(state="uncertain", settled_at=clock.now())
        page = shown()
        assert 'emails_by_state{state="pending"} 1.0' in page
        assert 'emails_by_state{state="failed"} 1.0' in page
        assert 'emails_by_state{state="uncertain"} 0.0' in page

    def test_the_age_of_the_oldest_email_is_of_one_that_is_not_sent(self) -> None:
        assert seconds("emails_oldest_unsent_seconds") == 0
        for state in ("pending", "sent"):
            EmailFactory.create(state=state)
        since = clock.now() - timedelta(seconds=60)
        CancellationEmail.objects.filter(state="pending").update(wanted_at=since)
        CancellationEmail.objects.filter(state="sent").update(wanted_at=since - timedelta(days=1))
        assert 60 <= seconds("emails_oldest_unsent_seconds") < 600


class Clock:
    """A clock that the test sets, in the place of ``clock``."""

    def __init__(self) -> None:
        self.time = 1000.0

    def ticks(self) -> float:
        return self.time


class TestHowOftenItIsRead:
    def read(self, took: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Kept, Clock, list[int]]:
        watch, reads = Clock(), [0]
        monkeypatch.setattr(web_metrics, "clock", watch)

        def slowly() -> bytes:
            watch.time += took
            reads[0] += 1
            return b"%d" % reads[0]

        return Kept(slowly), watch, reads

    def test_what_is_quick_is_read_for_each_who_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept, _, _ = self.read(0.9, monkeypatch)
        assert (kept(), kept()) == (b"1", b"2")

    def test_what_is_slow_rests(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept, watch, _ = self.read(1.2, monkeypatch)
        assert (kept(), kept()) == (b"1", b"1")
        watch.time += 23
        assert kept() == b"1"
        watch.time += 2
        assert kept() == b"2"

    def test_what_is_very_slow_does_not_rest_for_long(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept, watch, _ = self.read(500, monkeypatch)
        kept()
        watch.time += 31
        assert kept() == b"2"

    def test_those_who_wait_for_each_other_share_what_was_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch, reads = Running(), []

        def read() -> bytes:
            reads.append(1)
            return b"read"

        monkeypatch.setattr(web_metrics, "clock", watch)
        kept = Kept(read)
        with kept._lock:
            threads = [threading.Thread(target=kept) for _ in range(5)]
            for thread in threads:
                thread.start()
            wait_until(lambda: watch.asked == len(threads), what="all have asked")
        for thread in threads:
            thread.join(20)
        assert len(reads) == 1


class Running(Clock):
    """A clock that goes on each time that somebody looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self._looking = threading.Lock()

    def ticks(self) -> float:
        with self._looking:
            self.asked += 1
            self.time += 0.001
            return self.time
