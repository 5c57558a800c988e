import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.message import Message

from booking_platform.development.embedded_broker import DELIVERY_COUNT, Transport
from tests.servers import PATIENCE

FORK = multiprocessing.get_context("fork")

EMBEDDED = f"{Transport.__module__}:{Transport.__name__}"


def connect(folder: Path, transport: str = EMBEDDED) -> Connection:
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": folder / "exchanges",
        "store_processed": True,  # Kombu's own else uses /tmp
        "processed_folder": str(folder / "processed"),
        "polling_interval": 0.001,
    }
    return Connection(transport=transport, transport_options=options)


def unique(name: str) -> str:
    """Return a name that no other test has: Kombu remembers bindings by process, not by folder."""
    return f"{name}-{uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("messages", "exchanges", "processed"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    with connect(folder) as connection:
        yield connection


@pytest.fixture
def events() -> Exchange:
    return Exchange(unique("events"), type="topic")


def declared(connection: Connection, queue: Queue) -> Any:
    """Declare a queue; return it, bound to a channel."""
    bound = queue(connection.default_channel)
    bound.declare()
    return bound


def publish(connection: Connection, body: bytes = b"event", exchange: str = "", **to: Any) -> None:
    Producer(connection).publish(
        body, exchange=exchange, content_type="application/json", content_encoding="utf-8", **to
    )


def taken(queue: Any) -> Any:
    """Take a message, of no type: for kombu-types its body and headers can be text only."""
    message = queue.get()
    assert message is not None, "the queue is empty"
    return message


def sizes(connection: Connection, *queues: Queue) -> list[int]:
    """Count what is waiting, as a process would that has seen none of it."""
    with connection.clone() as other:
        channel: Any = other.channel()
        return [channel.queue_declare(queue.name, passive=True).message_count for queue in queues]


# What runs in processes of its own.


LAST = "last"
WRITERS = READERS = 2
LENGTH = 20_000  # characters a message: so many that Kombu's own transport can be caught writing


def write(folder: Path, transport: str, queue: str, bodies: list[str]) -> None:
    with connect(folder, transport) as connection:
        for body in bodies:
            publish(connection, body.encode(), routing_key=queue)


def read(folder: Path, transport: str, queue: str) -> list[str]:
    """Read and ack until the last message, or until none comes."""
    bodies: list[str] = []

    def take(message: Any) -> None:
        bodies.append(message.body.decode())
        message.ack()

    with connect(folder, transport) as connection:
        consumer = Consumer(connection, [Queue(queue)], on_message=take, auto_declare=False)
        consumer.qos(prefetch_count=50)
        consumer.consume()
        while LAST not in bodies:
            try:
                connection.drain_events(timeout=1 if transport == "filesystem" else PATIENCE)
            except TimeoutError:
                break
            except ValueError:  # not JSON: its writer was not done
                assert transport == "filesystem"
    return [body for body in bodies if body != LAST]


def load(folder: Path, transport: str, *, messages: int) -> tuple[list[str], list[str]]:
    """Write and read with several processes at once; return what was written and what was read."""
    queue = unique("load")
    written = [f"{number}".ljust(LENGTH, ".") for number in range(messages)]
    with ProcessPoolExecutor(WRITERS + READERS, FORK) as processes:
        readers = [processes.submit(read, folder, transport, queue) for _ in range(READERS)]
        parts = [written[writer::WRITERS] for writer in range(WRITERS)]
        for done in [processes.submit(write, folder, transport, queue, part) for part in parts]:
            done.result(PATIENCE)
        write(folder, transport, queue, [LAST] * READERS)
        return written, [body for reader in readers for body in reader.result(2 * PATIENCE)]


def bind(folder: Path, exchange: Exchange, queue: str) -> None:
    with connect(folder) as connection:
        declared(connection, Queue(queue, exchange, routing_key="booking.*"))


