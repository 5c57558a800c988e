import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Producer, Queue

from booking_platform.development.embedded_broker import Transport
from booking_platform.messaging import intake, sources
from booking_platform.messaging.groups import GroupMessage
from booking_platform.messaging.intake import Intake
from booking_platform.messaging.sources import Source
from tests.servers import wait_until
from tests.unit.intakes import ack, at_once, reject


class Worker:
    """Stands in for Celery's worker: an event loop, a pool with places, a broker connection."""

    def __init__(self, folder: Path, *, batches: tuple[int, ...] = (10,), places: int = 1) -> None:
        self.places = places
        self.groups: list[GroupMessage] = []  # handed over, in order
        self.soon: deque[Callable[[], None]] = deque()
        self.later: deque[Callable[[], None]] = deque()
        self.pauses: list[float] = []  # after which what is later was to be called
        options = {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": folder / "exchanges",
            "polling_interval": 0.001,
        }
        self.connection = Connection(transport=Transport, transport_options=options)
        self.queues = [Queue(f"queue-{number}-{uuid4().hex}") for number in range(len(batches))]
        for queue in self.queues:
            queue(self.connection.default_channel).declare()
        sources = [
            Source(queue, f"task-{number}", batch)
            for number, (queue, batch) in enumerate(zip(self.queues, batches, strict=True))
        ]
        self.intake = Intake(sources, places=lambda: self.places, handle=self.groups.append)

    def consume(self) -> "Worker":
        self.intake.consume(self.connection, loop=self)
        return self

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.pauses.append(seconds)
        self.later.append(function)

    def publish(self, *bodies: str, queue: int = 0, **properties: Any) -> None:
        with self.connection.clone() as producers:
            for body in bodies:
                Producer(producers).publish(
                    body.encode(), routing_key=self.queues[queue].name,
                    content_type="application/json", content_encoding="utf-8", **properties,
                )  # fmt: skip

    def publish_redelivered(self, body: str) -> None:
        self.drain()
        self.publish(body)
        with self.connection.clone() as other:
            message = self.queues[0](other.channel()).get()
            assert message is not None
            message.requeue()

    def drain(self) -> None:
        """Take in all that the broker gives."""
        while True:
            try:
                self.connection.drain_events(timeout=0.01)
            except TimeoutError:
                return

    def run(self) -> list[list[str]]:
        """Take in all that the broker gives, run the event loop; return the groups handed over."""
        before = len(self.groups)
        while self.later:
            self.later.popleft()()
        self.drain()
        while self.soon:
            self.soon.popleft()()
        return [self.bodies(group) for group in self.groups[before:]]

    @staticmethod
    def bodies(group: GroupMessage) -> list[str]:
        [[deliveries], *_] = group.body
        return [delivery.body.decode() for delivery in deliveries]

    def waiting(self, queue: int = 0) -> int:
        """Count what the broker would give to another worker."""
        with self.connection.clone() as other:
            channel: Any = other.channel()
            return int(channel.queue_declare(self.queues[queue].name, passive=True).message_count)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(**how: Any) -> Worker:
        workers.append(Worker(tmp_path, **how))
        return workers[-1].consume()

    yield start
    for each in workers:
        each.connection.release()


class TestAFreePool:
    def test_it_gets_what_waits_at_once(self, worker: Callable[..., Worker]) -> None:
        free = worker(batches=(100,))

        free.publish("a")
        assert free.run() == [["a"]]

        ack(free.groups[0])
        free.publish("b", "c")
        assert free.run() == [["b", "c"]]

    def test_many_deliveries_ask_the_event_loop_for_one_call(
        self, worker: Callable[..., Worker]
    ) -> None:
        free = worker(batches=(100,))
        free.publish(*"abcde")
        free.drain()
        assert len(set(free.soon)) == 1  # Kombu's loop keeps a set

    def test_it_gets_a_group_for_every_place(self, worker: Callable[..., Worker]) -> None:
        free = worker(batches=(2,), places=3)

        free.publish(*"abcdefgh")

        assert free.run() == [["a", "b"], ["c", "d"], ["e", "f"]]

    def test_it_gets_a_message_that_says_whose_task_it_is(
        self, worker: Callable[..., Worker]
    ) -> None:
        free = worker(batches=(2, 2), places=2)
        free.publish("a", queue=1)

        free.run()

        [group] = free.groups
        assert group.headers["task"] == "task-1"
        assert group.delivery_info["routing_key"] == free.queues[1].name

    def test_what_kombu_cannot_decode_comes_by_its_bytes(
        self, worker: Callable[..., Worker]
    ) -> None:
        free = worker(batches=(1,), places=2)

        free.publish("not zlib", headers={"compression": "application/x-gzip"})
        free.publish("not a task", headers={"task": "os.system"})

        assert len(free.run()) == 2


