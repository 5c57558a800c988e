"""What is counted by minute: outcomes by beat, duplicates and lock conflicts by the workers."""

import threading
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from booking_platform.messaging import clock, inbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import alone
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tallies import CONFLICTS, DUPLICATES, TALLIES, Counted, Tallies
from booking_platform.operations import tallies
from booking_platform.operations.models import Tally
from booking_platform.operations.tallies import LATE, MINUTE, OUTCOMES, REACH, minute_of
from booking_platform.operations.tallying import TallyWriter
from booking_platform.operations.tasks import count_outcomes
from catalog.models import Tour
from tests.events import created, deliveries
from tests.platform import Platform
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "tour-catalog.booking-created"


def happened(at: datetime, *outcomes: str) -> None:
    ProcessedEvent.objects.bulk_create(
        ProcessedEvent(
            event_id=f"{at} {number}",
            consumer=CREATED,
            event_type="BookingCreated",
            outcome=outcome,
            processed_at=at,
        )
        for number, outcome in enumerate(outcomes)
    )


def counts(kind: str = OUTCOMES) -> dict[str, int]:
    """Return the sums over all hours, by outcome or subject."""
    sums: Counter[str] = Counter()
    since = tallies.hour_of(clock.now() - REACH)
    for (its_kind, _, subject, word), count in tallies.by_hour(since).items():
        if its_kind == kind:
            sums[word or subject] += count
    return sums


def over() -> datetime:
    """Return a time whose minute was over long enough ago, but not much longer."""
    return minute_of(clock.now()) - LATE - 2 * MINUTE


class TestOutcomes:
    def test_minutes_that_are_over_are_counted_and_those_after_them_later(self) -> None:
        happened(over() - 5 * MINUTE, "reserved", "reserved", "rejected")
        happened(over(), "reserved")
        happened(clock.now(), "reserved")
        count_outcomes()
        assert counts() == {"reserved": 3, "rejected": 1}
        until = tallies.counted_until()
        assert until is not None
        assert clock.now() - until < LATE + 2 * MINUTE
        newest, complete = tallies.outcomes_since(until, 10)
        assert (list(newest.values()), complete) == ([1], True)

    def test_counting_once_more_changes_nothing(self) -> None:
        happened(over(), "reserved", "rejected")
        count_outcomes()
        Tally.objects.filter(subject="").delete()  # the marks: as if it had never been
        count_outcomes()
        assert counts() == {"reserved": 1, "rejected": 1}

    def test_idle_minutes_cost_nothing_and_count_as_counted(self) -> None:
        happened(clock.now() - timedelta(hours=20), "reserved")
        happened(clock.now() - timedelta(hours=3), "reserved")
        assert tallies.count_outcomes() == 3  # these two, and the last one that is over
        assert tallies.count_outcomes() <= 1
        assert sum(counts().values()) == 2

    def test_after_a_long_rest_only_a_day_is_made_up_for(self) -> None:
        happened(clock.now() - REACH - timedelta(hours=1), "reserved")
        happened(over(), "reserved")
        tallies.count_outcomes()
        assert Tally.objects.filter(word="reserved").count() == 1

    def test_a_run_ends_in_time_and_the_next_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        happened(over(), "reserved")
        with monkeypatch.context() as patched:
            patched.setattr(tallies, "RUN_SECONDS", 0.0)
            assert tallies.count_outcomes() == 0
        assert tallies.count_outcomes() > 0

    def test_what_is_counted_now_is_bounded(self) -> None:
        happened(clock.now(), *["reserved"] * 5)
        newest, complete = tallies.outcomes_since(clock.now() - MINUTE, 3)
        assert (sum(newest.values()), complete) == (3, False)

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="has one writer at a time")
    def test_one_run_at_a_time_counts(self) -> None:
        happened(over(), "reserved")
        locked, done = threading.Event(), threading.Event()

        def other() -> None:
            with transaction.atomic():
                assert alone("tallies")
                locked.set()
                done.wait(30)
            connection.close()

        thread = threading.Thread(target=other)
        thread.start()
        try:
            assert locked.wait(30)
            assert tallies.count_outcomes() == 0
        finally:
            done.set()
            thread.join()
        assert tallies.count_outcomes() > 0

    def test_old_ones_are_forgotten(self) -> None:
        for days in (1, 30):
            at = clock.now() - timedelta(days=days)
            Tally.objects.create(kind=OUTCOMES, minute=at, subject=CREATED, word="x", count=1)
        assert tallies.forget() == 1
        assert Tally.objects.count() == 1


class TestWhatWorkersCount:
    def test_counts_are_added_up(self) -> None:
        strange = "it's \u202e “100 %”"
        for _ in range(2):
            tallies.add({Counted(DUPLICATES, CREATED): 2, Counted(DUPLICATES, strange): 1})
        assert counts(DUPLICATES) == {CREATED: 4, strange: 2}

    def test_a_duplicate_and_a_lost_race_are_counted(self, tour: Tour) -> None:
        event = created(tour.pk, "B", event_id="E")
        TALLIES.take()
        for _ in range(3):
            inbox.process(CONSUMERS[CREATED], deliveries(event))
        assert TALLIES.take() == {Counted(DUPLICATES, CREATED): 2}

    def test_what_the_database_does_not_take_is_stored_later(self) -> None:
        counted = Tallies()
        writer = TallyWriter(counted)
        counted.add(CONFLICTS, "tour")

        def away(*_: Any) -> None:
            raise OperationalError("away")

        with connection.execute_wrapper(away):
            writer.store()
            counted.add(CONFLICTS, "tour")
            writer.store()
        assert counts(CONFLICTS) == {}
        writer.store()
        writer.store()
        assert counts(CONFLICTS) == {"tour": 2}

    def test_a_process_that_is_no_worker_has_no_thread(self) -> None:
        writer = TallyWriter(Tallies())
        writer.begin()
        assert "tallies" not in {thread.name for thread in threading.enumerate()}

    def test_the_thread_stores_by_itself(self) -> None:
        counted = Tallies()
        writer = TallyWriter(counted, seconds=0.01)
        writer.enable()
        writer.begin()
        writer.begin()
        try:
            threads = [each for each in threading.enumerate() if each.name == "tallies"]
            assert len(threads) == 1
            counted.add(CONFLICTS, "tour")
            wait_until(lambda: counts(CONFLICTS), what="it is stored")
        finally:
            writer.end()
            threads[0].join()

    @pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
    def test_a_worker_stores_what_it_counted_at_its_end(
        self, platform: Platform, tour: Tour, pool: str
    ) -> None:
        event = created(tour.pk, "B", event_id="E")
        worker = platform.start("-c", "1", "--pool", pool)
        platform.publish([event])
        platform.wait_for_processed(1)
        platform.publish([event, event])
        platform.wait_for(lambda: worker.log.count("Duplicate event") == 2, "two duplicates")
        worker.stop()
        assert counts(DUPLICATES) == {CREATED: 2}
