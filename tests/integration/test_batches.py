"""Batches of a cleanup that goes on beside the events: in order, in turns, and all of them in the end."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from booking_platform.messaging import batches, clock, tasks
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.retention import forget_processed_events
from tests.platform import Platform

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


class TestATurn:
    def test_it_leaves_the_rest_when_its_time_is_over(self) -> None:
        store(7)
        with batches.turn(0) as turn:
            assert forget_processed_events() == 0
        assert turn.unfinished
        with batches.turn(60) as turn:
            assert forget_processed_events() == 7
        assert not turn.unfinished

    def test_without_one_there_is_no_end_before_all_is_done(self) -> None:
        store(7)
        assert forget_processed_events() == 7


class TestTheNightlyCleanup:
    def test_what_one_turn_leaves_a_worker_does_in_the_next(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(7)
        store(1, days=0)  # so that nobody doubts the clock
        monkeypatch.setattr(tasks, "CLEANUP_SECONDS", 0)
        tasks.cleanup()
        assert ProcessedEvent.objects.count() == 8
        platform.start()
        platform.wait_for(lambda: ProcessedEvent.objects.count() == 1, "the rest is deleted")
