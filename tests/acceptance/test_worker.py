"""The worker as an operator starts it, and as producers meet it."""

import os
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from celery import current_app

from booking_platform import servers
from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Reservation, Tour
from catalog.tasks import booking_created
from tests.events import body, cancelled, created
from tests.factories import TourFactory
from tests.platform import Platform, assert_adds_up, counter, parked, processed
from tests.servers import PATIENCE, control_broker

CREATED = "tour-catalog.booking-created"
CANCELLED = "tour-catalog.booking-cancelled"


class TestBookings:
    def test_every_event_is_accounted_for(self, platform: Platform) -> None:
        tours = [TourFactory.create(capacity=20) for _ in range(10)]
        events = [created(tours[n % 10].pk, f"B{n}") for n in range(500)]
        platform.start()
        platform.publish(events)
        platform.wait_for_processed(500)
        states = Reservation.objects.values_list("state", flat=True)
        assert sorted(states) == ["rejected"] * 300 + ["reserved"] * 200
        for tour in tours:
            assert_adds_up(tour)
            assert tour.available_seats == 0
        assert parked() == []

    def test_two_workers_with_four_processes_each_lose_nothing_on_one_tour(
        self, platform: Platform, tour: Tour
    ) -> None:
        for _ in range(2):
            platform.start("-c", "4", wait=False)
        for worker in platform.workers:
            worker.wait_until_ready()
        platform.publish(created(tour.pk, f"B{n}") for n in range(3000))
        platform.wait_for_processed(3000, seconds=300)
        assert_adds_up(tour)
        assert tour.reserved_seats == 3000
        assert parked() == []

    def test_repeats_have_no_effect_and_are_counted(self, platform: Platform, tour: Tour) -> None:
        event = created(tour.pk, "B", seats=2)
        platform.start()
        platform.publish([event] * 50)
        duplicates = "duplicate_events_total"
        platform.wait_for(
            lambda: counter(platform.environment, duplicates) == 49, "49 duplicates counted"
        )
        assert_adds_up(tour)
        assert tour.reserved_seats == 2
        assert processed() == 1

    def test_the_same_cancellation_five_times_gives_seats_back_once(
        self, platform: Platform
    ) -> None:
        tour = TourFactory.create(capacity=20, available_seats=10)
        platform.start("-c", "2", "-Q", "catalog")  # the payments count their repeats too
        platform.publish([cancelled(tour.pk, "BK-42", seats=2)] * 5, key="booking.cancelled")
        platform.wait_for_processed(1, queue=CANCELLED)
        platform.wait_for(
            lambda: counter(platform.environment, "duplicate_events_total") == 4, "4 duplicates"
        )
        assert_adds_up(tour)
        assert tour.available_seats == 12


class TestEnvelopesOfOthers:
    @pytest.mark.parametrize("prefix", ["cloudEvents:", "ce-"])
    def test_a_cloud_event_in_headers_and_body_is_applied_once(
        self, platform: Platform, tour: Tour, prefix: str
    ) -> None:
        event = created(tour.pk, "B")
        attributes = {
            "specversion": "1.0",
            "id": "7",
            "source": "/shop",
            "type": "com.example.BookingCreated",
            "time": event["timestamp"],
        }
        headers = {prefix + name: value for name, value in attributes.items()}
        platform.start()
        platform.publish([body(event["payload"])] * 2, headers=headers)
        platform.publish([attributes | {"data": event["payload"]}])
        platform.publish([body(event["payload"])], headers=headers | {f"{prefix}id": [["8"]]})
        platform.publish([created(tour.pk, "C")])
        platform.wait_for_processed(2)
        platform.wait_for(lambda: parked() == [("invalid", "")], "what has no id is parked")
        assert set(ProcessedEvent.objects.values_list("event_id", flat=True)) > {"/shop#7"}
        assert processed() == 2

    @pytest.mark.servers
    def test_its_time_may_have_the_type_that_amqp_has_for_it(
        self, platform: Platform, tour: Tour
    ) -> None:
        event = created(tour.pk, "B")
        headers: dict[str, Any] = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": "7",
            "cloudEvents:source": "/shop",
            "cloudEvents:type": "BookingCreated",
            "cloudEvents:time": datetime.fromisoformat(event["timestamp"]),
        }
        platform.start()
        platform.publish([body(event["payload"])], headers=headers)
        platform.wait_for_processed(1)
        moment = ProcessedEvent.objects.get().occurred_at
        assert moment == headers["cloudEvents:time"].replace(microsecond=0)


