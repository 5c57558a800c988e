"""Exchanges, queues and bindings, as data. ``docs/architecture.md`` draws them."""

from dataclasses import dataclass
from typing import Any

from kombu import Connection, Exchange, Queue

from booking_platform.messaging.events import BookingCancelled, BookingCreated

EVENTS = Exchange("booking-events", type="topic", durable=True)
DEAD_LETTERS = Exchange("booking-events.dead-letter", type="fanout", durable=True)

# A classic queue: RabbitMQ 4 gives quorum queues a delivery limit of their own, and a dead
# letter must have no limit after which it is dropped.
DEAD_LETTER_QUEUE = Queue("booking-events.dead-letter", DEAD_LETTERS, durable=True)


@dataclass(frozen=True)
class EventQueue:
    """One consumer's queue of one type of event."""

    name: str
    routing_key: str
    payload_type: type
    task_queue: str  # Celery's queue whose workers (`-Q`) take these events too
    batch: int  # events a group at most: many for a database, one for a network


CREATED_FOR_CATALOG = EventQueue(
    "tour-catalog.booking-created", "booking.created", BookingCreated, "catalog", batch=200
)
CANCELLED_FOR_CATALOG = EventQueue(
    "tour-catalog.booking-cancelled", "booking.cancelled", BookingCancelled, "catalog", batch=200
)
CANCELLED_FOR_PAYMENTS = EventQueue(
    "payment-gateway.booking-cancelled", "booking.cancelled", BookingCancelled, "payments", batch=1
)
CANCELLED_FOR_NOTIFICATIONS = EventQueue(
    "notification.booking-cancelled",
    "booking.cancelled",
    BookingCancelled,
    "notifications",
    batch=1,
)
EVENT_QUEUES = (
    CREATED_FOR_CATALOG,
    CANCELLED_FOR_CATALOG,
    CANCELLED_FOR_PAYMENTS,
    CANCELLED_FOR_NOTIFICATIONS,
)
ROUTING_KEYS = {queue.routing_key: queue.payload_type for queue in EVENT_QUEUES}
TASK_QUEUES = ("maintenance", *dict.fromkeys(queue.task_queue for queue in EVENT_QUEUES))


def broker_queue(queue: EventQueue, *, delivery_limit: int) -> Queue:
    """Give the broker's side of an event queue.

    A quorum queue returns what a dead worker held, counts the deliveries, and hands what is over
    the limit to the dead-letter exchange at least once (RabbitMQ, "Quorum Queues").
    """
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": delivery_limit,
        "x-dead-letter-exchange": DEAD_LETTERS.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering requires it
    }
    return Queue(
        queue.name, EVENTS, routing_key=queue.routing_key, durable=True, queue_arguments=arguments
    )


def declare(connection: Connection, *, delivery_limit: int) -> None:
    """Declare everything, whatever this process consumes: a dead letter without a bound queue
    would be lost.

    Raises:
        amqp.PreconditionFailed: a queue exists with other arguments.
    """
    with connection.channel() as channel:
        for queue in (
            DEAD_LETTER_QUEUE,
            *(broker_queue(queue, delivery_limit=delivery_limit) for queue in EVENT_QUEUES),
        ):
            queue(channel).declare()
