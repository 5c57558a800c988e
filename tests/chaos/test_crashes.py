"""What must not lose or repeat an event: processes, connections and code that fail."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import current_app

from booking_platform import servers
from catalog.models import Reservation, Tour
from tests.events import created
from tests.platform import Platform, assert_adds_up, counter, parked, processed
from tests.proxies import Proxy
from tests.servers import PATIENCE, rabbitmqctl

FAULTY = "tests.faulty"


def bookings(tour: Tour, count: int, prefix: str = "B") -> list[dict[str, Any]]:
    return [created(tour.pk, f"{prefix}-{n}") for n in range(count)]


def one_worker(connection: Any) -> Any:
    """Return what asks the one worker that there is, however long it takes to answer."""
    return current_app.control.inspect(timeout=PATIENCE, limit=1, connection=connection)


def assert_all_reserved(tour: Tour, count: int) -> None:
    assert_adds_up(tour)
    assert tour.reserved_seats == count
    assert tour.reservations.filter(state=Reservation.State.RESERVED).count() == count
    assert parked() == []


@pytest.mark.servers
class TestKills:
    """`kill -9`: only a real broker gives back what a dead process held."""

    def test_a_killed_pool_process_loses_nothing(self, platform: Platform, tour: Tour) -> None:
        worker = platform.start()
        platform.publish(bookings(tour, 5000))
        platform.wait_for_processed(300)
        worker.pool()[0].kill()
        platform.wait_for_processed(5000, seconds=300)
        assert_all_reserved(tour, 5000)

    def test_a_killed_worker_loses_nothing(self, platform: Platform, tour: Tour) -> None:
        platform.publish(bookings(tour, 10_000))  # before it starts: it must not be done too soon
        worker = platform.start()
        platform.wait_for_processed(1)
        worker.kill()
        assert processed() < 10_000
        platform.start()
        platform.wait_for_processed(10_000, seconds=300)
        assert_all_reserved(tour, 10_000)

    def test_a_poison_event_ends_as_one_dead_letter(self, platform: Platform, tour: Tour) -> None:
        platform.delete_queues()
        platform.publish([])
        platform.start("-c", "2", app=FAULTY, EVENT_DELIVERY_LIMIT="2")
        poison = created(tour.pk, "poison", event_id="the poison")
        platform.publish([*bookings(tour, 100), poison, *bookings(tour, 100, "C")])
        platform.wait_for_processed(200, seconds=300)
        platform.wait_for(lambda: parked() == [("poison", "the poison")], "it is parked", 300)
        assert_adds_up(tour)
        assert tour.reserved_seats == 200


@pytest.mark.servers
@pytest.mark.skipif(not shutil.which(rabbitmqctl()[0]), reason="rabbitmqctl closes the connections")
class TestConnections:
    def test_a_lost_connection_to_the_broker_loses_nothing(
        self, platform: Platform, tour: Tour
    ) -> None:
        platform.start()
        platform.publish(bookings(tour, 3000))
        platform.wait_for_processed(300)
        vhost = servers.broker_url().rsplit("/", 1)[1] or "/"
        command = [*rabbitmqctl(), "close_all_connections", "-p", vhost, "a test"]
        subprocess.run(command, check=True)
        platform.wait_for_processed(3000, seconds=300)
        assert_all_reserved(tour, 3000)

    @pytest.mark.parametrize("pool", ["prefork", "threads"])
    def test_one_that_is_open_on_one_side_only_costs_seconds(
        self, platform: Platform, tour: Tour, pool: str
    ) -> None:
        url = urlsplit(servers.broker_url())
        with Proxy(url.hostname or "", url.port or 5672) as proxy:
            login = url.netloc.rpartition("@")[0]
            through = url._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
            platform.start("-P", pool, "-c", "2", RABBITMQ_URL=through)
            platform.publish(bookings(tour, 10, "A"))
            platform.wait_for_processed(10)
            proxy.freeze()
            platform.publish(bookings(tour, 10, "B"))
            platform.wait_for_processed(20, seconds=90)  # a half-open one lasts 176
        assert_all_reserved(tour, 20)


class TestWarmShutdown:
    def test_it_finishes_its_groups_and_acks_them(self, platform: Platform, tour: Tour) -> None:
        """While its buffers are full, when most is in flight."""
        platform.publish(bookings(tour, 3000))
        worker = platform.start()
        platform.wait_for_processed(300)
        assert worker.stop() == 0
        done = processed()
        with platform.channel() as channel:
            queue = "tour-catalog.booking-created"
            platform.wait_for(
                lambda: channel.queue_declare(queue, passive=True).message_count == 3000 - done,
                f"{3000 - done} messages are in the queue again",
            )
        platform.start()
        platform.wait_for_processed(3000, seconds=300)
        assert_all_reserved(tour, 3000)
        assert counter(platform.environment, "duplicate_events_total") == 0

    @pytest.mark.servers
    def test_it_finishes_what_no_process_has_begun(self, platform: Platform, tour: Tour) -> None:
        """Handed to the pool, whose process has not said so much as that it took it."""
        worker = platform.start("-c", "1")
        [process] = worker.pool()
        process.suspend()
        platform.publish(bookings(tour, 1))
        with platform.connection() as connection:  # others have closed those of the pool
            inspect = one_worker(connection)
            platform.wait_for(
                lambda: any((inspect.reserved() or {}).values()), "the pool has the group"
            )
        worker.process.send_signal(signal.SIGTERM)
        with platform.channel() as channel:
            other = (
                "tour-catalog.booking-cancelled"  # RabbitMQ counts a consumer until all is acked
            )
            platform.wait_for(
                lambda: channel.queue_declare(other, passive=True).consumer_count == 0,
                "the worker takes no more",
            )
        process.resume()
        assert worker.process.wait(PATIENCE) == 0
        assert processed() == 1
        next_worker = platform.start("-c", "1")
        platform.publish(bookings(tour, 1, "C"))
        platform.wait_for_processed(2)
        assert next_worker.stop() == 0
        assert_all_reserved(tour, 2)
        assert counter(platform.environment, "duplicate_events_total") == 0


class TestBugs:
    @pytest.mark.parametrize("fault", ["bug", "memory"])
    def test_a_bug_parks_its_event_and_no_other(
        self, platform: Platform, tour: Tour, fault: str
    ) -> None:
        bad = created(tour.pk, fault, event_id="the bad one")
        platform.publish([*bookings(tour, 100), bad, *bookings(tour, 99, "C")])
        platform.start("-c", "1", app=FAULTY)
        platform.wait_for_processed(199)
        platform.wait_for(lambda: parked() == [("bug", "the bad one")], "it is parked")
        assert_adds_up(tour)
        assert tour.reserved_seats == 199


class TestRemoteControl:
    def test_a_terminated_group_is_done_again(self, platform: Platform, tour: Tour) -> None:
        gate = platform.folder / "gate"
        gate.touch()
        platform.start("-c", "2", app=FAULTY, SLOW_WHILE=str(gate))
        platform.publish([created(tour.pk, "slow")])
        started: Path = platform.folder / "slow-started"
        platform.wait_for(started.exists, "the group runs")
        with platform.connection() as connection:  # a kept one may have been closed by another test
            inspect = one_worker(connection)
            [[running]] = [tasks for tasks in (inspect.active() or {}).values() if tasks]
            assert "slow" not in str(running["args"])
            current_app.control.revoke(
                running["id"], terminate=True, signal=signal.SIGKILL.name, connection=connection
            )
        gate.unlink()
        platform.wait_for_processed(1)
        assert_all_reserved(tour, 1)
