"""Exchanges and queues, made from the registry of consumers, and publishing to them.

``docs/architecture.md`` draws them. Everything is published as plain bytes, persistent, and confirmed
by the broker.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import django
from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotFound, PreconditionFailed
from celery import current_app
from django.apps import apps
from django.conf import settings
from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import KombuError

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging.rules import CONSUMERS, SWEEPS, Consumer, event_types, partitioned

MAINTENANCE = "maintenance"  # Celery's queue of the kernel's own tasks

# How often the broker hands a message over. For events it is the last resort, which only a worker
# that dies in its main process again and again can reach; a task message can be sent anew.
EVENT_DELIVERIES = 100_000
TASK_DELIVERIES = 1_000
NEVER = 2**31 - 1

BROKER_SECONDS = 5  # a broker that is frozen ends in an error, not in a request that hangs
PERSISTENT = 2  # AMQP 0-9-1, basic class, delivery-mode


class TopologyDiffers(Exception):
    """The broker's exchanges and queues are not what they must be; the message says what to do."""


# What publishing raises where the broker is away, frozen, full, or refuses.
UNREACHABLE = (OSError, AMQPError, MessageNacked, KombuError, TopologyDiffers)


def events_exchange(**options: Any) -> Exchange:
    """Return the exchange to which producers publish, and the platform too."""
    return Exchange(settings.EVENTS_EXCHANGE, type="topic", durable=True, **options)


def dead_letter_queue() -> Queue:
    """Return the queue of what the broker gives up on, with its exchange."""
    name = f"{settings.EVENTS_EXCHANGE}.dead-letter"
    return _last_stop(name)


def unroutable_queue() -> Queue:
    """Return the queue of events whose routing key no consumer has, with its exchange."""
    name = f"{settings.EVENTS_EXCHANGE}.unroutable"
    return _last_stop(name, **_given_up_as(name))  # what a producer lets expire, among others


def _given_up_as(name: str) -> dict[str, str]:
    """Return the arguments by which a queue hands what it gives up to the dead letters, confirmed."""
    return {
        "x-dead-letter-exchange": dead_letter_queue().exchange.name,
        "x-dead-letter-routing-key": name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering requires it
    }


def _last_stop(name: str, **more: str) -> Queue:
    """Return a queue from which nothing may be dropped, however often it was handed over.

    -1, for no limit, is refused by RabbitMQ 3.
    """
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": NEVER, **more}
    exchange = Exchange(name, type="fanout", durable=True)
    return Queue(name, exchange, durable=True, queue_arguments=arguments)


def task_queues() -> list[str]:
    """Return the names of Celery's queues: the kernel's own, and one for each app that takes part.

    Celery's own commands (``call``, ``purge``) ask before anybody has set Django up.
    """
    if not apps.ready:
        django.setup()
    consuming = [each.task_queue for each in CONSUMERS.values()]
    return list(dict.fromkeys([MAINTENANCE, *consuming, *map(_app, SWEEPS)]))


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
        return f"<one for each of {', '.join(task_queues())}>"

    def __iter__(self) -> Iterator[Queue]:
        return map(_task_queue, task_queues())


def _task_queue(name: str) -> Queue:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": TASK_DELIVERIES}
    return TaskQueue(name, Exchange(name), routing_key=name, queue_arguments=arguments)


def route(name: str, *_args: Any, **_options: Any) -> dict[str, str]:
    """Route a Celery task to the queue of its app, which its name begins with."""
    app = _app(name)
    return {"queue": app if app in task_queues() else MAINTENANCE}


def _app(task: str) -> str:
    return task.partition(".")[0]


def event_queue(consumer: Consumer) -> Queue:
    """Return the queue of a consumer as the broker has it.

    A quorum queue returns what a dead worker held, and hands what is over the limit to the
    dead-letter exchange at least once (RabbitMQ, "Quorum Queues"), under the name of this queue.
    """
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": EVENT_DELIVERIES,
        **_given_up_as(consumer.queue),
    }
    return Queue(
        consumer.queue,
        events_exchange(no_declare=True),  # the queue's declaration would declare it once more
        routing_key=consumer.routing_key,
        durable=True,
        queue_arguments=arguments,
    )


