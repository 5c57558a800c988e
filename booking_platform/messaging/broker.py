"""Exchanges and queues, made from the registry of consumers, and publishing to them.

``docs/architecture.md`` draws them. Everything is published as plain bytes, persistent, and confirmed
by the broker.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
from celery import current_app
from django.apps import apps
from django.conf import settings
from kombu import Connection, Exchange, Producer, Queue

from booking_platform.messaging.rules import CONSUMERS, SWEEPS, Consumer

MAINTENANCE = "maintenance"  # Celery's queue of the kernel's own tasks

BROKER_SECONDS = 5  # a broker that is frozen ends in an error, not in a request that hangs
PERSISTENT = 2  # AMQP 0-9-1, basic class, delivery-mode


def events_exchange() -> Exchange:
    """Return the exchange to which producers publish, and the platform too."""
    return Exchange(settings.EVENTS_EXCHANGE, type="topic", durable=True)


def dead_letter_queue() -> Queue:
    """Return the queue of what the broker gives up on, with its exchange.

    A classic queue: RabbitMQ 4 gives quorum queues a delivery limit of their own, and a dead
    letter must have no limit after which it is dropped.
    """
    name = f"{settings.EVENTS_EXCHANGE}.dead-letter"
    return Queue(name, Exchange(name, type="fanout", durable=True), durable=True)


def task_queues() -> list[str]:
    """Return the names of Celery's queues: the kernel's own, and one for each app that takes part.

    Celery's own commands (``call``, ``purge``) ask before anybody has set Django up.
    """
    if not apps.ready:
        django.setup()
    consuming = [each.task_queue for each in CONSUMERS.values()]
    return list(dict.fromkeys([MAINTENANCE, *consuming, *map(_app, SWEEPS)]))


class TaskQueues:
    """Celery's queues, read from the registry when Celery first asks for them."""

    def __iter__(self) -> Iterator[Queue]:
        return (Queue(name, Exchange(name), routing_key=name) for name in task_queues())


def route(name: str, *_args: Any, **_options: Any) -> dict[str, str]:
    """Route a Celery task to the queue of its app, which its name begins with."""
    app = _app(name)
    return {"queue": app if app in task_queues() else MAINTENANCE}


def _app(task: str) -> str:
    return task.partition(".")[0]


def event_queue(consumer: Consumer) -> Queue:
    """Return the queue of a consumer as the broker has it.

    A quorum queue returns what a dead worker held, counts the deliveries, and hands what is over
    the limit to the dead-letter exchange at least once (RabbitMQ, "Quorum Queues").
    """
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": settings.EVENT_DELIVERY_LIMIT,
        "x-dead-letter-exchange": dead_letter_queue().exchange.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering requires it
    }
    return Queue(
        consumer.queue,
        events_exchange(),
        routing_key=consumer.routing_key,
        durable=True,
        queue_arguments=arguments,
    )


def declare(connection: Connection) -> None:
    """Declare everything, whatever this process consumes.

    A dead letter that no queue is bound for would be lost.

    Raises:
        amqp.PreconditionFailed: a queue exists with other arguments.
    """
    with connection.channel() as channel:
        for queue in (dead_letter_queue(), *map(event_queue, CONSUMERS.values())):
            queue(channel).declare()


@contextmanager
def producer() -> Iterator[Producer]:
    """Open a producer whose every publish is confirmed, and refused if it reaches no queue."""
    with current_app.connection_for_write(
        transport_options={
            "confirm_publish": True,
            "read_timeout": BROKER_SECONDS,
            "write_timeout": BROKER_SECONDS,
        }
    ) as connection:
        declare(connection)
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
        retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 1},
        confirm_timeout=BROKER_SECONDS,
    )


def publish_to_queue(queue: str, body: bytes, *, headers: dict[str, Any]) -> None:
    """Publish to one queue alone, past the exchange that would copy it to others.

    Raises:
        amqp.exceptions.ChannelError: there is no such queue, or the broker refused it.
    """
    with producer() as opened:
        publish(opened, body, exchange="", routing_key=queue, headers=headers)
