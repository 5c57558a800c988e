"""Batches of a cleanup that goes on beside the events: in order, in turns, and all of them in the end."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import Error, connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from booking_platform.messaging import batches, clock, retention, tasks
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.retention import forget_processed_events
from tests.platform import Platform
from tests.servers import PATIENCE, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH", 3)


def store(count: int, *, days: float = 40, at_once: bool = False) -> None:
    """Store processed events, a second between them unless they came at once."""
    begin = clock.now() - timedelta(days=days)
    ProcessedEvent.objects.bulk_create(
        ProcessedEvent(
            event_id=f"{days}-{number}",
            consumer="tour-catalog.booking-created",
            processed_at=begin + timedelta(seconds=0 if at_once else number),
        )
        for number in range(count)
    )


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what the only part of the cleanup waits for, before it fails."""
    begun = threading.Event()

    def fail() -> None:
        assert begun.wait(PATIENCE)
        raise ValueError("a bug")

    monkeypatch.setattr(retention, "CLEANUP", [fail])
    yield begun
    wait_until(lambda: not threads(), what="the cleanup has ended")


def threads() -> int:
    return [each.name for each in threading.enumerate()].count("cleanup")


def failures() -> float:
    return REGISTRY.get_sample_value("task_failures_total", {"task": retention.TASK}) or 0


class TestBatches:
    def test_they_have_all_rows_in_order_and_none_twice(self) -> None:
        store(10)
        found = []
        for pks in batches.batches(ProcessedEvent.objects.all(), by="processed_at"):
            found.append(pks)
            ProcessedEvent.objects.filter(pk__in=pks).delete()
        in_order = sorted(pk for each in found for pk in each)
        assert [len(each) for each in found] == [3, 3, 3, 1]
        assert [pk for each in found for pk in each] == in_order

    def test_rows_of_one_moment_are_all_found(self) -> None:
        store(10, at_once=True)
        assert forget_processed_events() == 10

    def test_each_is_looked_for_where_the_last_one_ended(self) -> None:
        store(7)
        with CaptureQueriesContext(connection) as queries:
            forget_processed_events()
        looks = [each["sql"] for each in queries if each["sql"].startswith("SELECT")]
        looks = [sql for sql in looks if "LIMIT 3" in sql]
        assert [sql.count('"processed_at" >=') for sql in looks] == [0, 1, 1, 1]


class TestPaced:
    def test_four_fifths_of_the_time_are_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        found = iter([[1], [2], []])
        begun = time.monotonic()
        for _ in batches.paced(lambda: next(found)):
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
        assert len(pauses) == 2
        assert all(pause >= 4 * 0.02 for pause in pauses)
        assert sum(pauses) <= 4 * (time.monotonic() - begun)


class TestTheNightlyCleanup:
    def test_it_goes_on_beside_the_work_of_a_process_that_pauses(self, platform: Platform) -> None:
        store(7)
        store(1, days=0)  # so that nobody doubts the clock
        platform.start()
        tasks.cleanup.delay()
        platform.wait_for(lambda: ProcessedEvent.objects.count() == 1, "the old are deleted")

    def test_a_task_does_not_wait_for_it_in_a_worker(self, begun: threading.Event) -> None:
        cleaner = retention.Cleaner()
        assert not cleaner.start()
        cleaner.enable()
        assert cleaner.start()
        assert cleaner.start()
        assert threads() == 1
        begun.set()

    @pytest.mark.servers  # SQLite has no connection that could be lost
    def test_a_part_that_loses_the_database_holds_up_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found: list[int] = []

        def lose() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        def look() -> None:
            found.append(ProcessedEvent.objects.count())

        monkeypatch.setattr(retention, "CLEANUP", [lose, look])
        with pytest.raises(Error):
            retention.clean_up()
        assert found == [0]

    def test_what_fails_there_counts_as_a_failed_task(
        self, begun: threading.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun.set()
        cleaner = retention.Cleaner()
        cleaner.enable()
        before = failures()
        assert cleaner.start()
        wait_until(lambda: failures() == before + 1, what="the failure is counted")
        assert "A part of the cleanup failed" in caplog.text