def partition(app: str, number: int) -> Queue:
    """Return the queue of a partition, with its exchange, as the broker has them.

    One worker at a time consumes it (RabbitMQ, "Single Active Consumer"). Messages keep the routing key
    of their events, by which their consumer is known.
    """
    name = partition_name(app, number)
    last_stop = {"alternate-exchange": unroutable_queue().exchange.name}
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": EVENT_DELIVERIES,
        "x-single-active-consumer": True,
        **_given_up_as(name),
    }
    del arguments["x-dead-letter-routing-key"]
    exchange = Exchange(name, type="fanout", durable=True, arguments=last_stop)
    return Queue(name, exchange, durable=True, queue_arguments=arguments)


def partition_name(app: str, number: int | str) -> str:
    """Return the name of a partition's queue, and of its exchange."""
    return f"{settings.EVENTS_EXCHANGE}.{app}.partition-{number}"


def partitions(app: str) -> list[Queue]:
    """Return the partitions over which the events of an app are spread."""
    return [partition(app, number) for number in range(settings.EVENT_PARTITIONS)]


def former_partitions(connection: Connection, app: str) -> list[Queue]:
    """Return the partitions that the broker has from when there were more; they may hold events."""
    found: list[Queue] = []
    if connection.transport.driver_type == "amqp":
        with open_channel(connection) as channel, suppress(NotFound):
            while True:
                queue = partition(app, settings.EVENT_PARTITIONS + len(found))
                channel.queue_declare(queue.name, passive=True)
                found.append(queue)
    return found


def consumer_of(queue: str, routing_key: str) -> Consumer | None:
    """Return the consumer of a message in a queue of events, or in a partition."""
    for app, consumers in partitioned().items():
        if queue.startswith(partition_name(app, "")):
            return consumers.get(routing_key)
    return CONSUMERS.get(queue)


def queues() -> list[Queue]:
    """Return all queues: those of the consumers, Celery's, and the last stops, which come first."""
    last_stops = [dead_letter_queue(), unroutable_queue()]
    spread = [queue for app in partitioned() for queue in partitions(app)]
    return [*last_stops, *map(event_queue, CONSUMERS.values()), *spread, *TaskQueues()]


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
        _declare_or_find(connection, _declare_net, *_net())
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
    _declare_or_find(connection, _declare_as_producers_do, events_exchange())


def _declare_as_producers_do(channel: Any) -> None:
    try:
        events_exchange()(channel).declare()
    except PreconditionFailed as error:
        # Somebody else's alternate exchange changes nothing here.
        if "'alternate-exchange'" not in str(error):
            raise


def known_keys() -> list[str]:
    """Return the routing keys that are no mistake: of what consumers take, and of what we announce."""
    return list(dict.fromkeys([*event_types(), *ANNOUNCEMENTS]))


def _net() -> tuple[Exchange, Exchange]:
    """Return the exchanges that find events whose routing key no consumer has.

    ``booking-events`` is the producers': whether it has an alternate exchange can't be changed any
    more, and one that has it refuses the declaration of a producer who does not know. So every event
    is also routed to an exchange of ours, which knows the keys that are in use and has the alternate.
    """
    name = settings.EVENTS_EXCHANGE
    arguments = {"alternate-exchange": unroutable_queue().exchange.name}
    return (
        Exchange(f"{name}.known", type="fanout", durable=True),  # needs no queue
        Exchange(f"{name}.check", type="topic", durable=True, arguments=arguments),
    )


def _declare_net(channel: Any) -> None:
    known, check = (exchange(channel) for exchange in _net())
    known.declare()
    check.declare()


def _bind_net(channel: Any) -> None:
    known, check = (exchange(channel) for exchange in _net())
    for routing_key in known_keys():
        known.bind_to(check, routing_key)
    check.bind_to(events_exchange(), "#")


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
        exchange=events_exchange() if exchange is None else exchange,
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
