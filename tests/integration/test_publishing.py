"""Many messages published in one go, on a real broker: whole, in order, and confirmed."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import AMQPError
from celery import current_app
from kombu import Queue

from booking_platform import servers
from booking_platform.messaging import broker, topology
from booking_platform.messaging.publishing import Outgoing, Publisher
from tests.proxies import Proxy

pytestmark = pytest.mark.servers

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.close()


@pytest.fixture
def channel() -> Iterator[Any]:
    with broker.connection_to_publish() as connection, connection.channel() as channel:
        topology.events_exchange()(channel).declare()
        yield channel


def bound(channel: Any, name: str, **arguments: Any) -> Any:
    """Return a queue of one test that takes ``seats.reserved``."""
    exchange = topology.events_exchange(no_declare=True)
    queue = Queue(
        f"publishing-{name}",
        exchange,
        routing_key="seats.reserved",
        exclusive=True,
        queue_arguments=arguments,
    )(channel)
    queue.declare()
    return queue


def bodies(queue: Any) -> list[bytes]:
    found = []
    while message := queue.get(no_ack=True):
        found.append(message.body if isinstance(message.body, bytes) else message.body.encode())
    return found


def test_they_arrive_whole_and_in_order(publisher: Publisher, channel: Any) -> None:
    queue = bound(channel, "order")
    frame = channel.connection.frame_max - 8
    sizes = [0, 1, frame - 1, frame, frame + 1, 3 * frame, *range(2, 1000)]
    messages = [
        Outgoing("seats.reserved", b"%d:" % n + b"x" * size) for n, size in enumerate(sizes)
    ]
    assert publisher.publish(messages) == len(messages)
    assert bodies(queue) == [message.body for message in messages]
    assert publisher.publish(messages[:3]) == 3  # the numbers of the confirms go on
    assert len(bodies(queue)) == 3


def test_they_look_as_what_others_publish(publisher: Publisher, channel: Any) -> None:
    queue = bound(channel, "looks")
    publisher.publish([Outgoing("seats.reserved", '{"name": "é"}'.encode(), TRACE)])
    publisher.publish([Outgoing("seats.reserved", b"{}")])
    traced, plain = queue.get(no_ack=True), queue.get(no_ack=True)
    assert traced.content_type == "application/json"
    assert traced.content_encoding == "utf-8"
    assert traced.properties["delivery_mode"] == broker.PERSISTENT
    assert traced.headers == {"traceparent": TRACE}
    assert plain.headers == {}


def test_a_full_queue_ends_the_count(publisher: Publisher, channel: Any) -> None:
    bound(channel, "full", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    messages = [Outgoing("seats.reserved", b"%d" % n) for n in range(5)]
    assert publisher.publish(messages) == 2
    assert publisher.publish(messages) == 0


def test_what_nobody_takes_is_confirmed(publisher: Publisher) -> None:
    assert publisher.publish([Outgoing("seats.reserved", b"{}")]) == 1


def test_a_connection_that_broke_meanwhile_is_opened_anew(channel: Any) -> None:
    queue = bound(channel, "anew")
    publisher = Publisher()
    assert publisher.publish([Outgoing("seats.reserved", b"1")]) == 1
    assert publisher._connection is not None
    publisher._channel.connection.transport.sock.close()
    assert publisher.publish([Outgoing("seats.reserved", b"2")]) == 1
    publisher.close()
    assert bodies(queue) == [b"1", b"2"]


def test_one_that_is_silent_is_given_up(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open connection: the first try times out, the second goes over a new connection."""
    queue = bound(channel, "silent")
    url = urlsplit(servers.broker_url())
    monkeypatch.setattr("booking_platform.messaging.publishing.BROKER_SECONDS", 2.0)
    with Proxy(url.hostname or "", url.port or 5672) as proxy:
        login = url.netloc.rpartition("@")[0]
        through = url._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
        monkeypatch.setattr(
            broker,
            "connection_to_publish",
            lambda: current_app.connection_for_write(through, heartbeat=0),
        )
        publisher = Publisher()
        assert publisher.publish([Outgoing("seats.reserved", b"1")]) == 1
        proxy.freeze()
        assert publisher.publish([Outgoing("seats.reserved", b"2")]) == 1
        publisher.close()
    assert bodies(queue)[0] == b"1"


def test_an_error_of_the_channel_is_raised(publisher: Publisher, settings: Any) -> None:
    publisher.open()
    settings.EVENTS_EXCHANGE = "of nobody"
    with pytest.raises(AMQPError, match="of nobody"):
        publisher._publish([Outgoing("seats.reserved", b"{}")])