class TestHostileInput:
    def test_each_is_one_clear_dead_letter_and_the_next_event_is_processed(
        self, platform: Platform, tour: Tour
    ) -> None:
        good = created(tour.pk, "B")
        bodies = {
            "not UTF-8": b'{"eventId": "\xff\xfe"}',
            "not JSON": b"hello",
            "empty": b"",
            "an array": b"[1, 2]",
            "10 MB": b'{"eventId": "big", "junk": "' + b"x" * 10_000_000 + b'"}',
            "0 seats": body(created(tour.pk, "B", seats=0)),
            "-1 seats": body(created(tour.pk, "B", seats=-1)),
            "1.5 seats": body(created(tour.pk, "B", seats=1.5)),
            "'2' seats": body(created(tour.pk, "B", seats="2")),
            "true seats": body(created(tour.pk, "B", seats=True)),
            "10**30 seats": body(created(tour.pk, "B", seats=10**30)),
            "null seats": body(created(tour.pk, "B", seats=None)),
            "no payload": body({k: v for k, v in good.items() if k != "payload"}),
            "a long id": body(created(tour.pk, "B", event_id="x" * 256)),
            "NUL": body(created(tour.pk, "B\0")),
            "deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
            "another type": body(cancelled(tour.pk, "B")),
        }
        platform.start()
        platform.publish(bodies.values())
        platform.publish([created(tour.pk, "🎫", event_id="🎉")])
        platform.wait_for_processed(1)
        platform.wait_for(lambda: len(parked()) == len(bodies), f"{len(bodies)} dead letters")
        assert processed() == 1
        assert {reason for reason, _ in parked()} == {"malformed", "invalid", "too_large"}

    @pytest.mark.parametrize("task", ["celery.backend_cleanup", "catalog.booking_created"])
    def test_a_message_that_claims_to_be_a_task_runs_nothing(
        self, platform: Platform, tour: Tour, task: str
    ) -> None:
        platform.start()
        event = created(tour.pk, "B", event_id="disguised")
        platform.publish([event], headers={"task": task, "id": "1", "lang": "py"})
        platform.publish([b"[[], {}, {}]"], headers={"task": task, "id": "2"})
        platform.publish([created(tour.pk, "C")])
        platform.wait_for_processed(1)
        platform.wait_for(lambda: len(parked()) == 2, "two dead letters")
        assert parked() == [("task", ""), ("task", "disguised")]
        assert tour.reservations.count() == 1

    @pytest.mark.servers
    def test_a_compressed_body_is_not_unpacked(self, platform: Platform, tour: Tour) -> None:
        """Kombu would inflate it in the main process, where a small one could fill the memory."""
        platform.start()
        small = zlib.compress(body(created(tour.pk, "B")))
        platform.publish([small], headers={"compression": "application/x-gzip"})
        platform.publish([created(tour.pk, "C")])
        platform.wait_for_processed(1)
        platform.wait_for(lambda: parked() == [("malformed", "")], "it is parked as it came")
        assert processed() == 1

    @pytest.mark.servers
    def test_properties_that_can_not_be_read_do_not_end_the_worker(
        self, platform: Platform, tour: Tour
    ) -> None:
        platform.start()
        with platform.channel() as channel:
            message = channel.prepare_message(body(created(tour.pk, "B")), properties={})
            nested: list[object] = []
            for _ in range(300):
                nested = [nested]
            message.properties["content_type"] = b"\xff\xfe\xfd"
            message.properties["application_headers"] = {"odd": nested}
            channel.basic_publish(message, "booking-events", "booking.created")
        platform.publish([created(tour.pk, "C")])
        platform.wait_for_processed(2)


class TestQueues:
    def test_a_worker_takes_only_the_events_of_its_queues(
        self, platform: Platform, tour: Tour
    ) -> None:
        maintenance = platform.start("-c", "1", "-Q", "maintenance")
        platform.publish([created(tour.pk, "B")])
        catalog = platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(1)
        platform.wait_for(lambda: "Applied" in catalog.log, "the worker of the queue says so")
        assert "Applied" not in maintenance.log

    def test_what_no_consumer_takes_becomes_a_dead_letter(
        self, platform: Platform, tour: Tour
    ) -> None:
        platform.publish([created(tour.pk, "B", event_id="lost")], key="booking.craeted")
        platform.start("-c", "1")
        platform.publish([created(tour.pk, "C")])
        platform.wait_for_processed(1)
        platform.wait_for(lambda: parked() == [("unroutable", "lost")], "it is recorded")