class TestSeveralProcesses:
    def test_they_lose_and_repeat_nothing(self, folder: Path) -> None:
        written, read = load(folder, EMBEDDED, messages=3_000)

        assert sorted(read) == sorted(written)
        assert not list(folder.rglob("messages/*/*"))

    def test_they_lose_messages_through_kombus_own_transport(self, folder: Path) -> None:
        """The negative control: the load above is one that shows the race."""
        for _ in range(20):
            written, read = load(folder, "filesystem", messages=600)
            if len(read) < len(written):
                return
        pytest.fail("Kombu's own transport lost nothing: the load proves nothing")

    def test_they_can_bind_at_once(
        self, folder: Path, connection: Connection, events: Exchange
    ) -> None:
        queues = [f"{events.name}-{number}" for number in range(40)]
        with ProcessPoolExecutor(4, FORK) as processes:
            for done in [processes.submit(bind, folder, events, queue) for queue in queues]:
                done.result(PATIENCE)

        events(connection.default_channel).declare()
        publish(connection, exchange=events.name, routing_key="booking.created")

        assert sizes(connection, *map(Queue, queues)) == [1] * len(queues)


class TestRouting:
    def test_a_topic_goes_to_every_queue_bound_to_it_once(
        self, connection: Connection, events: Exchange
    ) -> None:
        keys = ["booking.created", "booking.*", "#", "booking.cancelled"]
        queues = [Queue(unique(key), events, routing_key=key) for key in keys]
        for queue in queues:
            declared(connection, queue)

        publish(connection, exchange=events.name, routing_key="booking.created")

        assert sizes(connection, *queues) == [1, 1, 1, 0]

    def test_a_queue_name_reaches_that_queue_alone(
        self, connection: Connection, events: Exchange
    ) -> None:
        one, other = (Queue(unique(name), events, routing_key="key") for name in ("one", "other"))
        declared(connection, one)
        declared(connection, other)

        publish(connection, routing_key=one.name)

        assert sizes(connection, one, other) == [1, 0]

    def test_messages_keep_their_order(self, connection: Connection) -> None:
        queue = declared(connection, Queue(unique("order")))
        for number in range(50):
            publish(connection, b"%d" % number, routing_key=queue.name)

        assert [int(taken(queue).body) for _ in range(50)] == list(range(50))

    @pytest.mark.parametrize(
        "body", [b"", b"\0\xff", b'{"__type__": "bytes"}', "é😀".encode(), b"x" * 1_000_000]
    )
    def test_a_body_arrives_as_it_was_sent(self, connection: Connection, body: bytes) -> None:
        queue = declared(connection, Queue(unique("bodies")))
        publish(connection, body, routing_key=queue.name, headers={"x-replay-of": 5})

        message = taken(queue)

        assert (message.body or b"", message.headers) == (body, {"x-replay-of": 5})

    @pytest.mark.parametrize(
        "name", ["a/b", "../up", "..", ".", "/etc/passwd", "a%2Fb", "a b\n", "é😀", ".hidden", "*"]
    )
    def test_a_queue_of_any_name_is_a_folder_of_its_own(
        self, folder: Path, connection: Connection, name: str
    ) -> None:
        plain = declared(connection, Queue("plain"))
        hostile = declared(connection, Queue(name))
        publish(connection, b"to plain", routing_key="plain")
        publish(connection, b"to hostile", routing_key=name)
        folders = {path.parent.parent for path in folder.rglob("*") if path.is_file()}

        assert sizes(connection, plain, hostile) == [1, 1]
        assert [taken(hostile).body, hostile.get()] == [b"to hostile", None]
        assert [taken(plain).body, plain.get()] == [b"to plain", None]
        assert folders == {folder / "messages"}

    @pytest.mark.parametrize("name", ["a/b", "../up", "..", ".", "/etc/passwd"])
    def test_an_exchange_of_any_name_is_a_folder_too(
        self, folder: Path, connection: Connection, name: str
    ) -> None:
        queue = declared(connection, Queue(unique("queue"), Exchange(name, "topic"), "key"))

        publish(connection, exchange=name, routing_key="key")

        assert sizes(connection, queue) == [1]
        folders = {path.parent.parent for path in folder.rglob("*") if path.is_file()}
        assert folders == {folder / "messages", folder / "exchanges"}

    def test_the_empty_name_is_no_other_name(self, connection: Connection) -> None:
        queue = declared(connection, Queue("default"))
        publish(connection, routing_key="")

        assert sizes(connection, queue) == [0]

    def test_a_slash_and_its_quotation_are_two_names(self, connection: Connection) -> None:
        queues = [declared(connection, Queue(name)) for name in ("a/b", "a%2Fb", "a%252Fb")]
        publish(connection, routing_key="a/b")

        assert sizes(connection, *queues) == [1, 0, 0]


