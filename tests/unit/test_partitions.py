"""How events are spread over partitions, and how a worker takes and shares them."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from kombu.message import Message

from booking_platform.messaging import clock, partitions, topology
from booking_platform.messaging.groups import Delivery, GroupMessage
from booking_platform.messaging.intake import Intake
from booking_platform.messaging.partition_sources import LONGEST_WAIT, Balance, Partition
from booking_platform.messaging.rules import CONSUMERS, partitioned
from tests.events import body, cancelled, created
from tests.unit.intakes import ack

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _four(settings: Any) -> None:
    settings.EVENT_PARTITIONS = 4


def partition_of(event: dict[str, Any], queue: str = CREATED) -> str:
    [[message], here] = partitions.spread(CONSUMERS[queue], [Delivery(body(event))])
    assert here == []
    return message.exchange


class TestSpreading:
    def test_a_tour_has_one_partition_whatever_happens_to_it(self) -> None:
        for tour in range(1, 50):
            booked = partition_of(created(tour, "B", 1))
            assert booked == partition_of(created(tour, "C", 2))
            assert booked == partition_of(cancelled(tour, "B", 1), CANCELLED)

    def test_tours_are_on_all_partitions(self) -> None:
        counts = Counter(partition_of(created(tour)) for tour in range(1, 1001))
        assert set(counts) == {topology.partition_name("catalog", number) for number in range(4)}
        assert max(counts.values()) < 2 * min(counts.values())

    def test_what_its_consumer_needs_to_know_goes_with_it(self) -> None:
        delivery = Delivery(body(created(7)), replay_of="token", trace=TRACE)
        [[message], _] = partitions.spread(CONSUMERS[CREATED], [delivery])
        assert message.body == delivery.body
        assert (message.routing_key, message.trace) == ("booking.created", TRACE)
        assert message.replay_of == "token"

    @pytest.mark.parametrize(
        "delivery",
        [
            Delivery(b""),
            Delivery(b'{"payload": {"bookingId": "tourId"}}'),
            Delivery(b'{"payload": {"note": "\\"tourId\\": 5"}}'),
            Delivery(b'{"payload": {"tourId": '),
            Delivery(body(created(7)), size=300_000),
            Delivery(body(created(7)), task="catalog.booking_created"),
        ],
    )
    def test_what_names_no_tour_or_is_no_whole_event_stays(self, delivery: Delivery) -> None:
        assert partitions.spread(CONSUMERS[CREATED], [delivery]) == ([], [delivery])


def message(tag: int, key: str) -> Message:
    info = {"routing_key": key, "redelivered": False}
    parts: dict[str, Any] = {"body": b"{}", "delivery_tag": tag, "channel": Channel()}
    return Message(delivery_info=info, **parts)


class Channel:
    """As much of a channel as takes acks and tells how many workers there are."""

    no_ack_consumers = None
    connection_errors: tuple[type[Exception], ...] = ()
    channel_errors: tuple[type[Exception], ...] = ()

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.connection = self.client = self

    def channel(self) -> "Channel":
        return self

    def close(self) -> None: ...

    def basic_ack(self, tag: int, multiple: bool = False) -> None: ...

    def queue_declare(self, queue: str, passive: bool) -> Any:
        assert (queue, passive) == (CREATED, True)
        return type("Answer", (), {"consumer_count": self.workers})


def tags(source: Partition) -> list[Any]:
    """Return the numbers of the messages of the next group."""
    return [each.message.delivery_tag for each in source.next_group()]


class Consuming:
    """A consumer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def cancel(self) -> None:
        self.told.append("cancel")

    def consume(self) -> None:
        self.told.append("consume")


def partition(number: int = 0) -> Partition:
    return Partition(topology.partition("catalog", number), partitioned()["catalog"])


class TestPartition:
    def test_a_group_is_of_one_consumer_and_they_go_one_by_one(self) -> None:
        groups: list[GroupMessage] = []
        source = partition()
        intake = Intake([source], places=lambda: 4, handle=groups.append)
        keys = ["booking.created", "booking.cancelled", "booking.created", "booking.changed"]
        for tag, key in enumerate(keys, 1):
            source.receive(message(tag, key))
        done: list[tuple[str | None, int]] = []
        intake._dispatch()
        while len(done) < len(groups):
            assert len(groups) == len(done) + 1
            done.append((groups[-1].headers["task"], len(groups[-1].body[0][0])))
            ack(groups[-1])
            intake._dispatch()
        assert done == [
            ("catalog.booking_created", 2),
            ("catalog.booking_cancelled", 1),
            ("catalog.booking_changed", 1),
        ]

    def test_no_kind_waits_for_the_end_of_another(self) -> None:
        source = partition()
        source.batch = 2
        for tag in range(1, 4):
            source.receive(message(tag, "booking.created"))
        source.receive(message(4, "booking.cancelled"))
        taken = [tags(source)]
        for tag in range(5, 9):
            source.receive(message(tag, "booking.created"))
        taken += [tags(source) for _ in range(4)]
        assert taken == [[1, 2], [3, 5], [4], [6, 7], [8]]

    def test_what_is_no_full_group_waits_while_there_is_more_to_be_spread(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks = [100.0]
        monkeypatch.setattr(clock, "ticks", lambda: ticks[0])
        upstream = partition()
        upstream.receive(message(1, "booking.created"))
        source = Partition(topology.partition("catalog", 1), partitioned()["catalog"], [upstream])
        source.receive(message(1, "booking.created"))
        assert not source.has_place
        ticks[0] += LONGEST_WAIT + 1
        assert source.has_place
        assert tags(source) == [1]
        assert not source.has_place

    def test_a_group_is_no_larger_than_any_consumer_takes(self) -> None:
        consumers = partitioned()["catalog"]
        one = replace(consumers["booking.changed"], batch=1)
        source = Partition(topology.partition("catalog", 0), consumers | {one.routing_key: one})
        assert source.batch == 1


class TestBalance:
    @pytest.mark.parametrize(
        ("active", "workers", "left"), [(8, 1, 8), (8, 2, 4), (8, 3, 3), (8, 20, 1), (2, 2, 2), (0, 2, 0)]
    )  # fmt: skip
    def test_a_worker_steps_back_from_what_is_more_than_its_share(
        self, active: int, workers: int, left: int
    ) -> None:
        sources: list[Any] = [partition(number) for number in range(8)]
        for number, source in enumerate(sources):
            source.channel, source.consumer = Channel(workers), Consuming()
            if number < active:
                source.receive(message(1, "booking.created"))
        Balance(sources).restore()
        assert sum(source.active for source in sources) == left
        told = [source.consumer.told for source in sources if source.consumer.told]
        assert told == [["cancel", "consume"]] * (active - left)

    def test_what_was_on_its_way_does_not_make_a_partition_its_own_again(self) -> None:
        source: Any = partition()
        source.channel, source.consumer = Channel(), Consuming()
        source.consumer.cancel = lambda: source.receive(message(1, "booking.created"))
        source.step_back()
        assert not source.active
        assert len(source.waiting) == 1
