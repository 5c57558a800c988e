"""Queues that exist with other properties, made anew without losing what is in them.

A queue's properties can't be changed while it lives. Its messages wait in a queue beside it while it is
deleted and declared again, and so does what is published meanwhile. Each message is confirmed in one
queue before it leaves the other: a crash can repeat one, and lose none.
"""

import struct
from collections.abc import Iterator
from typing import Any

from amqp import Message
from amqp.exceptions import NotFound, PreconditionFailed
from celery import current_app
from kombu import Connection, Queue

from booking_platform.messaging import broker, topology

# On the default exchange CC and BCC name queues; a user id must be that of whoever publishes.
LEFT_BEHIND = ("CC", "BCC", "user_id", "expiration", "x-delivery-count")


class StillConsumed(Exception):
    """A worker consumes this queue."""


def renew_queues() -> Iterator[str]:
    """Make each queue anew that is not as it must be; yield its name when that is done.

    Raises:
        StillConsumed: a worker is running.
    """
    options = {"confirm_publish": True}
    with current_app.connection_for_write(transport_options=options) as connection:
        if (
            connection.transport.driver_type == "amqp"
        ):  # the broker made of files minds no properties
            broker.declare_events_exchange(connection)
            for queue in broker.queues():
                if _renew(connection, queue):
                    yield queue.name
        broker.declare(connection)


def _renew(connection: Connection, queue: Queue) -> bool:
    aside = Queue(
        f"{queue.name}.aside",
        queue.exchange,
        routing_key=queue.routing_key,
        queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": topology.NEVER},
    )
    fits = _fits(connection, queue)
    if fits and not _exists(connection, aside):
        return False
    if not fits:
        with broker.open_channel(connection) as channel:
            _put_aside(channel, queue, aside)
    # A channel of its own: RabbitMQ remembers of which type a queue of this name was.
    with broker.open_channel(connection) as channel:
        _put_back(channel, queue, aside)
    return True


def _fits(connection: Connection, queue: Queue) -> bool:
    try:
        with broker.open_channel(connection) as channel:
            Queue.declare(queue(channel))
    except PreconditionFailed:
        return False
    return True


def _exists(connection: Connection, queue: Queue) -> bool:
    try:
        with broker.open_channel(connection) as channel:
            channel.queue_declare(queue.name, passive=True)
    except NotFound:
        return False
    return True


def _put_aside(channel: Any, queue: Queue, aside: Queue) -> None:
    if channel.queue_declare(queue.name, passive=True).consumer_count:
        raise StillConsumed(queue.name)
    Queue.declare(aside(channel))
    channel.queue_unbind(queue.name, aside.exchange.name, queue.routing_key)
    _move(channel, queue.name, aside.name)
    channel.queue_delete(queue.name)


def _put_back(channel: Any, queue: Queue, aside: Queue) -> None:
    Queue.declare(queue(channel))
    channel.queue_unbind(aside.name, aside.exchange.name, queue.routing_key)
    _move(channel, aside.name, queue.name)
    channel.queue_delete(aside.name)


def _move(channel: Any, source: str, target: str) -> None:
    while message := channel.basic_get(source):
        for copy in (_as_it_came, _body_alone):
            try:
                channel.basic_publish(copy(message), "", target, mandatory=True)
                break
            except (ValueError, TypeError, struct.error, RecursionError):
                continue  # properties that can be read but not written again
        channel.basic_ack(message.delivery_tag)


def _as_it_came(message: Any) -> Any:
    """Return a message without what would lead it elsewhere, let it expire, or have it refused."""
    kept = {name: value for name, value in message.properties.items() if name not in LEFT_BEHIND}
    headers = kept.get("application_headers") or {}
    named = {name: value for name, value in headers.items() if name not in LEFT_BEHIND}
    return Message(message.body, **kept | {"application_headers": named})


def _body_alone(message: Any) -> Any:
    return Message(message.body, delivery_mode=broker.PERSISTENT)
