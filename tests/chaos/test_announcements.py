"""Announcements: every fact is published, none is invented, in order within a booking and a tour."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest
from kombu import Queue

from booking_platform.contract.announcements import TourAvailabilityChanged
from booking_platform.contract.announcing import Announced, announced
from booking_platform.development.listener import Json, Listener, listening
from booking_platform.messaging import clock, outbox, topology
from booking_platform.messaging.models import OutboxRow
from catalog.models import Reservation, Tour
from tests.events import cancelled, changed, created
from tests.factories import TourFactory
from tests.platform import Platform, assert_adds_up
from tests.servers import RabbitMQ, can_start_rabbitmq

FAULTY = "tests.faulty"


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with listening(platform.connection) as listener:
        yield listener


def lives(tours: list[Tour], count: int) -> list[tuple[str, Json]]:
    """Return events of bookings that are created, changed and cancelled, with their routing keys."""
    events: list[tuple[str, Json]] = []
    for n in range(count):
        tour, booking = tours[n % len(tours)].pk, f"B-{n}"
        events.append(("booking.created", created(tour, booking, 3)))
        if n % 3 == 0:
            events.append(("booking.changed", changed(tour, booking, 2, revision=1)))
        if n % 2 == 0:
            cancellation = cancelled(tour, booking, 1, seatsRemaining=1, revision=2)
            events.append(("booking.cancelled", cancellation))
    return events


def publish(platform: Platform, events: list[tuple[str, Json]]) -> None:
    for key in ("booking.created", "booking.changed", "booking.cancelled"):
        platform.publish([event for name, event in events if name == key], key=key)


def nothing_waits() -> bool:
    return not outbox.waits()


def assert_heard_as_it_is(heard: list[Json], tours: list[Tour]) -> None:
    """What a listener makes of the announcements is what the tables say."""
    held: dict[str, int] = {}
    numbers: dict[int, Json] = {}
    for event in heard:
        payload = event["payload"]
        if event["eventType"].startswith("Seats"):
            held[payload["bookingId"]] = payload["seatsHeld"]
        elif event["eventType"] == "TourAvailabilityChanged":
            before = numbers.get(payload["tourId"], {"version": -1})
            assert payload["version"] > before["version"]
            numbers[payload["tourId"]] = payload
    stored = {
        booking_id: seats if state == Reservation.State.RESERVED else 0
        for booking_id, seats, state in Reservation.objects.values_list(
            "booking_id", "seats", "state"
        )
    }
    assert held == stored
    for tour in tours:
        assert_adds_up(tour)
        said = numbers[tour.pk]
        assert said["capacity"] == tour.capacity
        assert said["available"] == tour.available_seats
        assert said["reserved"] == tour.reserved_seats


class TestAWorker:
    def test_it_announces_what_became_of_each_booking(
        self, platform: Platform, listener: Listener
    ) -> None:
        tour = TourFactory.create(capacity=2, available_seats=2)
        platform.start("-c", "1")
        taken, refused = created(tour.pk, "A", 2), created(tour.pk, "B", 1)
        platform.publish([taken])
        platform.wait_for_processed(1)
        platform.publish([refused, created(404, "C")])
        platform.wait_for(lambda: len(listener.once()) >= 5, "all of it is heard")  # with the tour

        [reserved] = listener.of("SeatsReserved")
        assert reserved == {
            "bookingId": "A",
            "tourId": tour.pk,
            "seats": 2,
            "seatsHeld": 2,
            "causedBy": taken["eventId"],
        }
        [rejected] = listener.of("SeatsRejected")
        assert rejected["causedBy"] == refused["eventId"]
        assert (rejected["reason"], rejected["available"]) == ("not_enough_seats", 0)
        [parked] = listener.of("EventParked")
        assert (parked["reason"], parked["queue"]) == (
            "unknown_tour",
            "tour-catalog.booking-created",
        )
        *_, numbers = listener.of("TourAvailabilityChanged")
        assert (numbers["available"], numbers["capacity"]) == (0, 2)
        assert nothing_waits()

    def test_a_hot_tour_makes_few_announcements_of_its_numbers(
        self, platform: Platform, listener: Listener, tour: Tour
    ) -> None:
        platform.publish([created(tour.pk, f"B-{n}") for n in range(3000)])
        platform.start("-c", "2")
        platform.wait_for_processed(3000)
        platform.wait_for(nothing_waits, "nothing waits")
        listener.hear()
        assert len(listener.of("SeatsReserved")) == 3000
        assert len(listener.of("TourAvailabilityChanged")) <= 300
        assert_heard_as_it_is(listener.once(), [tour])


@pytest.mark.servers
class TestKills:
    @pytest.mark.parametrize(
        "point",
        [
            "before it is published",
            "after it is published",
            "after it is marked",
            "after the relay",
        ],
    )
    def test_every_fact_is_heard_and_none_is_invented(
        self, platform: Platform, listener: Listener, tmp_path: Path, point: str
    ) -> None:
        tours = [TourFactory.create(capacity=10_000) for _ in range(5)]
        deaths = tmp_path / "deaths"
        deaths.mkdir()
        platform.start("-c", "2", app=FAULTY, DIE_AT=point, DEATHS=str(deaths))
        platform.start_beat(RELAY_SECONDS="0.5")
        events = lives(tours, 300)
        publish(platform, events)
        platform.wait_for_processed(len(events))
        platform.wait_for(nothing_waits, "nothing waits")
        assert list(deaths.iterdir()), "nobody died"
        assert_heard_as_it_is(listener.once(), tours)

    def test_killed_again_and_again(self, platform: Platform, listener: Listener) -> None:
        tours = [TourFactory.create(capacity=10_000) for _ in range(5)]
        events = lives(tours, 1000)
        publish(platform, events)
        platform.start("-c", "2")
        for n in range(1, 6):
            platform.wait_for_processed(n * len(events) // 8)
            if n % 2:
                platform.workers[-1].pool()[0].kill()
            else:
                platform.workers[-1].kill()
                platform.start("-c", "2")
        platform.wait_for_processed(len(events))
        platform.start_beat(RELAY_SECONDS="0.5")
        platform.wait_for(nothing_waits, "nothing waits")
        assert_heard_as_it_is(listener.once(), tours)


@pytest.mark.servers
@pytest.mark.skipif(not can_start_rabbitmq(), reason="starts a RabbitMQ of its own")
class TestABrokerThatTakesNothing:
    def test_facts_wait_and_seats_go_on(self, platform: Platform, tour: Tour) -> None:
        """A full queue that refuses what is published holds the announcements up, and nothing else."""
        with platform.channel() as channel:
            Queue(
                "full",
                topology.events_exchange(no_declare=True),
                routing_key="seats.*",
                queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
            )(channel).declare()
        try:
            platform.start("-c", "2")
            platform.publish([created(tour.pk, f"B-{n}") for n in range(1000)])
            platform.wait_for_processed(1000)
            platform.publish([created(tour.pk, f"C-{n}") for n in range(1000)])
            platform.wait_for_processed(2000)
            assert outbox.waits()
            with listening(platform.connection) as listener:
                platform.delete_queue("full")
                platform.start_beat(RELAY_SECONDS="0.5")
                platform.wait_for(nothing_waits, "nothing waits")
                # What was published before there was a listener is not heard.
                assert 1000 < len(listener.of("SeatsReserved")) <= 2000
        finally:
            platform.delete_queue("full")

    def test_a_broker_that_is_away_for_long(self, platform: Platform) -> None:
        """What the database learns meanwhile waits there, in its order."""
        tours = [TourFactory.create(capacity=100_000) for _ in range(3)]
        server = RabbitMQ()
        try:
            server.control("await_startup")
            platform.use_broker(server.url)
            platform.declare()
            with listening(platform.connection) as listener:
                platform.start("-c", "2")
                platform.start_beat(RELAY_SECONDS="0.5")
                events = lives(tours, 600)
                publish(platform, events)
                platform.wait_for_processed(100)
                server.control("stop_app")
                for tour in tours * 5:  # staff go on
                    tour.refresh_from_db()
                    tour.capacity += 1
                    tour.save()
                assert outbox.waits()
                server.control("start_app")
                server.control("await_startup")
                platform.wait_for_processed(len(events))
                platform.wait_for(nothing_waits, "nothing waits")
                assert_heard_as_it_is(listener.once(), tours)
        finally:
            for worker in platform.workers:
                worker.kill()
            server.remove()


@pytest.mark.servers
class TestABacklog:
    def test_several_relays_drain_it_with_flat_memory(
        self, platform: Platform, listener: Listener, tour: Tour
    ) -> None:
        rows = 30_000
        now = clock.now()
        payload = partial(
            TourAvailabilityChanged,
            tour_id=tour.pk, capacity=9, available=9, reserved=0, unledgered=0, overbooked=0,
        )  # fmt: skip
        OutboxRow.objects.all().delete()
        OutboxRow.objects.bulk_create(
            (_row(announced(payload(version=n), cause=str(n), at=now), now) for n in range(rows)),
            batch_size=5000,
        )
        environment = _environment(platform)
        commands = [subprocess.Popen(_relay_under_watch(), env=environment) for _ in range(3)]
        assert [command.wait(240) for command in commands] == [0, 0, 0]
        assert nothing_waits()
        heard = [event["payload"]["version"] for event in listener.hear()]
        assert heard == list(range(rows))  # in order, and none came twice


def _row(announcement: Announced, now: datetime) -> OutboxRow:
    messages = msgspec.json.encode([(announcement[0], msgspec.Raw(announcement[1]), "")]).decode()
    return OutboxRow(messages=messages, announcements=1, size=len(messages), created_at=now)


def _relay_under_watch() -> list[str]:
    """Return a command that relays, and fails where its memory has grown by more than 60 MB."""
    code = (
        "import django, resource; django.setup()\n"
        "from booking_platform.celery import app\n"
        "from booking_platform.messaging import relaying\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used(); relaying.relay_now(); grown = used() - before\n"
        "assert grown < 60_000, grown"
    )
    return [sys.executable, "-c", code]


def _environment(platform: Platform) -> dict[str, str]:
    named = {"DJANGO_SETTINGS_MODULE": "booking_platform.settings"}
    return os.environ | platform.environment | named
