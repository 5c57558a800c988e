"""Lives of bookings in the database: what the rules decide, stored and read again."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from booking_platform.contract.envelope import Event
from booking_platform.messaging import inbox
from booking_platform.messaging.arrivals import Arrival, read
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, Consumer
from catalog.bookings import Booking, Seats
from catalog.models import Reservation, Tour
from catalog.seats import decide
from tests.events import cancelled, changed, created, deliveries
from tests.factories import TourFactory
from tests.integration.test_tours import settle
from tests.platform import assert_adds_up

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.now(UTC)
QUEUES = {
    "BookingCreated": "tour-catalog.booking-created",
    "BookingCancelled": "tour-catalog.booking-cancelled",
    "BookingChanged": "tour-catalog.booking-changed",
}


def at(minutes: int) -> str:
    return (NOW - timedelta(minutes=60 - minutes)).isoformat()


def again(event: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return event | {"eventId": f"{event['eventId']}-again-{number}"}


def outcomes() -> list[str]:
    return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))


def parked() -> list[str]:
    return list(DeadLetter.objects.order_by("pk").values_list("reason", flat=True))


@pytest.fixture
def tour() -> Tour:
    return TourFactory.create(capacity=10)


def available(tour: Tour) -> int:
    assert_adds_up(tour)
    tour.refresh_from_db()
    return tour.available_seats


class TestTheCasesThatWentWrong:
    def test_of_three_seats_one_is_cancelled_and_no_other_customer_gets_the_rest(
        self, tour: Tour
    ) -> None:
        settle(created(tour.pk, "B", 3), one := cancelled(tour.pk, "B", 1, timestamp=at(1)))
        assert available(tour) == 8

        settle(again(one) | {"timestamp": at(2)}, created(tour.pk, "C", 10))

        assert available(tour) == 8
        assert parked() == ["ambiguous"]
        assert Reservation.objects.get(booking_id="C").state == "rejected"

    def test_named_the_second_step_is_told_from_a_repeat(self, tour: Tour) -> None:
        steps = [cancelled(tour.pk, "B", 1, seatsRemaining=left) for left in (2, 1)]
        settle(created(tour.pk, "B", 3), *steps, *map(again, steps))

        assert available(tour) == 9
        assert parked() == []
        assert outcomes() == ["reserved", "reduced", "reduced", "unchanged", "unchanged"]

    def test_a_creation_with_another_number_is_parked(self, tour: Tour) -> None:
        settle(created(tour.pk, "B", 2), created(tour.pk, "B", 4))

        assert available(tour) == 8
        assert parked() == ["differs"]

    def test_a_creation_after_the_cancellation_is_parked(self, tour: Tour) -> None:
        lived = [
            created(tour.pk, "B", 2, timestamp=at(1)),
            cancelled(tour.pk, "B", 2, timestamp=at(2)),
            created(tour.pk, "B", 2, timestamp=at(3)),
        ]
        settle(*lived)

        assert available(tour) == 10
        assert parked() == ["booking_over"]

    def test_a_rejected_booking_that_is_asked_for_again_is_reserved(self, tour: Tour) -> None:
        settle(created(tour.pk, "A", 9), first := created(tour.pk, "B", 2))
        tour.refresh_from_db()
        tour.capacity = 11
        tour.save()

        settle(again(first))

        assert Reservation.objects.get(booking_id="B").state == "reserved"
        assert available(tour) == 0

    def test_a_change_gives_another_number_of_seats(self, tour: Tour) -> None:
        settle(created(tour.pk, "B", 2), changed(tour.pk, "B", 5, revision=1))
        assert available(tour) == 5

        settle(changed(tour.pk, "B", 11, revision=2))
        assert available(tour) == 5
        assert outcomes() == ["reserved", "changed", "change_rejected"]

    @pytest.mark.parametrize(
        "field",
        [
            {"tourName": "caf\ud83d"},
            {"amount": "eighty"},
            {"currency": "euro"},
            {"userEmail": 7},
            {"locale": {}},
        ],
        ids=str,
    )
    def test_what_the_catalog_does_not_read_keeps_no_seats_back(
        self, tour: Tour, field: dict[str, Any]
    ) -> None:
        body = json.dumps(cancelled(tour.pk, "B", 3, **field)).encode()
        settle(created(tour.pk, "B", 3))
        inbox.process(CONSUMERS["tour-catalog.booking-cancelled"], deliveries(body))

        assert available(tour) == 10
        assert parked() == []


class TestManyLives:
    def test_what_is_stored_is_what_the_rules_decide(self) -> None:
        """Random lives, in any order and repeated, in groups of any size."""
        chance = Random(11)
        for _ in range(8):
            tour = TourFactory.create(capacity=60)
            events = [
                *chain.from_iterable(life(tour.pk, f"B{tour.pk}-{n}", chance) for n in range(20))
            ]
            events += [
                again(event, number) for number, event in enumerate(chance.sample(events, 15))
            ]
            chance.shuffle(events)
            before = {tour.pk: Seats(tour.pk, 0, 60, 0, 0)}
            bookings: dict[str, Booking] = {}
            for group in groups(events, chance):
                consumer = CONSUMERS[QUEUES[group[0]["eventType"]]]
                read = [decoded(event, consumer) for event in group]
                _, before, bookings = decide(before, bookings, read)
                inbox.process(consumer, deliveries(*group))
            assert_adds_up(tour)
            [row] = Tour.objects.filter(pk=tour.pk).values("reserved_seats", "unledgered_seats")
            assert row == {
                "reserved_seats": before[tour.pk].reserved,
                "unledgered_seats": before[tour.pk].unledgered,
            }
            stored = Reservation.objects.filter(tour=tour).values_list(
                "booking_id", "seats", "state"
            )
            assert set(stored) == {(b.booking_id, b.seats, b.state) for b in bookings.values()}

    def test_a_group_costs_the_same_statements_whatever_is_in_it(self, tour: Tour) -> None:
        def cost(*events: dict[str, Any]) -> int:
            consumer = CONSUMERS[QUEUES[events[0]["eventType"]]]
            with CaptureQueriesContext(connection) as queries:
                inbox.process(consumer, deliveries(*events))
            return len(queries)

        settle(*[created(tour.pk, f"B{n}", 2) for n in range(5)])
        parts = [cancelled(tour.pk, f"B{n}", 1, seatsRemaining=1) for n in range(3)]
        whole = cancelled(tour.pk, "B3", 2)
        unknown = cancelled(tour.pk, "X", 1)
        repeats = [again(parts[0]), again(whole)]

        one = cost(cancelled(tour.pk, "B4", 1, seatsRemaining=1))
        many = cost(*parts, whole, unknown, *repeats)

        assert many <= one + 2  # an insert for those not known, an update for other outcomes
        # One of them is parked: its claim goes, and how often it was closed before is asked.
        assert (
            cost(*[changed(tour.pk, f"B{n}", 1 + n % 2, revision=n) for n in range(4)]) <= one + 3
        )


def decoded(event: dict[str, Any], consumer: Consumer) -> Event:
    [delivery] = deliveries(event)
    arrival = read(consumer, delivery, datetime.now(UTC))
    assert isinstance(arrival, Arrival)
    return arrival.event


def life(tour: int, booking: str, chance: Random) -> Iterable[dict[str, Any]]:
    seats = chance.randint(1, 6)
    yield created(tour, booking, seats, timestamp=at(0))
    for number in range(1, chance.randint(1, 4)):
        if chance.random() < 0.4:
            seats = chance.randint(1, 6)
            yield changed(tour, booking, seats, revision=number, timestamp=at(number))
            continue
        fewer = chance.randint(1, seats)
        seats -= fewer
        yield cancelled(tour, booking, fewer, seatsRemaining=seats, timestamp=at(number))
        if not seats:
            return


def groups(events: list[dict[str, Any]], chance: Random) -> Iterable[list[dict[str, Any]]]:
    while events:
        size = chance.randint(1, 12)
        group, events = events[:size], events[size:]
        for kind in QUEUES:
            if its := [event for event in group if event["eventType"] == kind]:
                yield its


def test_each_consumer_remembers_its_own_outcome_of_an_event(tour: Tour) -> None:
    event = cancelled(tour.pk, "B", 1)

    for queue in ("tour-catalog", "payment-gateway", "notification"):
        inbox.process(CONSUMERS[f"{queue}.booking-cancelled"], deliveries(event))

    of = dict(ProcessedEvent.objects.values_list("consumer", "outcome"))
    assert of == {
        "tour-catalog.booking-cancelled": "cancelled",
        "payment-gateway.booking-cancelled": "nothing_to_refund",
        "notification.booking-cancelled": "no_address",
    }
