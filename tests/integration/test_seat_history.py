"""The history of a tour's seats: each change with its cause, once, as it happens."""

import dataclasses
import threading
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain, pairwise
from random import Random
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from msgspec.structs import replace

from booking_platform.contract.envelope import Event
from booking_platform.messaging import clock, inbox
from booking_platform.messaging.retention import CLEANUP
from booking_platform.messaging.rules import CONSUMERS, LostRace, Result
from catalog import history, retention
from catalog.causes import Cause
from catalog.models import Reservation, SeatChange, Tour
from tests.events import cancelled, changed, created, deliveries
from tests.factories import TourFactory
from tests.integration.test_booking_lives import QUEUES, again, at, groups, life
from tests.servers import wait_until
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = CONSUMERS["tour-catalog.booking-created"]


def settle(*events: dict[str, Any]) -> None:
    """Apply events in their order, those of one type that follow each other as a group."""
    group: list[dict[str, Any]] = []
    for event in [*events, None]:
        if group and (event is None or event["eventType"] != group[0]["eventType"]):
            inbox.process(CONSUMERS[QUEUES[group[0]["eventType"]]], deliveries(*group))
            group = []
        if event is not None:
            group.append(event)


@pytest.fixture
def tour() -> Tour:
    return TourFactory.create(capacity=10)


def changes(tour: Tour) -> list[SeatChange]:
    return list(SeatChange.objects.filter(tour=tour).order_by("version"))


def by_events(tour: Tour) -> list[SeatChange]:
    return [each for each in changes(tour) if each.causes]


def outcomes(change: SeatChange) -> list[tuple[str, str, int]]:
    return [(each.booking_id, each.outcome, each.seats) for each in change.caused_by]