class TestAnUnacknowledgedMessage:
    @pytest.fixture
    def queues(self, connection: Connection, events: Exchange) -> list[Any]:
        """Two queues that get the same events."""
        names = unique("catalog"), unique("payments")
        queues = [declared(connection, Queue(name, events, routing_key="key")) for name in names]
        publish(connection, exchange=events.name, routing_key="key")
        return queues

    def test_it_is_new_at_first(self, queues: list[Any]) -> None:
        message = taken(queues[0])

        assert not message.delivery_info["redelivered"]
        assert DELIVERY_COUNT not in message.headers

    def test_it_returns_to_the_one_queue_that_it_came_from_marked_redelivered(
        self, connection: Connection, queues: list[Any]
    ) -> None:
        message = taken(queues[0])
        for count in (1, 2, 3):
            message.requeue()
            assert sizes(connection, *queues) == [1, 1]

            message = taken(queues[0])
            assert message.body == b"event"
            assert message.delivery_info["redelivered"] is True
            assert message.headers[DELIVERY_COUNT] == count

    @pytest.mark.parametrize("close", ["close", "release"])
    def test_it_returns_when_its_consumer_goes(
        self, folder: Path, connection: Connection, queues: list[Any], close: str
    ) -> None:
        with connect(folder) as other:
            channel: Any = other.channel()
            taken(Queue(queues[0].name)(channel))
            assert sizes(connection, *queues) == [0, 1]

            {"close": channel.close, "release": other.release}[close]()

        assert sizes(connection, *queues) == [1, 1]
        assert taken(queues[0]).delivery_info["redelivered"] is True

    def test_it_is_gone_once_acknowledged(
        self, folder: Path, connection: Connection, queues: list[Any]
    ) -> None:
        with connect(folder) as other:
            taken(Queue(queues[0].name)(other.channel())).ack()

        assert sizes(connection, *queues) == [0, 1]

    def test_a_consumer_sees_it_marked_too(self, connection: Connection, queues: list[Any]) -> None:
        taken(queues[0]).requeue()
        seen: list[Message] = []
        consumer = Consumer(connection, [queues[0]], on_message=seen.append, auto_declare=False)
        consumer.consume()

        connection.drain_events(timeout=PATIENCE)

        assert [message.delivery_info["redelivered"] for message in seen] == [True]


class TestTheDeliveryLimit:
    LIMIT = 2

    @pytest.fixture
    def queues(self, connection: Connection) -> tuple[Any, Any]:
        """A queue with a limit, and the queue of its dead letters."""
        dead = Exchange(unique("dead"), type="fanout")
        arguments = {"x-delivery-limit": self.LIMIT, "x-dead-letter-exchange": dead.name}
        limited = Queue(unique("limited"), queue_arguments=arguments)
        return declared(connection, limited), declared(connection, Queue(unique("dead"), dead))

    def test_it_ends_in_the_dead_letters(
        self, connection: Connection, queues: tuple[Any, Any]
    ) -> None:
        limited, dead = queues
        publish(connection, b"poison", routing_key=limited.name, headers={"x-replay-of": 5})

        for _ in range(self.LIMIT):
            taken(limited).requeue()
            assert sizes(connection, limited, dead) == [1, 0]
        taken(limited).requeue()

        assert sizes(connection, limited, dead) == [0, 1]
        letter = taken(dead)
        assert letter.body == b"poison"
        assert letter.headers["x-replay-of"] == 5
        assert letter.headers["x-death"] == [{"queue": limited.name, "reason": "delivery_limit"}]

    def test_a_dead_letter_has_no_limit(
        self, connection: Connection, queues: tuple[Any, Any]
    ) -> None:
        limited, dead = queues
        publish(connection, b"poison", routing_key=limited.name)
        for _ in range(self.LIMIT + 1):
            taken(limited).requeue()

        for _ in range(5 * self.LIMIT):
            taken(dead).requeue()

        assert sizes(connection, limited, dead) == [0, 1]
        assert taken(dead).headers["x-death"][0]["queue"] == limited.name

    def test_it_outlives_a_look_at_the_queue(
        self, connection: Connection, queues: tuple[Any, Any]
    ) -> None:
        limited, dead = queues
        publish(connection, b"poison", routing_key=limited.name)

        for _ in range(self.LIMIT + 1):
            taken(limited).requeue()
            channel: Any = connection.channel()
            channel.queue_declare(limited.name, passive=True)

        assert sizes(connection, limited, dead) == [0, 1]

    def test_a_queue_without_one_returns_for_ever(self, connection: Connection) -> None:
        queue = declared(connection, Queue(unique("patient")))
        publish(connection, routing_key=queue.name)

        for _ in range(30):
            taken(queue).requeue()

        assert taken(queue).headers[DELIVERY_COUNT] == 30


