"""Exchanges and queues declared, asked about, and published to.

``topology.py`` has their names and properties. Everything is published as plain bytes, persistent, and
confirmed by the broker.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotFound, PreconditionFailed
from celery import current_app
from django.conf import settings
from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError

from booking_platform.messaging import topology
from booking_platform.messaging.rules import CONSUMERS, partitioned

BROKER_SECONDS = 5  # a broker that is frozen ends in an error, not in a request that hangs
PERSISTENT = 2  # AMQP 0-9-1, basic class, delivery-mode


class TopologyDiffers(Exception):
    """The broker's exchanges and queues are not what they must be; the message says what to do."""


# What publishing raises where the broker is away, frozen, full, or refuses.
UNREACHABLE = (OSError, AMQPError, MessageNacked, KombuError, TopologyDiffers)


class TaskQueue(Queue):
    """A queue of Celery's own, which whoever publishes or consumes declares."""

    def declare(self, nowait: bool = False, channel: Any = None) -> Any:
        """Declare the queue or, where the broker's user may not, look whether it is there."""
        bound: Any = channel or self.channel
        _declare_or_find(bound.connection.client, super().declare, self.exchange, self)
        return self.name


class TaskQueues:
    """Celery's queues, read from the registry when Celery first asks for them."""

    def __repr__(self) -> str:
        return f"<one for each of {', '.join(topology.task_queues())}>"

    def __iter__(self) -> Iterator[Queue]:
        return map(_task_queue, topology.task_queues())


def _task_queue(name: str) -> Queue:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": topology.TASK_DELIVERIES}
    return TaskQueue(name, Exchange(name), routing_key=name, queue_arguments=arguments)


def former_partitions(connection: Connection, app: str) -> list[Queue]:
    """Return the partitions that the broker has from when there were more; they may hold events."""
    found: list[Queue] = []
    if connection.transport.driver_type == "amqp":
        with open_channel(connection) as channel, suppress(NotFound):
            while True:
                queue = topology.partition(app, settings.EVENT_PARTITIONS + len(found))
                channel.queue_declare(queue.name, passive=True)
                found.append(queue)
    return found


def queues() -> list[Queue]:
    """Return all queues: those of the consumers, Celery's, and the last stops, which come first."""
    last_stops = [topology.dead_letter_queue(), topology.unroutable_queue()]
    spread = [queue for app in partitioned() for queue in topology.partitions(app)]
    return [*last_stops, *map(topology.event_queue, CONSUMERS.values()), *spread, *TaskQueues()]


def declare(connection: Connection) -> None:
    """Declare everything, whatever this process consumes.

    A dead letter that no queue is bound for would be lost. What the broker's user may not declare
    is looked for instead.

    Raises:
        TopologyDiffers: something is there with other properties, or is missing and may not be
            declared.
    """
    declare_events_exchange(connection)
    for queue in queues():
        _declare_or_find(connection, partial(_declare_queue, queue), queue.exchange, queue)
    if connection.transport.driver_type == "amqp":
        _declare_or_find(connection, _declare_net, *topology.net())
        # To bind is to write to the one and read from the other: who may not declare may do that.
        with suppress(AccessRefused), open_channel(connection) as channel:
            _bind_net(channel)


def _declare_queue(queue: Queue, channel: Any) -> None:
    Queue.declare(queue(channel))


def declare_events_exchange(connection: Connection) -> None:
    """Declare the exchange of the producers.

    Raises:
        TopologyDiffers: it is there with other properties, or is missing and may not be declared.
    """
    _declare_or_find(connection, _declare_as_producers_do, topology.events_exchange())


def _declare_as_producers_do(channel: Any) -> None:
    try:
        topology.events_exchange()(channel).declare()
    except PreconditionFailed as error:
        # Somebody else's alternate exchange changes nothing here.
        if "'alternate-exchange'" not in str(error):
            raise


def _declare_net(channel: Any) -> None:
    known, check = (exchange(channel) for exchange in topology.net())
    known.declare()
    check.declare()


def _bind_net(channel: Any) -> None:
    known, check = (exchange(channel) for exchange in topology.net())
    for routing_key in topology.known_keys():
        known.bind_to(check, routing_key)
    check.bind_to(topology.events_exchange(), "#")


