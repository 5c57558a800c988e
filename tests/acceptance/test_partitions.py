"""Real workers that share partitions: the events of a tour are applied by one worker at a time."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from booking_platform.messaging import topology
from booking_platform.messaging.dead_letters import replay
from booking_platform.messaging.models import DeadLetter
from catalog.models import Tour
from tests.events import body, cancelled, changed, created
from tests.factories import TourFactory
from tests.platform import Platform, Worker, assert_adds_up, counter, parked, processed
from tests.servers import RabbitMQ

pytestmark = pytest.mark.servers

PARTITIONS = 4
TOURS = 24
EVENTS = 2_400
CREATED = "tour-catalog.booking-created"


@pytest.fixture
def applied_by(transactional_db: None) -> Iterator[None]:
    """A table in which the database itself writes down which worker has changed which tour."""
    if connection.vendor != "postgresql":
        pytest.skip("needs the names of PostgreSQL's sessions")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE applied_by (tour bigint, worker text)")
        cursor.execute(
            "CREATE FUNCTION note_worker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO "
            "applied_by VALUES (NEW.id, current_setting('application_name')); RETURN NULL; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER note_worker AFTER UPDATE ON tours FOR EACH ROW EXECUTE FUNCTION note_worker()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER note_worker ON tours")
        cursor.execute("DROP FUNCTION note_worker")
        cursor.execute("DROP TABLE applied_by")


@pytest.fixture
def server() -> Iterator[RabbitMQ]:
    broker = RabbitMQ()
    yield broker
    broker.remove()


@pytest.fixture
def spread(
    applied_by: None,
    server: RabbitMQ,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> Iterator[Platform]:
    """A private broker with partitions, and no worker yet."""
    for name in ("broker_url", "broker_read_url", "broker_write_url"):
        monkeypatch.setattr(current_app.conf, name, server.url)
    settings.EVENT_PARTITIONS = PARTITIONS
    platform = Platform(tmp_path)
    platform.use_broker(server.url)
    platform.environment["EVENT_PARTITIONS"] = str(PARTITIONS)
    platform.environment["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)
    platform.declare()
    try:
        yield platform
    finally:
        for worker in platform.workers:
            worker.kill()


@pytest.fixture
def tours(transactional_db: None) -> list[Tour]:
    return [TourFactory.create(capacity=100_000) for _ in range(TOURS)]


def start(platform: Platform, name: str, **env: str) -> Worker:
    env = {"PGAPPNAME": name} | env
    return platform.start("-c", "2", "-Q", "catalog", wait=True, **env)


def who() -> dict[int, set[str]]:
    """Return the workers that have changed each tour, and forget them."""
    found: dict[int, set[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM applied_by RETURNING tour, worker")
        for tour, worker in cursor.fetchall():
            found.setdefault(tour, set()).add(worker)
    return found


def partition_of(tour: int) -> int:
    return crc32(b"%d" % tour) % PARTITIONS


class Traffic:
    """Bookings of all tours, and what becomes of them."""

    def __init__(self, platform: Platform, tours: list[Tour]) -> None:
        self.platform, self.tours = platform, tours
        self.sent = 0

    def book(self, count: int) -> list[tuple[int, str]]:
        """Publish bookings, and return tour and id of each.

        The tours take turns in an order that changes: the broker, which hands messages to workers in turn,
        must not spread the tours by chance.
        """
        turns = [Random(self.sent + n) for n in range(0, count, len(self.tours))]
        tours = [tour for turn in turns for tour in turn.sample(self.tours, len(self.tours))]
        booked = [(tour.pk, f"B{self.sent + n}") for n, tour in enumerate(tours[:count])]
        self.platform.publish(created(tour, booking, 2) for tour, booking in booked)
        self.sent += count
        return booked

    def wait(self) -> None:
        self.platform.wait_for_processed(self.sent)

    def shared_by(self, workers: set[str]) -> bool:
        """Return whether each worker applies the events of as many partitions as the others."""
        self.book(len(self.tours))
        self.wait()
        shares: dict[str, set[int]] = {}
        for tour, names in who().items():
            for name in names:
                shares.setdefault(name, set()).add(partition_of(tour))
        owned = [partition for share in shares.values() for partition in share]
        fair = {len(share) for share in shares.values()} == {PARTITIONS // len(workers)}
        return set(shares) == workers and fair and len(owned) == PARTITIONS

    def share(self, *workers: str) -> None:
        """Wait until the workers have as many partitions each."""
        self.platform.wait_for(lambda: self.shared_by(set(workers)), "the workers share")


def conflicts(platform: Platform) -> float:
    return counter(platform.environment, "optimistic_lock_conflicts_total")


def assert_once(traffic: Traffic) -> None:
    assert processed() == traffic.sent
    assert parked() == []
    for tour in traffic.tours:
        assert_adds_up(tour)


class TestTwoWorkers:
    def test_one_applies_all_events_of_a_tour_and_none_loses_a_race(
        self, spread: Platform, tours: list[Tour]
    ) -> None:
        assert {partition_of(tour.pk) for tour in tours} == set(range(PARTITIONS))
        for name in ("first", "second"):
            start(spread, name)
        traffic = Traffic(spread, tours)
        traffic.share("first", "second")
        before = conflicts(spread)

        booked = traffic.book(EVENTS)
        gone, larger = booked[::3], booked[1::3]
        spread.publish((cancelled(*each, 2) for each in gone), key="booking.cancelled")
        spread.publish((changed(*each, 3, revision=1) for each in larger), key="booking.changed")
        traffic.sent += len(gone) + len(larger)
        traffic.wait()

        by_tour = who()
        assert set(by_tour) == {tour.pk for tour in tours}
        assert {len(workers) for workers in by_tour.values()} == {1}
        assert {name for workers in by_tour.values() for name in workers} == {"first", "second"}
        assert conflicts(spread) == before
        assert_once(traffic)

    def test_without_partitions_they_lose_races(self, spread: Platform, tours: list[Tour]) -> None:
        for name in ("first", "second"):
            start(spread, name, EVENT_PARTITIONS="0", LOCK_ATTEMPTS="3")
        traffic = Traffic(spread, tours)

        def disturbed() -> bool:
            traffic.book(EVENTS)
            traffic.wait()
            return conflicts(spread) > 0 and {len(workers) for workers in who().values()} == {2}

        spread.wait_for(disturbed, "they lose races, and both apply events of each tour")
        assert_once(traffic)

    def test_the_other_takes_the_partitions_of_one_that_dies(
        self, spread: Platform, tours: list[Tour]
    ) -> None:
        dies = start(spread, "dies")
        start(spread, "stays")
        traffic = Traffic(spread, tours)
        traffic.share("dies", "stays")
        traffic.book(EVENTS)
        spread.wait_for(lambda: processed() > traffic.sent - EVENTS, "some are applied")
        dies.kill()
        traffic.wait()
        assert_once(traffic)

        traffic.share("stays")
        start(spread, "new")
        traffic.share("stays", "new")
        assert_once(traffic)


class TestALostConnection:
    def test_the_workers_share_again(
        self, spread: Platform, tours: list[Tour], server: RabbitMQ
    ) -> None:
        workers = [start(spread, name) for name in ("first", "second")]
        traffic = Traffic(spread, tours)
        traffic.share("first", "second")
        server.control("close_all_connections", "as a proxy would")
        traffic.book(EVENTS)
        traffic.wait()
        traffic.share("first", "second")
        assert_once(traffic)
        assert not [worker for worker in workers if "Error in timer" in worker.log]


class TestAnotherNumber:
    @pytest.mark.parametrize("number", [0, 1, PARTITIONS + 3])
    def test_what_waits_in_the_former_partitions_is_applied(
        self, spread: Platform, tours: list[Tour], number: int
    ) -> None:
        with spread.channel() as channel:
            channel.confirm_select()
            for n, tour in enumerate(tours):
                message = channel.prepare_message(body(created(tour.pk, f"B{n}")))
                exchange = topology.partition_name("catalog", partition_of(tour.pk))
                channel.basic_publish(message, exchange=exchange, routing_key="booking.created")
        traffic = Traffic(spread, tours)
        traffic.sent = len(tours)
        traffic.book(len(tours))
        start(spread, "only", EVENT_PARTITIONS=str(number))
        traffic.wait()
        assert_once(traffic)


class TestOddMessages:
    def test_what_can_not_be_spread_is_parked_for_its_consumer(
        self, spread: Platform, tours: list[Tour]
    ) -> None:
        start(spread, "only")
        no_tour = created(tours[0].pk, "B")
        del no_tour["payload"]["tourId"]
        wrong = created(0, "B", event_id="wrong") | {"payload": {"tourId": "x"}}
        spread.publish([b"{", b"", body(no_tour), wrong, b'{"tourId": 1}', b" " * 300_000])
        spread.wait_for(lambda: len(parked()) == 6, "they are parked")
        assert set(DeadLetter.objects.values_list("queue", flat=True)) == {CREATED}

    def test_a_replay_is_known_as_one_in_its_partition(
        self, spread: Platform, tours: list[Tour]
    ) -> None:
        worker = start(spread, "only", RETENTION_DAYS="20")
        old = (timezone.now() - timedelta(days=29)).isoformat()
        spread.publish([created(tours[0].pk, "B", event_id="old", timestamp=old)])
        spread.wait_for(lambda: parked() == [("stale", "old")], "it is parked")
        assert DeadLetter.objects.get().queue == CREATED
        replay(DeadLetter.objects.get(), by="test")
        spread.wait_for_processed(1)
        assert_adds_up(tours[0])
        assert worker.process.poll() is None

    def test_what_a_partition_gives_up_is_parked_for_its_consumer(
        self, spread: Platform, tours: list[Tour]
    ) -> None:
        with spread.channel() as channel:
            event = body(created(tours[0].pk, "B", event_id="expired"))
            message = channel.prepare_message(event, properties={"expiration": "1"})
            exchange = topology.partition_name("catalog", 0)
            channel.basic_publish(message, exchange=exchange, routing_key="booking.created")
        spread.start("-c", "1", "-Q", "maintenance")
        spread.wait_for(lambda: parked() == [("broker", "expired")], "the dead letter is recorded")
        assert DeadLetter.objects.get().queue == CREATED
