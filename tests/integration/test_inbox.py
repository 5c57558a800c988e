"""The laws of a consumer, held against every consumer that is registered."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from booking_platform.contract.envelope import Event
from booking_platform.messaging import contention, inbox
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, Consumer, LostRace, Result, Rule
from catalog.models import Tour
from tests.events import body, cancelled, created, deliveries
from tests.factories import TourFactory
from tests.platform import assert_adds_up, parked
from tests.subjects import SUBJECTS, Subject
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "tour-catalog.booking-created"
CANCELLED = "tour-catalog.booking-cancelled"


@pytest.fixture
def tour() -> Tour:
    return TourFactory.create(capacity=100, available_seats=50)


def settle(consumer: Consumer, *events: dict[str, Any] | bytes) -> None:
    inbox.process(consumer, deliveries(*events))


def test_every_consumer_is_held_to_the_laws() -> None:
    assert set(SUBJECTS) == set(CONSUMERS)


class TestDuplicates:
    def test_a_repeat_in_another_group_has_no_effect(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.event()
        settle(consumer, event)
        settle(consumer, event)
        assert subject.effects() == 1
        assert ProcessedEvent.objects.count() == 1

    def test_a_repeat_in_the_same_group_has_no_effect(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        settle(consumer, *[subject.event(event_id="same")] * 5)
        assert subject.effects() == 1
        assert ProcessedEvent.objects.count() == 1
        assert parked() == []

    def test_the_same_event_formatted_otherwise_is_a_repeat(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.event()
        settle(consumer, event, body(event).replace(b": ", b"  :\n "))
        assert ProcessedEvent.objects.count() == 1
        assert parked() == []

    @pytest.mark.parametrize("times", [2, 8])
    def test_repeats_at_once_have_one_effect(
        self, consumer: Consumer, subject: Subject, times: int
    ) -> None:
        event = subject.event()
        at_once(*[lambda: settle(consumer, event)] * times)
        assert subject.effects() == 1
        assert ProcessedEvent.objects.count() == 1

    def test_another_event_that_says_the_same_of_its_booking_has_no_effect(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.event("B")
        others = [event | {"eventId": f"other-{number}"} for number in range(4)]
        at_once(*[partial(settle, consumer, other) for other in others])
        assert subject.effects() == 1
        assert ProcessedEvent.objects.count() == 4
        assert parked() == []

    def test_another_consumers_claim_is_none_of_ours(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.event()
        ProcessedEvent.objects.create(event_id=event["eventId"], consumer="another queue")
        settle(consumer, event)
        assert ProcessedEvent.objects.filter(consumer=consumer.queue).count() == 1

    def test_it_says_when_the_first_came(
        self, consumer: Consumer, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        event = subject.event()
        settle(consumer, event)
        first = ProcessedEvent.objects.get().processed_at
        with caplog.at_level("INFO"):
            settle(consumer, event)
        [line] = [str(record.msg) for record in caplog.records if "Duplicate" in str(record.msg)]
        assert event["eventId"] in line
        assert first.isoformat() in line


class TestConflicts:
    def test_an_id_reused_with_other_content_is_parked(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        settle(consumer, subject.event("B", event_id="used"))
        settle(consumer, subject.event("C", event_id="used"))
        assert subject.effects() == 1
        assert parked() == [("conflict", "used")]

    def test_within_one_group_too(self, consumer: Consumer, subject: Subject) -> None:
        first = subject.event("B", event_id="used")
        settle(consumer, first, subject.event("C", event_id="used"))
        assert parked() == [("conflict", "used")]
        spoken_of = first["payload"].get("bookingId", str(first["payload"]["tourId"]))
        assert ProcessedEvent.objects.get().aggregate_id == spoken_of

    def test_another_timestamp_is_no_other_content(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.event()
        earlier = (timezone.now() - timedelta(hours=1)).isoformat()
        settle(consumer, event, event | {"timestamp": earlier})
        assert parked() == []


class TestParking:
    def test_it_leaves_no_claim_so_that_a_replay_is_a_first_time(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.refused(event_id="lost")
        settle(consumer, event)
        assert parked() == [(subject.refusal, "lost")]
        assert ProcessedEvent.objects.count() == 0
        subject.mend()
        settle(consumer, event)
        assert ProcessedEvent.objects.count() == 1

    def test_repeats_are_counted_on_the_open_dead_letter(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        event = subject.refused()
        settle(consumer, event, event)
        settle(consumer, event)
        letter = DeadLetter.objects.get()
        assert letter.attempts == 3
        assert bytes(letter.body) == body(event)
        assert letter.detail

    def test_its_neighbours_are_applied(self, consumer: Consumer, subject: Subject) -> None:
        settle(consumer, subject.event("A"), subject.refused(), b"junk", subject.event("C"))
        assert ProcessedEvent.objects.count() == 2
        assert subject.effects() == 2
        assert [reason for reason, _ in parked()] == sorted(["malformed", subject.refusal])

    def test_an_event_older_than_the_retention_is_stale(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        old = timezone.now() - settings.PROCESSED_EVENTS_RETENTION - timedelta(minutes=1)
        event = subject.event(event_id="old", timestamp=old.isoformat())
        settle(consumer, event)
        assert parked() == [("stale", "old")]
        letter = DeadLetter.objects.get()
        inbox.process(
            consumer, [Delivery(body(event))]
        )  # no token, as a letter has before its replay
        assert ProcessedEvent.objects.count() == 0
        DeadLetter.objects.update(replay_token="known to us")
        for forged in ("", str(letter.pk), "guessed"):
            inbox.process(consumer, [Delivery(body(event), replay_of=forged)])
        assert ProcessedEvent.objects.count() == 0
        DeadLetter.objects.update(state="discarded")
        inbox.process(consumer, [Delivery(body(event), replay_of="known to us")])
        assert ProcessedEvent.objects.count() == 0
        DeadLetter.objects.filter(pk=letter.pk).update(state="replayed")
        inbox.process(consumer, [Delivery(body(event), replay_of="known to us")])
        assert ProcessedEvent.objects.count() == 1


class TestBugs:
    def test_each_event_is_done_alone_and_those_that_fail_are_parked(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        broken = replace(consumer, rule=_failing(consumer, KeyError("oh"), on="bad"))
        settle(broken, subject.event("A"), subject.event("bad", event_id="bad"), subject.event("C"))
        assert parked() == [("bug", "bad")]
        assert DeadLetter.objects.get().detail == "KeyError: 'oh'"
        assert ProcessedEvent.objects.count() == 2
        assert subject.effects() == 2

    def test_a_lack_of_memory_is_a_bug_too(self, consumer: Consumer, subject: Subject) -> None:
        broken = replace(consumer, rule=_failing(consumer, MemoryError(), on="bad"))
        settle(broken, subject.event("bad", event_id="bad"), subject.event("C"))
        assert parked() == [("bug", "bad")]

    def test_a_crash_before_the_commit_has_no_effect(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        class PowerFailure(BaseException):
            pass

        event = subject.event(event_id="bad")
        broken = replace(consumer, rule=_failing(consumer, PowerFailure(), on="bad", after=True))
        with pytest.raises(PowerFailure):
            settle(broken, event)
        assert ProcessedEvent.objects.count() == 0
        assert subject.effects() == 0
        settle(consumer, event)
        assert ProcessedEvent.objects.count() == 1

    def test_a_rule_that_forgets_an_event_fails(self, consumer: Consumer, subject: Subject) -> None:
        settle(
            replace(consumer, rule=lambda events, *, lock: []), subject.event(event_id="forgotten")
        )
        assert parked() == [("bug", "forgotten")]


class TestPerseverance:
    def test_a_lost_race_is_run_again_and_the_last_attempt_locks(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        settings.LOCK_ATTEMPTS, settings.LOCK_BASE_SECONDS = 3, 0
        asked: list[bool] = []

        def losing(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            asked.append(lock)
            if not lock:
                raise LostRace("tour", tour_id=1, version=7)
            return consumer.rule(events, lock=lock)

        settle(replace(consumer, rule=losing), subject.event())
        assert asked == [False, False, True]
        assert ProcessedEvent.objects.count() == 1

    def test_who_has_lost_a_race_locks_first_for_a_while(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        settings.LOCK_ATTEMPTS, settings.LOCK_BASE_SECONDS = 3, 0
        asked: list[bool] = []
        races = iter(range(1))

        def losing_once(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            asked.append(lock)
            if next(races, None) is not None:
                raise LostRace("tour", tour_id=1, version=7)
            return consumer.rule(events, lock=lock)

        def settled() -> list[bool]:
            asked.clear()
            settle(replace(consumer, rule=losing_once), subject.event())
            return list(asked)

        settings.LOCK_FIRST_SECONDS = 60
        assert settled() == [False, False]
        assert settled() == [True]
        assert contention.locks_first(consumer.queue)
        assert not contention.locks_first("another")

        contention.forget()
        races = iter(range(1))
        settings.LOCK_FIRST_SECONDS = 0
        assert settled() == [False, False]
        assert settled() == [False]

    def test_running_out_of_attempts_loses_nothing(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        settings.LOCK_BASE_SECONDS = 0
        races = iter(range(10))

        def unlucky(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            if next(races, None) is not None:
                raise LostRace("reservation")
            return consumer.rule(events, lock=lock)

        settle(replace(consumer, rule=unlucky), subject.event())
        assert ProcessedEvent.objects.count() == 1

    def test_a_database_that_is_away_is_waited_for(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        settings.OUTAGE_BASE_SECONDS = 0.001
        outages = iter(range(3))

        def cut_off(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            if next(outages, None) is not None:
                _lose_connection()
            return consumer.rule(events, lock=lock)

        settle(replace(consumer, rule=cut_off), subject.event())
        assert ProcessedEvent.objects.count() == 1
        assert parked() == []


def _failing(consumer: Consumer, error: BaseException, *, on: str, after: bool = False) -> Rule:
    def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
        done = consumer.rule(events, lock=lock) if after else ()
        if any(event.event_id == on for event in events):
            raise error
        return done or consumer.rule(events, lock=lock)

    return rule


def _lose_connection() -> None:
    """End this session at the server, or raise what SQLite does for a file that it can't read."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    else:
        import sqlite3

        cause = sqlite3.OperationalError("disk I/O error")
        cause.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise OperationalError("disk I/O error") from cause


