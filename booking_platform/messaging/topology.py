"""The names and properties of exchanges and queues, made from the registry of consumers.

``docs/architecture.md`` draws them; ``broker.py`` declares them.
"""

from typing import Any

import django
from django.apps import apps
from django.conf import settings
from kombu import Exchange, Queue

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging.rules import CONSUMERS, SWEEPS, Consumer, event_types, partitioned

MAINTENANCE = "maintenance"  # Celery's queue of the kernel's own tasks

# How often the broker hands a message over. For events it is the last resort, which only a worker
# that dies in its main process again and again can reach; a task message can be sent anew.
EVENT_DELIVERIES = 100_000
TASK_DELIVERIES = 1_000
NEVER = 2**31 - 1


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


def consumer_of(queue: str, routing_key: str) -> Consumer | None:
    """Return the consumer of a message in a queue of events, or in a partition."""
    for app, consumers in partitioned().items():
        if queue.startswith(partition_name(app, "")):
            return consumers.get(routing_key)
    return CONSUMERS.get(queue)


def known_keys() -> list[str]:
    """Return the routing keys that are no mistake: of what consumers take, and of what we announce."""
    return list(dict.fromkeys([*event_types(), *ANNOUNCEMENTS]))


def net() -> tuple[Exchange, Exchange]:
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