def somebody_waits() -> bool:
    """Return whether a session waits for a lock that this one holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity "
            "WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        )
        return bool(cursor.fetchone()[0])


def assert_complete(tour: Tour) -> None:
    """Each row follows from the one before it, and the last has the numbers of the tour."""
    rows = changes(tour)
    for before, after in pairwise(rows):
        causes = after.caused_by
        assert after.reserved == before.reserved + sum(each.reserved for each in causes)
        assert after.unledgered == before.unledgered + sum(each.unledgered for each in causes)
        assert after.capacity == before.capacity or after.what
    tour.refresh_from_db()
    assert replace(rows[-1].seats, version=0) == replace(tour.seats, version=0)
    assert rows[-1].version <= tour.optimistic_lock_version


class TestWhatIsWritten:
    def test_a_group_makes_one_row_for_each_tour_with_its_events_in_order(self, tour: Tour) -> None:
        other = TourFactory.create(capacity=5)
        settle(
            created(tour.pk, "A", 2, event_id="e1"),
            created(other.pk, "B", 3, event_id="e2"),
            created(tour.pk, None, 1, event_id="e3"),
        )
        [row], [its] = by_events(tour), by_events(other)
        assert row.caused_by == (
            Cause("e1", "A", "reserved", 2, 0, 2),
            Cause("e3", "", "reserved", 0, 1, 1),
        )
        assert its.caused_by == (Cause("e2", "B", "reserved", 3, 0, 3),)
        assert (row.capacity, row.reserved, row.unledgered, row.seats.available) == (10, 2, 1, 7)
        assert row.version == Tour.objects.get(pk=tour.pk).optimistic_lock_version
        assert clock.now() - row.changed_at < timedelta(minutes=1)

    def test_a_booking_that_found_no_seat_is_told_of(self, tour: Tour) -> None:
        settle(created(tour.pk, "A", 9), created(tour.pk, "B", 4))
        settle(created(tour.pk, "C", 2, event_id="late"))
        first, second = by_events(tour)
        assert outcomes(first) == [("A", "reserved", 9), ("B", "rejected", 0)]
        assert second.caused_by == (Cause("late", "C", "rejected", 0, 0, 2),)
        assert second.seats.available == 1

    def test_each_kind_of_step_is_told_of(self, tour: Tour) -> None:
        settle(
            cancelled(tour.pk, "X", 2, timestamp=at(2)),  # before its creation
            created(tour.pk, "X", 3, timestamp=at(1)),
            created(tour.pk, "A", 4, timestamp=at(1)),
            changed(tour.pk, "A", 6, revision=1, timestamp=at(2)),
            changed(tour.pk, "A", 20, revision=2, timestamp=at(3)),
            cancelled(tour.pk, "A", 1, seatsRemaining=5, timestamp=at(4)),
            cancelled(tour.pk, "A", 5, seatsRemaining=0, timestamp=at(5)),
        )
        assert [outcomes(each) for each in by_events(tour)] == [
            [("X", "cancelled", -2)],
            [("X", "reserved", 3), ("A", "reserved", 4)],
            [("A", "changed", 2), ("A", "change_rejected", 0)],
            [("A", "reduced", -1), ("A", "released", -5)],
        ]
        assert_complete(tour)

    def test_what_changes_nothing_makes_no_row(self, tour: Tour) -> None:
        settle(event := created(tour.pk, "A", 2), cancelled(tour.pk, "A", 2))
        assert len(by_events(tour)) == 2
        settle(event)  # a duplicate
        settle(again(event))  # a repeat
        settle(created(tour.pk, "A", 3))  # parked
        settle(created(999_999, "B", 3))
        settle(changed(tour.pk, "later", 2, revision=1))  # remembered
        assert len(by_events(tour)) == 2
        assert_complete(tour)

    def test_staff_make_a_row_with_the_capacity_and_none_without(self, tour: Tour) -> None:
        settle(created(tour.pk, "A", 4))
        tour.capacity = 3
        tour.save(by="ada")
        tour.name = "Renamed"
        tour.save(by="ada")
        tour.capacity = 30
        tour.save(update_fields=["capacity"])
        assert [(each.what, each.changed_by) for each in changes(tour) if each.what] == [
            ("created with 10 seats", ""),
            ("capacity 10 → 3", "ada"),
            ("capacity 3 → 30", ""),
        ]
        assert_complete(tour)

    def test_a_tour_that_starts_with_sold_seats_says_so(self) -> None:
        tour = TourFactory.create(capacity=20, available_seats=12)
        [row] = changes(tour)
        assert row.what == "created with 20 seats, 8 of them sold"
        assert_complete(tour)

    def test_a_recount_makes_a_row(self, tour: Tour) -> None:
        settle(created(tour.pk, "A", 4))
        Reservation.objects.update(seats=3)
        call_command("recount_seats", tour.pk)
        row = changes(tour)[-1]
        assert row.what == "counted anew: 4 were reserved, now 3 are"
        assert row.changed_by == "recount_seats"
        tour.refresh_from_db()
        assert row.seats == tour.seats

    def test_a_tour_that_is_deleted_takes_its_history_with_it(self, tour: Tour) -> None:
        tour.delete()
        assert not SeatChange.objects.exists()

    def test_a_group_costs_one_statement_more_whatever_is_in_it(self, tour: Tour) -> None:
        def written(*events: dict[str, Any]) -> int:
            with CaptureQueriesContext(connection) as queries:
                settle(*events)
            return sum("seat_changes" in query["sql"] for query in queries)

        tours = [tour, *(TourFactory.create() for _ in range(5))]
        assert written(created(tour.pk, "A")) == 1
        assert written(*[created(each.pk, f"B{each.pk}") for each in tours * 3]) == 1


class TestOnceInEffect:
    def test_what_is_rolled_back_leaves_no_row(self, tour: Tour) -> None:
        def failing(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            CREATED.rule(events, lock=lock)
            raise ValueError("a bug, after all is written")

        inbox.process(dataclasses.replace(CREATED, rule=failing), deliveries(created(tour.pk, "A")))
        assert by_events(tour) == []

    def test_a_lost_race_that_is_run_again_leaves_one(self, tour: Tour, settings: Any) -> None:
        settings.LOCK_BASE_SECONDS = 0
        lost: list[int] = []

        def losing(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            results = CREATED.rule(events, lock=lock)
            if len(lost) < 2:
                lost.append(len(by_events(tour)))  # what the transaction has written
                raise LostRace("tour", tour_id=tour.pk, version=0)
            return results

        inbox.process(dataclasses.replace(CREATED, rule=losing), deliveries(created(tour.pk, "A")))
        assert lost == [1, 1]
        assert [outcomes(each) for each in by_events(tour)] == [[("A", "reserved", 1)]]

    def test_a_version_that_was_set_back_costs_a_row_and_no_booking(self, tour: Tour) -> None:
        settle(created(tour.pk, "A"))
        Tour.objects.filter(pk=tour.pk).update(optimistic_lock_version=0)
        settle(created(tour.pk, "B"))
        tour.refresh_from_db()
        assert tour.reserved_seats == 2
        Tour.objects.filter(pk=tour.pk).update(optimistic_lock_version=0)
        tour.refresh_from_db()
        tour.capacity = 11
        tour.save()
        assert len(changes(tour)) == 2

    def test_groups_and_staff_at_once_leave_a_history_without_a_gap(self, settings: Any) -> None:
        settings.LOCK_BASE_SECONDS = 0.001
        tour = TourFactory.create(capacity=1000)

        def book(name: str) -> None:
            for number in range(15):
                settle(created(tour.pk, f"{name}{number}", 2))

        def resize() -> None:
            for number in range(15):
                mine = Tour.objects.get(pk=tour.pk)
                mine.capacity = 1000 + number % 2
                mine.save(by="ada")

        at_once(lambda: book("A"), lambda: book("B"), resize, resize)
        assert len(by_events(tour)) == 30
        assert_complete(tour)

    @pytest.mark.skipif(
        connection.vendor == "sqlite", reason="SQLite has one writer: there is no race to lose"
    )
    def test_a_capacity_that_was_set_back_meanwhile_is_told_of(self, tour: Tour) -> None:
        raised = threading.Event()

        def raise_it() -> None:
            with transaction.atomic():
                mine = Tour.objects.get(pk=tour.pk)
                mine.capacity = 30
                mine.save(by="ada")
                raised.set()
                wait_until(somebody_waits, what="the other waits for the tour")

        def keep_it() -> None:
            mine = Tour.objects.get(pk=tour.pk)
            assert raised.wait(60)
            mine.save(by="grace")  # with the capacity that it had before

        at_once(raise_it, keep_it)
        assert [each.what for each in changes(tour)][1:] == ["capacity 10 → 30", "capacity 30 → 10"]
        assert_complete(tour)

    @pytest.mark.skipif(
        connection.vendor == "sqlite", reason="SQLite has one writer: there is no race to lose"
    )
    def test_negative_control_numbers_that_were_read_before_leave_a_gap(self, tour: Tour) -> None:
        """The race that the lock guards against does happen."""
        read, booked = threading.Event(), threading.Event()

        def careless() -> None:
            mine = Tour.objects.get(pk=tour.pk)
            read.set()
            assert booked.wait(10)
            with transaction.atomic():
                Tour.objects.filter(pk=tour.pk).update(capacity=12, available_seats=7)
                stale = replace(mine.seats, version=2, capacity=12)
                SeatChange.record(stale, by="ada", what="capacity 10 → 12")

        def book() -> None:
            assert read.wait(10)
            settle(created(tour.pk, "A", 5))
            booked.set()

        at_once(careless, book)
        with pytest.raises(AssertionError):
            assert_complete(tour)


class TestAnyLife:
    def test_the_changes_add_up_to_the_tour_and_to_each_booking(self) -> None:
        """Random lives, in any order and repeated, in groups of any size, and staff in between."""
        chance = Random(5)
        for _ in range(6):
            tour = TourFactory.create(capacity=40)
            events = [
                *chain.from_iterable(life(tour.pk, f"L{tour.pk}-{n}", chance) for n in range(20))
            ]
            events += [again(each, n) for n, each in enumerate(chance.sample(events, 15))]
            events += [created(tour.pk, None, 2), created(tour.pk, None, 3)]
            chance.shuffle(events)
            for group in groups(events, chance):
                settle(*group)
                if chance.random() < 0.2:
                    tour.refresh_from_db()
                    tour.capacity = chance.randint(20, 60)
                    tour.save(by="ada")
            assert_complete(tour)
            for booking in Reservation.objects.filter(tour=tour):
                seats = sum(each.seats for each in history.changes_of(booking.booking_id))
                given_back = booking.seats if booking.state == Reservation.State.CANCELLED else 0
                assert seats == (booking.seats if booking.state == "reserved" else -given_back)


class TestChangesOfABooking:
    def test_they_are_found_among_others_with_a_constant_number_of_statements(
        self, tour: Tour, django_assert_num_queries: Any
    ) -> None:
        settle(
            created(tour.pk, "A", 4, event_id="one"),
            created(tour.pk, "AA", 1),
            cancelled(tour.pk, "A", 1, seatsRemaining=3, event_id="two"),
            cancelled(tour.pk, "A", 3, seatsRemaining=0, event_id="three"),
        )
        with django_assert_num_queries(3):
            found = history.changes_of("A")
        assert [(each.event_id, each.outcome, each.seats, each.available) for each in found] == [
            ("one", "reserved", 4, 5),
            ("two", "reduced", -1, 9),
            ("three", "released", -3, 9),
        ]
        assert {each.tour_id for each in found} == {tour.pk}

    @pytest.mark.parametrize(
        "booking", ['quo"te\\', "%_%", "é" * 255, "\U0001f600" * 255, "a,b]", "[1]"], ids=range(6)
    )
    def test_no_id_hides_its_changes_or_finds_others(self, tour: Tour, booking: str) -> None:
        settle(created(tour.pk, booking, 2), created(tour.pk, "other", 1))
        [found] = history.changes_of(booking)
        assert (found.seats, found.available) == (2, 7)

    def test_a_booking_without_any_has_none(self, tour: Tour) -> None:
        settle(created(tour.pk, "A"))
        assert history.changes_of("B") == []
        SeatChange.objects.all().delete()
        assert history.changes_of("A") == []


def old_changes(tour: Tour, count: int, *, days: float, every: timedelta, first: int = 1) -> None:
    """Store changes of a tour, the newest so many days ago; they change its reserved seats by turns."""
    start = clock.now() - timedelta(days=days) - count * every
    SeatChange.objects.bulk_create(
        [
            SeatChange(
                tour_id=tour.pk,
                version=number + first,
                changed_at=start + number * every,
                capacity=tour.capacity,
                reserved=number % 10,
                unledgered=0,
            )
            for number in range(count)
        ],
        batch_size=5000,
    )


class TestThePlot:
    def test_few_changes_are_all_drawn(self, tour: Tour) -> None:
        SeatChange.objects.all().delete()
        old_changes(tour, history.POINTS, days=1, every=timedelta(minutes=1))
        points, complete = history.points(tour.pk)
        assert complete
        assert [each.version for each in points] == [*range(1, history.POINTS + 1)]

    def test_many_are_drawn_evenly_in_time_by_a_bounded_number_of_statements(
        self, tour: Tour, django_assert_max_num_queries: Any
    ) -> None:
        SeatChange.objects.all().delete()
        old_changes(tour, 5000, days=1, every=timedelta(seconds=1))
        lone = TourFactory.create()
        old_changes(lone, 5000, days=1, every=timedelta(seconds=1))
        with django_assert_max_num_queries(6):
            points, complete = history.points(tour.pk)
        assert not complete
        versions = [each.version for each in points]
        assert (versions[0], versions[-1]) == (1, 5000)
        assert len(versions) <= history.POINTS
        assert {each.tour_id for each in points} == {tour.pk}
        assert max(later - earlier for earlier, later in pairwise(versions)) <= 18

    def test_a_tour_without_changes_has_none(self, tour: Tour) -> None:
        SeatChange.objects.all().delete()
        assert history.points(tour.pk) == ([], True)


class TestCleanup:
    def test_the_old_go_and_the_newest_of_each_tour_stays(
        self, tour: Tour, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH", 7)
        monkeypatch.setattr(retention, "TOURS_AT_ONCE", 1)
        quiet = TourFactory.create()
        SeatChange.objects.all().delete()
        old_changes(tour, 40, days=29, every=timedelta(days=1))
        old_changes(quiet, 30, days=60, every=timedelta(days=1))
        deleted = retention.forget_seat_changes()
        assert [each.version for each in changes(quiet)] == [30]
        assert [each.version for each in changes(tour)] == [40]
        assert deleted == 68

    def test_those_of_the_retention_stay(self, tour: Tour, settings: Any) -> None:
        settings.PROCESSED_EVENTS_RETENTION = timedelta(days=20)
        settle(*[created(tour.pk, f"B{n}") for n in range(3)])
        assert retention.forget_seat_changes() == 0
        assert len(changes(tour)) == 2
        SeatChange.objects.update(changed_at=clock.now() - timedelta(days=21))
        assert retention.forget_seat_changes() == 1
        assert_complete(tour)

    def test_it_is_part_of_the_nightly_cleanup(self) -> None:
        assert retention.forget_seat_changes in CLEANUP
