"""The read model of web shops: the newest numbers of each tour, whatever comes in which order."""

from functools import partial
from random import Random
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from booking_platform.messaging import inbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from catalog import availability as read_model
from catalog.models import Tour, TourAvailability
from tests.events import availability, created, deliveries
from tests.factories import TourFactory
from tests.integration.test_booking_lives import QUEUES, groups, life
from tests.platform import parked
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "web-shop.availability-changed"


def settle(*events: dict[str, Any]) -> None:
    inbox.process(CONSUMERS[QUEUE], deliveries(*events))


def shown() -> dict[int, list[int]]:
    """Return version, capacity and free seats of each tour of the read model."""
    rows = TourAvailability.objects.values_list("tour_id", "version", "capacity", "available")
    return {tour: numbers for tour, *numbers in rows}


def there_are() -> dict[int, list[int]]:
    """Return the same of the tours themselves."""
    columns = ("pk", "optimistic_lock_version", "capacity", "available_seats")
    return {tour: numbers for tour, *numbers in Tour.objects.values_list(*columns)}


def outcomes() -> list[str]:
    return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))


def told(tour: Tour) -> dict[str, Any]:
    """Return the announcement of a tour as it is."""
    tour.refresh_from_db()
    version, capacity = tour.optimistic_lock_version, tour.capacity
    return availability(tour.pk, version, tour.available_seats, capacity=capacity)


class TestTheNewest:
    def test_it_is_shown_and_the_older_is_without_effect(self) -> None:
        settle(availability(1, 5, 3, capacity=9))
        settle(availability(1, 4, 7))
        settle(availability(1, 9, 0, capacity=8))
        assert shown() == {1: [9, 8, 0]}
        assert outcomes() == [
            "availability_shown", "availability_outdated", "availability_shown",
        ]  # fmt: skip

    def test_of_one_group_it_alone_is_shown(self) -> None:
        settle(*[availability(1, version, version) for version in (3, 9, 4)], availability(2, 1))
        assert shown() == {1: [9, 20, 9], 2: [1, 20, 3]}
        assert outcomes().count("availability_outdated") == 2

    def test_it_holds_the_greatest_numbers_that_can_be_announced(self) -> None:
        most = 2**63 - 1
        settle(availability(most, most, most, capacity=most))
        assert shown() == {most: [most, most, most]}

    def test_it_comes_from_any_order_repetition_and_grouping(self) -> None:
        chance = Random(12)
        for round_number in range(20):
            tours = range(100 * round_number + 1, 100 * round_number + 6)
            said = [(tour, version) for tour in tours for version in chance.sample(range(50), 8)]
            events = [availability(*each, free=each[1] % 20) for each in said + said[::3]]
            chance.shuffle(events)
            while events:
                size = chance.randint(1, 12)
                settle(*events[:size])
                del events[:size]
            last = {tour: max(v for t, v in said if t == tour) for tour in tours}
            for tour, version in last.items():
                assert shown()[tour] == [version, 20, version % 20]
        assert parked() == []

    def test_other_numbers_of_a_known_version_are_put_up_for_a_person(self) -> None:
        settle(availability(1, 5, 3), availability(1, 5, 4, event_id="other"))
        settle(availability(1, 5, 2, event_id="later"))
        assert shown() == {1: [5, 20, 3]}
        assert parked() == [("differs", "later"), ("differs", "other")]

    def test_groups_at_once_end_with_it_and_never_wait_for_each_other(self) -> None:
        """Groups of the same tours in different orders, some of which are not known yet."""
        settle(*[availability(tour, 1, 1) for tour in range(1, 10, 2)])
        groups = [
            [availability(tour, 10 * turn + n, tour % 9) for tour in range(1, 11)]
            for n, turn in enumerate((4, 1, 3, 2), start=1)
        ]
        for number, group in enumerate(groups):
            Random(number).shuffle(group)
        at_once(*[partial(settle, *group) for group in groups])
        assert shown() == {tour: [41, 20, tour % 9] for tour in range(1, 11)}
        assert parked() == []

    def test_a_group_costs_the_same_statements_whatever_is_in_it(self) -> None:
        def cost(*events: dict[str, Any]) -> int:
            with CaptureQueriesContext(connection) as queries:
                settle(*events)
            return len(queries)

        settle(*[availability(tour, 5) for tour in range(1, 50)])
        one = cost(availability(50, 1))
        many = cost(*[availability(tour, 6) for tour in range(40, 240)])
        mixed = cost(*[availability(tour, tour % 9) for tour in range(1, 200)])
        assert many == one
        assert mixed <= one + 1  # an update for other outcomes than the usual one


class TestTours:
    def test_the_read_model_equals_them_after_random_lives(self) -> None:
        """Announced late, in any order, and some of it twice."""
        chance = Random(13)
        tours = [TourFactory.create(capacity=40) for _ in range(4)]
        events = [
            event
            for tour in tours
            for n in range(15)
            for event in life(tour.pk, f"B{tour.pk}-{n}", chance)
        ]
        chance.shuffle(events)
        announcements = []
        for group in groups(events, chance):
            inbox.process(CONSUMERS[QUEUES[group[0]["eventType"]]], deliveries(*group))
            announcements += [told(tour) for tour in tours]
        tours[0].capacity = 50
        tours[0].save()
        announcements += [told(tours[0])]
        announcements += chance.sample(announcements, 20)
        chance.shuffle(announcements)
        for start in range(0, len(announcements), 7):
            settle(*announcements[start : start + 7])
        assert shown() == there_are()
        assert all(version > 1 for version, *_ in shown().values())

    def test_one_that_is_gone_is_no_reason_to_park(self) -> None:
        tour = TourFactory.create()
        announcement = told(tour)
        tour.delete()
        settle(announcement)
        assert parked() == []


class TestRefreshing:
    def test_it_makes_the_read_model_equal_to_the_tours(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(read_model, "PAGE", 3)
        tours = [TourFactory.create(capacity=n) for n in range(10)]
        bookings = [created(tour.pk, f"B{tour.pk}") for tour in tours]
        inbox.process(CONSUMERS[QUEUES["BookingCreated"]], deliveries(*bookings))
        right, forged, old, behind = tours[:4]
        settle(told(right), availability(forged.pk, 2**63 - 1, 999), availability(old.pk, 0, 2))
        settle(told(behind))
        Tour.objects.filter(pk=behind.pk).update(optimistic_lock_version=9)  # the numbers stayed
        settle(availability(4242, 1))  # of no tour
        call_command("refresh_availability")
        assert shown().pop(behind.pk) == [1, 3, 2]
        assert shown() | {behind.pk: [9, 3, 2]} == there_are()
        call_command("refresh_availability")
        assert capsys.readouterr().out.splitlines() == [
            "9 tours had other numbers.", "All tours had theirs.",
        ]  # fmt: skip

    def test_bookings_meanwhile_are_not_overwritten(self) -> None:
        tour = TourFactory.create(capacity=1000)

        def book(first: int) -> None:
            for number in range(first, first + 10):
                event = created(tour.pk, f"B{number}")
                inbox.process(CONSUMERS[QUEUES["BookingCreated"]], deliveries(event))
                settle(told(Tour.objects.get(pk=tour.pk)))

        def refresh() -> None:
            for _ in range(20):
                read_model.refresh()

        at_once(*[partial(book, 10 * n) for n in range(3)], refresh)
        assert shown() == {tour.pk: [30, 1000, 970]}