def _declare_or_find(
    connection: Connection, declare: Callable[..., object], *entities: Exchange | Queue
) -> None:
    """Declare on a channel of its own, since the broker closes the channel that it refuses."""
    try:
        with open_channel(connection) as channel:
            declare(channel=channel)
    except PreconditionFailed as error:
        raise TopologyDiffers(
            "The broker has something of this name with other properties, which can't be changed "
            f"while it lives: {error.reply_text}. docs/upgrading.md says what to do."
        ) from error
    except AccessRefused:
        for entity in entities:
            _find(connection, entity)


def _find(connection: Connection, entity: Exchange | Queue) -> None:
    try:
        with open_channel(connection) as channel:
            if isinstance(entity, Queue):
                entity(channel).queue_declare(passive=True)
            else:
                entity(channel).declare(passive=True)
    except NotFound as error:
        raise TopologyDiffers(
            f"{type(entity).__name__} {entity.name!r} is missing on the broker, whose user may not "
            "declare it. docs/upgrading.md says how to create everything once."
        ) from error


@contextmanager
def open_channel(connection: Connection) -> Iterator[Any]:
    """Open a channel, and close it also where the broker has closed it already."""
    channel: Any = connection.channel()
    try:
        yield channel
    finally:
        with suppress(*connection.connection_errors, *connection.channel_errors):
            channel.close()


class Depth(NamedTuple):
    """What the broker says of a queue."""

    waiting: int  # messages that no consumer has been given
    consumers: int | None  # None: a broker that does not know


def depths(connection: Connection) -> dict[str, Depth | None]:
    """Return what the broker says of each of our queues; None: it has no such queue.

    Raises:
        UNREACHABLE: it does not answer.
    """
    names = [queue.name for queue in queues()]
    found: dict[str, Depth | None] = dict.fromkeys(names)
    knows_consumers = connection.transport.driver_type == "amqp"
    while names:  # the broker closes a channel that has asked for what is not there
        with open_channel(connection) as channel, suppress(NotFound):
            while names:
                name = names.pop()
                answer = channel.queue_declare(name, passive=True)
                consumers = answer.consumer_count if knows_consumers else None
                found[name] = Depth(answer.message_count, consumers)
    return found


def connection_to_publish() -> Connection:
    """Return a connection, not opened yet, that gives up on a broker which does not answer."""
    return current_app.connection_for_write(
        heartbeat=0,  # nobody would send any while the connection is kept and idle
        transport_options={
            "confirm_publish": True,
            "read_timeout": BROKER_SECONDS,
            "write_timeout": BROKER_SECONDS,
        },
    )


def connect(connection: Connection) -> None:
    """Open a connection and declare everything, so that nothing is lost that is published."""
    connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
    declare(connection)


@contextmanager
def producer() -> Iterator[Producer]:
    """Open a producer whose every publish is confirmed, and refused if it reaches no queue."""
    with connection_to_publish() as connection:
        connect(connection)
        yield Producer(connection)


def publish(
    producer: Producer,
    body: bytes,
    *,
    routing_key: str,
    exchange: str | None = None,
    headers: dict[str, Any] | None = None,
) -> None:
    """Publish bytes as they are, to the exchange of the events unless another is named.

    Raises:
        amqp.exceptions.ChannelError: no queue takes it, or the broker refused it.
    """
    producer.publish(
        body,
        exchange=topology.events_exchange() if exchange is None else exchange,
        routing_key=routing_key,
        headers=headers or {},
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=PERSISTENT,
        mandatory=True,
        retry=True,
        retry_policy={"max_retries": 2, "interval_start": 0, "interval_max": 1},
        confirm_timeout=BROKER_SECONDS,
    )


def publish_to_consumers(
    producer: Producer, body: bytes, *, routing_key: str, headers: dict[str, Any]
) -> None:
    """Publish an event to all its consumers.

    Raises:
        amqp.exceptions.ChannelError: no queue takes it, or the broker refused it.
    """
    publish(producer, body, routing_key=routing_key, headers=headers)


def publish_to_queue(
    producer: Producer, body: bytes, *, queue: str, headers: dict[str, Any]
) -> None:
    """Publish to one queue alone, past the exchange that would copy it to others.

    Raises:
        amqp.exceptions.ChannelError: there is no such queue, or the broker refused it.
    """
    publish(producer, body, exchange="", routing_key=queue, headers=headers)