class TestABusyPool:
    def test_it_lets_deliveries_gather_up_to_the_batch(self, worker: Callable[..., Worker]) -> None:
        busy = worker(batches=(3,))
        busy.publish("a")
        busy.run()

        busy.publish(*"bcdef")
        assert busy.run() == []

        ack(busy.groups[0])
        assert busy.run() == [["b", "c", "d"]]
        ack(busy.groups[1])
        assert busy.run() == [["e", "f"]]

    @pytest.mark.parametrize("settle", [ack, reject])
    def test_a_settled_group_frees_one_place(
        self, worker: Callable[..., Worker], settle: Callable[[GroupMessage], None]
    ) -> None:
        busy = worker(batches=(1,), places=2)
        busy.publish(*"abcd")
        busy.run()

        settle(busy.groups[0])

        assert busy.run() == [["c"]]

    def test_its_places_are_counted_each_time(self, worker: Callable[..., Worker]) -> None:
        busy = worker(batches=(1,), places=2)
        busy.places = 1
        busy.publish("a", "b")
        assert busy.run() == [["a"]]

        busy.places = 2
        busy.publish("c")
        assert busy.run() == [["b"]]

    def test_it_holds_back_two_batches_a_place_and_one_more(
        self, worker: Callable[..., Worker]
    ) -> None:
        busy = worker(batches=(2,), places=2)

        busy.publish(*(str(number) for number in range(20)))
        busy.run()

        assert busy.waiting() == 20 - 2 * (2 * 2 + 1)

    def test_it_acknowledges_nothing_early(self, worker: Callable[..., Worker]) -> None:
        busy = worker(batches=(3,))
        busy.publish(*"abcdef")
        busy.run()

        ack(busy.groups[0])
        busy.connection.release()

        assert busy.waiting() == 3


class TestARedeliveredMessage:
    def test_it_travels_with_its_like_only(self, worker: Callable[..., Worker]) -> None:
        free = worker(places=9)
        for bodies, redelivered in (("ab", "c"), ("", "d"), ("ef", "g")):
            free.publish(*bodies)
            free.publish_redelivered(redelivered)
        free.publish("h")

        assert sorted(free.run()) == [["a", "b"], ["c", "d"], ["e", "f"], ["g"], ["h"]]

    def test_its_group_says_so(self, worker: Callable[..., Worker]) -> None:
        free = worker(places=2)
        free.publish("a")
        free.publish_redelivered("b")
        free.run()

        assert [group.delivery_info["redelivered"] for group in free.groups] == [False, True]


class TestAGroupThatFails:
    def test_it_goes_back_after_a_pause_that_grows_while_nothing_succeeds(
        self, worker: Callable[..., Worker]
    ) -> None:
        failing = worker(batches=(1,))
        failing.publish("a")
        for _ in range(12):
            failing.run()
            reject(failing.groups[-1])
            assert failing.waiting() == 0

        assert failing.pauses[0] == intake.SHORTEST_PAUSE
        assert failing.pauses == sorted(failing.pauses)
        assert failing.pauses[-1] == intake.LONGEST_PAUSE

        failing.run()
        ack(failing.groups[-1])
        failing.publish("b")
        failing.run()
        reject(failing.groups[-1])
        assert failing.pauses[-1] == intake.SHORTEST_PAUSE

    def test_the_others_go_on_meanwhile(self, worker: Callable[..., Worker]) -> None:
        failing = worker(batches=(1,))
        failing.publish("a", "b")
        failing.run()
        later = failing.later
        reject(failing.groups[0])
        held = [later.popleft()]

        assert failing.run() == [["b"]]

        held[0]()
        ack(failing.groups[1])
        assert failing.run() == [["a"]]

    def test_a_stop_returns_it_at_once_and_a_lost_connection_forgets_it(
        self, worker: Callable[..., Worker]
    ) -> None:
        failing = worker(batches=(1,))
        failing.publish("a")
        failing.run()
        reject(failing.groups[0])
        failing.intake.stop(at_once)
        assert failing.waiting() == 1
        failing.later.popleft()()
        assert failing.waiting() == 1


