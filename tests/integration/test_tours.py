"""The tour's row: what it is created with, what staff may change, what the database refuses."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from booking_platform.messaging import inbox
from booking_platform.messaging.rules import CONSUMERS
from catalog.models import Reservation, Tour
from tests.events import cancelled, created, deliveries
from tests.factories import TourFactory
from tests.platform import assert_adds_up

pytestmark = pytest.mark.django_db(transaction=True)


def settle(*events: dict[str, Any]) -> None:
    for event in events:
        kind = event["eventType"].removeprefix("Booking").lower()
        inbox.process(CONSUMERS[f"tour-catalog.booking-{kind}"], deliveries(event))


class TestCreation:
    def test_seats_neither_available_nor_reserved_are_sold_outside_the_ledger(self) -> None:
        tour = Tour.objects.create(name="T", price="10.00", capacity=20, available_seats=10)
        assert tour.unledgered_seats == 10

    def test_without_capacity_it_equals_the_available_seats(self) -> None:
        tour = Tour.objects.create(name="T", price="10.00", available_seats=10)
        assert (tour.capacity, tour.unledgered_seats) == (10, 0)

    def test_without_available_seats_all_are_free(self) -> None:
        assert Tour.objects.create(name="T", price="10.00", capacity=20).available_seats == 20

    def test_more_available_than_there_are_is_refused_by_name_and_value(self) -> None:
        with pytest.raises(ValidationError, match="available_seats is 30: only 20 are free"):
            Tour.objects.create(name="T", price="10.00", capacity=20, available_seats=30)

    def test_an_overbooked_tour_can_be_created(self) -> None:
        tour = TourFactory.create(capacity=5, reserved_seats=8)
        assert (tour.available_seats, tour.overbooked_seats) == (0, 3)


class TestCheck:
    @pytest.mark.parametrize(
        "change",
        [
            {"available_seats": 21},
            {"available_seats": 19},
            {"reserved_seats": 1},
            {"unledgered_seats": 1},
            {"capacity": 21},
            {"reserved_seats": -1, "available_seats": 20},
        ],
        ids=str,
    )
    def test_numbers_that_do_not_add_up_never_reach_the_row(self, change: dict[str, Any]) -> None:
        tour = TourFactory.create(capacity=20)
        with pytest.raises(IntegrityError), transaction.atomic():
            Tour.objects.filter(pk=tour.pk).update(**change)

    def test_a_negative_balance_frees_no_seat_twice(self) -> None:
        tour = TourFactory.create(capacity=20)
        Tour.objects.filter(pk=tour.pk).update(unledgered_seats=-5)
        assert_adds_up(tour)
        assert tour.available_seats == 20


class TestStaff:
    def test_a_stale_save_undoes_no_booking(self) -> None:
        tour = TourFactory.create(capacity=20)
        settle(created(tour.pk, "B", seats=3))
        tour.name, tour.capacity = "Renamed", 25
        tour.save()
        assert (tour.name, tour.reserved_seats, tour.available_seats) == ("Renamed", 3, 22)
        assert tour.optimistic_lock_version == 2
        assert_adds_up(tour)

    def test_numbers_that_belong_to_the_workers_are_not_written(self) -> None:
        tour = TourFactory.create(capacity=20)
        tour.reserved_seats = tour.unledgered_seats = 7
        tour.save()
        assert (tour.reserved_seats, tour.unledgered_seats) == (0, 0)
        tour.save(update_fields=["reserved_seats"])
        assert_adds_up(tour)

    def test_a_save_of_one_field_knows_nothing_of_the_capacity(self) -> None:
        stale = TourFactory.create(capacity=20)
        colleague = Tour.objects.get(pk=stale.pk)
        colleague.capacity = 30
        colleague.save()
        stale.price = "12.00"
        stale.save(update_fields=["price"])
        assert_adds_up(stale)
        assert (stale.capacity, stale.available_seats) == (30, 30)

    def test_a_capacity_below_what_is_sold_is_overbooked_and_events_go_on(self) -> None:
        tour = TourFactory.create(capacity=20)
        settle(*[created(tour.pk, f"B{n}", seats=5) for n in range(4)])
        tour.capacity = 12
        tour.save()
        assert (tour.available_seats, tour.overbooked_seats) == (0, 8)
        assert "overbooked by 8" in tour.explain_seats()
        settle(cancelled(tour.pk, "B0", seats=5), created(tour.pk, "C"))
        assert_adds_up(tour)
        assert tour.overbooked_seats == 3
        assert Reservation.objects.get(booking_id="C").state == "rejected"
        settle(cancelled(tour.pk, "B1", seats=5), created(tour.pk, "D", seats=2))
        assert_adds_up(tour)
        assert (tour.available_seats, tour.overbooked_seats) == (0, 0)

    def test_a_tour_with_reservations_can_not_be_deleted(self) -> None:
        tour = TourFactory.create()
        settle(created(tour.pk, "B"))
        with pytest.raises(ProtectedError):
            tour.delete()


class TestLesson:
    def test_a_cancellation_gives_back_seats_sold_before_the_platform(self) -> None:
        tour = TourFactory.create(capacity=20, available_seats=10)
        settle(cancelled(tour.pk, "BK-42", seats=2))
        tour.refresh_from_db()
        assert (tour.available_seats, tour.unledgered_seats) == (12, 8)

    def test_the_stored_seats_count_where_the_cancellation_says_more(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        tour = TourFactory.create(capacity=20)
        settle(created(tour.pk, "B", seats=3))
        with caplog.at_level("WARNING"):
            settle(cancelled(tour.pk, "B", seats=7))
        assert_adds_up(tour)
        assert tour.available_seats == 20
        assert Reservation.objects.get().seats_cancelled == 7
        assert "other seats than its booking gives back" in caplog.text

    def test_a_rejection_is_said_aloud(self, caplog: pytest.LogCaptureFixture) -> None:
        tour = TourFactory.create(capacity=1)
        with caplog.at_level("WARNING"):
            settle(created(tour.pk, "B", seats=2, event_id="too many"))
        assert Reservation.objects.get().state == "rejected"
        assert "not enough seats" in caplog.text
        assert "too many" in caplog.text