@pytest.mark.parametrize("locks_first", [0, 60], ids=["optimistic", "locking"])
class TestConcurrency:
    @pytest.fixture(autouse=True)
    def _quick(self, settings: Any, locks_first: int) -> None:
        settings.LOCK_FIRST_SECONDS, settings.LOCK_BASE_SECONDS = locks_first, 0.001

    def test_overlapping_groups_in_any_order_never_deadlock(self) -> None:
        tours = [TourFactory.create(capacity=1000) for _ in range(10)]
        events = [created(tours[n % 10].pk, f"B{n}", event_id=f"e{n}") for n in range(100)]
        shuffled = [events, events[::-1], events[50:] + events[:50], events[::3] + events[1::3]]
        consumer = CONSUMERS[CREATED]
        for _ in range(3):
            at_once(*[lambda group=group: settle(consumer, *group) for group in shuffled])
        assert ProcessedEvent.objects.count() == 100
        for tour in tours:
            assert_adds_up(tour)
            assert tour.reserved_seats == 10

    def test_creations_and_cancellations_at_once_lose_no_update(self) -> None:
        tour = TourFactory.create(capacity=1000)
        groups = [[f"B{worker}-{n}" for n in range(20)] for worker in range(4)]

        def book(names: list[str]) -> None:
            for name in names:
                settle(CONSUMERS[CREATED], created(tour.pk, name))

        def cancel(names: list[str]) -> None:
            for name in names:
                settle(CONSUMERS[CANCELLED], cancelled(tour.pk, name))

        calls = [lambda names=names: book(names) for names in groups]
        calls += [lambda names=names: cancel(names) for names in groups[:2]]
        at_once(*calls)
        assert_adds_up(tour)
        assert tour.reserved_seats == 40
        assert tour.unledgered_seats == 0
        assert tour.optimistic_lock_version == 120


@pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite has one writer: there is no race to lose"
)
def test_negative_control_without_the_version_an_update_is_lost(tour: Tour) -> None:
    """The race that the version guards against does happen."""
    read = threading.Barrier(2)

    def careless() -> None:
        with transaction.atomic():
            seats = Tour.objects.get(pk=tour.pk).reserved_seats
            read.wait()
            left = 50 - seats - 1
            Tour.objects.filter(pk=tour.pk).update(reserved_seats=seats + 1, available_seats=left)

    at_once(careless, careless)
    tour.refresh_from_db()
    assert tour.reserved_seats == 1