class TestBytes:
    """What the main process holds is bounded, however large the messages are."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "MOST_HELD", 10)
        monkeypatch.setattr(sources, "MOST_IN_GROUP", 6)

    def test_what_there_is_no_room_for_goes_back_when_there_is_again(
        self, worker: Callable[..., Worker]
    ) -> None:
        busy = worker(batches=(1,), places=5)
        busy.places = 0
        busy.publish("1234", "5678", "90ab")
        busy.run()
        busy.places = 1
        busy.soon.append(busy.intake._dispatch)

        assert busy.run() == [["1234"]]
        ack(busy.groups[-1])
        assert busy.run() == [["5678"]]
        ack(busy.groups[-1])
        assert busy.run() == []
        assert busy.run() == [["90ab"]]
        assert busy.groups[-1].delivery_info["redelivered"]

    def test_a_group_is_bounded_too(self, worker: Callable[..., Worker]) -> None:
        free = worker(batches=(100,), places=9)
        free.publish("123", "456", "789")
        free.drain()

        assert free.run() == [["123", "456"], ["789"]]

    def test_one_message_is_always_a_group(self, worker: Callable[..., Worker]) -> None:
        free = worker(batches=(100,), places=9)
        free.publish("123456789")

        assert free.run() == [["123456789"]]


class TestSeveralQueues:
    def test_they_take_turns(self, worker: Callable[..., Worker]) -> None:
        busy = worker(batches=(1, 1, 1))
        for queue, bodies in enumerate(("abc", "de", "f")):
            busy.publish(*bodies, queue=queue)

        order = [busy.run()]
        while len(busy.groups) < 6:
            ack(busy.groups[-1])
            order.append(busy.run())

        queues = ["abcdef".index(body) for [[body]] in order]
        assert [[0, 0, 0, 1, 1, 2][number] for number in queues] in (
            [0, 1, 2, 0, 1, 0], [1, 2, 0, 1, 0, 0], [2, 0, 1, 0, 1, 0]
        )  # fmt: skip

    def test_a_flood_in_one_holds_up_no_other(self, worker: Callable[..., Worker]) -> None:
        busy = worker(batches=(5, 1))
        busy.publish(*(str(number) for number in range(100)))
        busy.run()
        busy.publish("urgent", queue=1)

        for _ in range(2):
            busy.run()
            ack(busy.groups[-1])
        busy.run()

        assert ["urgent"] in [busy.bodies(group) for group in busy.groups]

    def test_they_never_share_a_group(self, worker: Callable[..., Worker]) -> None:
        free = worker(batches=(5, 5), places=2)
        free.publish("a", "b", queue=0)
        free.publish("c", queue=1)

        assert sorted(free.run()) == [["a", "b"], ["c"]]


class TestStopping:
    def test_it_returns_what_waits_and_takes_no_more(self, worker: Callable[..., Worker]) -> None:
        stopping = worker(batches=(2,))
        stopping.publish(*"abcd")
        stopping.run()
        assert stopping.waiting() == 0

        stopping.intake.stop(at_once)
        stopping.publish("e")

        assert stopping.run() == []
        assert stopping.waiting() == 3

    @pytest.mark.parametrize("first", [0, 1], ids=["in order", "newest first"])
    def test_what_runs_still_ends_and_is_acknowledged(
        self, worker: Callable[..., Worker], first: int
    ) -> None:
        stopping = worker(batches=(3,), places=2)
        stopping.publish(*"abcdef")
        stopping.run()

        stopping.intake.stop(at_once)
        ack(stopping.groups[first])
        ack(stopping.groups[1 - first])
        stopping.intake.close(at_once)
        stopping.connection.release()

        assert stopping.waiting() == 0

    def test_what_fails_meanwhile_returns(self, worker: Callable[..., Worker]) -> None:
        stopping = worker(batches=(3,), places=2)
        stopping.publish(*"abcdef")
        stopping.run()

        stopping.intake.stop(at_once)
        reject(stopping.groups[0])
        ack(stopping.groups[1])
        stopping.intake.close(at_once)

        assert stopping.waiting() == 3

    def test_what_does_not_end_returns(self, worker: Callable[..., Worker]) -> None:
        stopping = worker(batches=(3,), places=2)
        stopping.publish(*"abcdef")
        stopping.run()

        stopping.intake.stop(at_once)
        ack(stopping.groups[1])
        stopping.intake.close(at_once)

        assert stopping.waiting() == 3


class TestForgetting:
    @pytest.mark.parametrize("settle", [ack, reject])
    def test_old_answers_touch_nothing(
        self, worker: Callable[..., Worker], settle: Callable[[GroupMessage], None]
    ) -> None:
        lost = worker(batches=(3,))
        lost.publish(*"abcd")
        lost.run()

        lost.intake.forget()
        settle(lost.groups[0])
        assert lost.waiting() == 0

        lost.connection.release()
        assert lost.waiting() == 4

    def test_nothing_more_is_handed_over(self, worker: Callable[..., Worker]) -> None:
        lost = worker(batches=(1,), places=2)
        lost.publish("a", "b")
        lost.drain()

        lost.intake.forget()
        lost.publish("c")

        assert lost.run() == []


class TestWithoutAnEventLoop:
    """As with Kombu's virtual transports: groups are acked from the threads of the pool."""

    def test_it_hands_over_from_a_thread_of_its_own(self, tmp_path: Path) -> None:
        worker = Worker(tmp_path, batches=(10,), places=4)
        handed, caller = [], threading.current_thread()
        seen: list[str] = []
        with ThreadPoolExecutor(4) as pool:

            def work(group: GroupMessage) -> None:
                seen.extend(worker.bodies(group))
                ack(group)

            def handle(group: GroupMessage) -> None:
                handed.append(threading.current_thread() is caller)
                pool.submit(work, group)

            worker.intake._handle = handle
            worker.intake.consume(worker.connection, loop=None)
            bodies = [str(number) for number in range(500)]
            worker.publish(*bodies)

            def arrived() -> bool:
                worker.drain()
                return len(seen) >= len(bodies)

            wait_until(arrived, what="every message was handed over")
        worker.intake.stop(at_once)
        worker.intake.close(at_once)
        worker.connection.release()

        assert sorted(seen) == sorted(bodies)
        assert not any(handed)
        assert worker.waiting() == 0