class TestPurging:
    def test_it_empties_one_queue_and_says_of_how_many(self, connection: Connection) -> None:
        queues = [declared(connection, Queue(unique(name))) for name in ("full", "other")]
        for queue in queues * 3:
            publish(connection, routing_key=queue.name)

        assert queues[0].purge() == 3

        assert sizes(connection, *queues) == [0, 3]
        assert queues[0].purge() == 0

    def test_it_leaves_a_reader_with_nothing(self, folder: Path, connection: Connection) -> None:
        queue = declared(connection, Queue(unique("queue")))
        for _ in range(3):
            publish(connection, routing_key=queue.name)
        taken(queue)  # it has listed the other two

        with connect(folder) as other:
            Queue(queue.name)(other.channel()).purge()

        assert queue.get() is None

    def test_a_deleted_queue_is_bound_no_more(
        self, connection: Connection, events: Exchange
    ) -> None:
        gone, kept = (
            declared(connection, Queue(unique(name), events, routing_key="key"))
            for name in ("gone", "kept")
        )
        publish(connection, exchange=events.name, routing_key="key")

        gone.delete()
        publish(connection, exchange=events.name, routing_key="key")

        assert sizes(connection, gone, kept) == [0, 2]


class TestAnEmptyFolder:
    LONG_AGO = 1_000_000_000  # seconds since 1970

    @pytest.fixture
    def queue(self, connection: Connection) -> Any:
        return declared(connection, Queue("idle"))

    @pytest.fixture
    def place(self, folder: Path, queue: Any) -> Path:
        """Return the folder of the queue, which has not changed for long."""
        place = folder / "messages" / "idle"
        self.set_time(place, self.LONG_AGO)
        assert queue.get() is None
        return place

    def set_time(self, place: Path, seconds: float) -> None:
        os.utime(place, (seconds, seconds))

    def test_it_is_not_listed_again_while_it_stays_as_it_is(
        self, connection: Connection, queue: Any, place: Path
    ) -> None:
        publish(connection, routing_key="idle")
        self.set_time(place, self.LONG_AGO)

        assert queue.get() is None

    def test_it_is_listed_at_once_when_a_message_comes(
        self, connection: Connection, queue: Any, place: Path
    ) -> None:
        for _ in range(3):
            publish(connection, routing_key="idle")
            assert taken(queue).body == b"event"
            assert queue.get() is None
            self.set_time(place, self.LONG_AGO)

    def test_it_is_listed_again_where_a_change_may_have_the_same_time(
        self, connection: Connection, queue: Any, place: Path
    ) -> None:
        now = time.time()
        self.set_time(place, now)
        assert queue.get() is None
        publish(connection, routing_key="idle")
        self.set_time(place, now)

        assert taken(queue).body == b"event"

    def test_it_may_be_deleted_and_made_anew(
        self, connection: Connection, queue: Any, place: Path
    ) -> None:
        place.rmdir()
        assert queue.get() is None
        publish(connection, routing_key="idle")

        assert taken(queue).body == b"event"
