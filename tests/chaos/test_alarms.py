"""A broker with an alarm: it reads nothing from connections that have published."""

import signal
from collections.abc import Iterator

import pytest
from kombu import Connection

from booking_platform.messaging import broker
from catalog.models import Tour
from tests.events import body, created
from tests.platform import Platform, Worker, assert_adds_up, parked, processed
from tests.servers import RabbitMQ, can_start_rabbitmq, wait_until

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not can_start_rabbitmq(), reason="starts a RabbitMQ of its own"),
]

FAULTY = "tests.faulty"
STOPS_WITHIN = 60  # seconds after its work is done; without its farewell it would wait for ever


@pytest.fixture
def rabbitmq(platform: Platform) -> Iterator[RabbitMQ]:
    """A broker of our own, which the workers of ``platform`` use."""
    server = RabbitMQ()
    try:
        server.control("await_startup")
        platform.environment["RABBITMQ_URL"] = server.url
        with Connection(server.url) as connection:
            broker.declare(connection)
        yield server
        for worker in platform.workers:
            worker.kill()
    finally:
        server.remove()


def publish(server: RabbitMQ, tour: Tour, *bookings: str) -> None:
    with Connection(server.url) as connection:
        for booking in bookings:
            connection.Producer().publish(
                body(created(tour.pk, booking)),
                exchange="booking-events",
                routing_key="booking.created",
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=2,
            )


def alarm(server: RabbitMQ) -> None:
    server.control("set_vm_memory_high_watermark", "0.0001")


def all_clear(server: RabbitMQ) -> None:
    server.control("set_vm_memory_high_watermark", "0.6")


def stops(worker: Worker) -> bool:
    return worker.process.wait(STOPS_WITHIN) == 0


class TestAMemoryAlarm:
    def test_a_worker_stops_when_its_work_is_done(
        self, platform: Platform, rabbitmq: RabbitMQ, tour: Tour
    ) -> None:
        gate = platform.folder / "gate"
        gate.touch()
        worker = platform.start("-c", "2", "-Q", "catalog", app=FAULTY, SLOW_WHILE=str(gate))
        publish(rabbitmq, tour, "slow-1")
        platform.wait_for((platform.folder / "slow-started").exists, "the group runs")
        publish(rabbitmq, tour, *(f"B-{number}" for number in range(50)))
        alarm(rabbitmq)
        platform.wait_for_processed(1)  # or more, of those that came before the alarm
        worker.process.send_signal(signal.SIGTERM)
        platform.wait_for(lambda: "Warm shutdown" in worker.log, "it is stopping")
        gate.unlink()
        assert stops(worker)
        platform.wait_for_processed(2)
        before = processed()
        all_clear(rabbitmq)
        platform.start("-c", "2", "-Q", "catalog")
        platform.wait_for_processed(51)
        assert 2 <= before <= 51
        assert_adds_up(tour)
        assert (tour.reserved_seats, processed(), parked()) == (51, 51, [])

    def test_a_worker_that_was_started_in_it_stops(
        self, platform: Platform, rabbitmq: RabbitMQ
    ) -> None:
        alarm(rabbitmq)
        worker = platform.start("-c", "1", "-Q", "catalog", wait=False)
        wait_until(lambda: " ready." in worker.log, what="it is ready")
        worker.process.send_signal(signal.SIGTERM)
        assert stops(worker)