def a_classic_queue(channel: Any) -> None:
    channel.queue_declare("catalog", durable=True, auto_delete=False)


def another_exchange_type(channel: Any) -> None:
    channel.exchange_delete("booking-events")
    channel.exchange_declare("booking-events", "direct", durable=True, auto_delete=False)


@pytest.mark.servers
class TestTopology:
    """What is on the broker already, and what its user may do there."""

    @pytest.mark.parametrize(
        ("declare", "named"),
        [
            (a_classic_queue, "queue 'catalog'"),
            (another_exchange_type, "exchange 'booking-events'"),
        ],
    )
    def test_what_is_there_with_other_properties_is_explained(
        self, platform: Platform, declare: Callable[[Any], None], named: str
    ) -> None:
        platform.delete_queues()
        with platform.channel() as channel:
            declare(channel)
        try:
            worker = platform.start("-c", "1", wait=False)
            assert worker.process.wait(PATIENCE) == os.EX_CONFIG
            assert named in worker.log
            assert "docs/upgrading.md" in worker.log
        finally:
            with platform.channel() as channel:
                channel.exchange_delete("booking-events")

    def test_an_alternate_exchange_of_somebody_else_is_left_alone(
        self, platform: Platform, tour: Tour
    ) -> None:
        with platform.channel() as channel:
            channel.exchange_delete("booking-events")
            channel.exchange_declare(
                "booking-events", "topic", durable=True, auto_delete=False,
                arguments={"alternate-exchange": "theirs"},
            )  # fmt: skip
        try:
            platform.start("-c", "1")
            platform.publish([created(tour.pk, "B")])
            platform.wait_for_processed(1)
        finally:
            with platform.channel() as channel:
                channel.exchange_delete("booking-events")

    def test_two_workers_as_the_readme_starts_them_both_serve_and_answer(
        self, platform: Platform, tour: Tour
    ) -> None:
        workers = [platform.start("--concurrency", "2") for _ in range(2)]
        replies: Any = current_app.control.ping(timeout=PATIENCE, limit=2)
        platform.publish(created(tour.pk, f"B{n}") for n in range(500))
        platform.wait_for_processed(500)
        assert len(replies) == 2
        assert len({name for reply in replies for name in reply}) == 2
        for worker in workers:
            platform.wait_for(lambda log=worker: "Applied" in log.log, "both serve")
            assert "RESOURCE_LOCKED" not in worker.log

    @pytest.fixture
    def restricted(self, platform: Platform) -> Iterator[str]:
        """The URL of a user who may read and write, and configure nothing."""
        vhost = current_app.connection_for_write().virtual_host
        user = f"no-configure-{os.getpid()}"
        assert control_broker("add_user", user, "secret")
        assert control_broker("set_permissions", "-p", vhost, user, "^$", ".*", ".*")
        host = urlsplit(servers.broker_url()).netloc.rpartition("@")[2]
        yield f"amqp://{user}:secret@{host}/{quote(vhost, safe='')}"
        control_broker("delete_user", user)

    def test_a_user_who_may_declare_nothing_finds_what_is_there(
        self, platform: Platform, tour: Tour, restricted: str
    ) -> None:
        worker = platform.start("-c", "1", RABBITMQ_URL=restricted)
        platform.publish([created(tour.pk, "B")])
        booking_created.delay(created(tour.pk, "C"))
        platform.wait_for_processed(2)
        assert "No remote control" in worker.log

    def test_or_is_told_what_is_missing(self, platform: Platform, restricted: str) -> None:
        platform.delete_queue(CREATED)
        worker = platform.start("-c", "1", wait=False, RABBITMQ_URL=restricted)
        assert worker.process.wait(PATIENCE) == os.EX_CONFIG
        assert f"Queue {CREATED!r} is missing" in worker.log


class TestPools:
    @pytest.mark.parametrize("pool", ["threads", "solo"])
    def test_other_pools_do_the_same(self, platform: Platform, tour: Tour, pool: str) -> None:
        platform.start("-P", pool, "-c", "4")
        platform.publish(created(tour.pk, f"B{n}") for n in range(300))
        platform.wait_for_processed(300)
        assert_adds_up(tour)
        assert tour.reserved_seats == 300
