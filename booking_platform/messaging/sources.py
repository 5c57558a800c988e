"""One queue as a worker consumes it: what waits, and what is answered."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from celery.utils.log import get_logger
from django.conf import settings
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from booking_platform.messaging import lenient_amqp
from booking_platform.messaging.groups import Delivery

logger = get_logger(__name__)

MOST_HELD = 32 * 1024 * 1024  # bytes of bodies that wait for a place in the pool
MOST_IN_GROUP = 4 * 1024 * 1024  # bytes of bodies that go to the pool at once


class Waiting(NamedTuple):
    """A message to be answered, and what the pool is told of it; nothing where it had no room."""

    message: Message
    delivery: Delivery | None


class Source:
    """One queue, consumed on a channel of its own: the queue of a delivery is never a guess."""

    def __init__(self, queue: Queue, task: str, batch: int) -> None:
        self.queue, self.task, self.batch = queue, task, batch
        self.waiting: deque[Waiting] = deque()
        self.failures = 0  # groups in a row that were not done
        self.in_pool = 0  # groups
        self._held = 0  # bytes of the bodies that wait
        self.channel: Any = None
        self.consumer: Consumer | None = None
        self._most_withheld = batch
        self._errors: tuple[
            type[BaseException], ...
        ] = ()  # of the connection: logged, and survived
        self._unanswered: dict[Any, None] = {}  # delivery tags, oldest first
        self._withheld: list[Message] = []  # to be acked together with what came before them

    def consume(self, connection: Connection, places: int, receive: Callable[..., None]) -> None:
        """Start consuming; ``receive`` is called with each message."""
        self._most_withheld = self.batch * places
        self._errors = connection.connection_errors
        self.channel = lenient_amqp.take_raw_bodies(connection.channel())
        self.consumer = Consumer(
            self.channel,
            [self.queue],
            on_message=receive,
            # What Kombu can't decode is taken like the rest: the task refuses it by its bytes.
            on_decode_error=lambda message, _error: receive(message),
            auto_declare=False,
            # A group in each place, as many withheld behind a slow one, and one to go next.
            prefetch_count=self.batch * (2 * places + 1),
        )
        self.consumer.consume()

    def receive(self, message: Message) -> None:
        """Add a message to those that wait, without its body where there is no room for it."""
        self._unanswered[message.delivery_tag] = None
        delivery = Delivery.of(
            message, most_bytes=settings.EVENT_MAX_BYTES, kept_bytes=lenient_amqp.KEPT_BYTES
        )
        if _is_amqp(message):  # the embedded broker puts back what it finds in the message
            message.body, message.headers, message.properties = None, {}, {}
        held = self._held + len(delivery.body)
        if held > MOST_HELD:
            self.waiting.append(Waiting(message, None))
        else:
            self._held = held
            self.waiting.append(Waiting(message, delivery))

    def next_group(self) -> list[Waiting]:
        """Return what goes together: up to a batch, and redelivered messages among themselves.

        What there was no room for goes back to its queue now, when there is room again. The group
        is empty where nothing else waits.
        """
        group: list[Waiting] = []
        size, kind = 0, self._kind(None)
        while self.waiting and len(group) < self.batch:
            message, delivery = self.waiting[0]
            if delivery is None:
                self.waiting.popleft()
                self.reject([message])
                continue
            size += len(delivery.body)
            if group and (size > MOST_IN_GROUP or self._kind(delivery) != kind):
                break
            kind = self._kind(delivery)
            self._held -= len(delivery.body)
            group.append(self.waiting.popleft())
        return group

    @property
    def has_place(self) -> bool:
        """Whether another of its groups may go to the pool, as far as this queue is concerned."""
        return True

    def task_of(self, delivery: Delivery) -> str:
        """Return the task that takes a delivery, and all of its group."""
        return self.task

    def _kind(self, delivery: Delivery | None) -> object:
        """Return what all deliveries of a group have in common."""
        return delivery and delivery.redelivered

    def ack(self, group: Sequence[Message], *, closing: bool) -> None:
        """Ack a group, together with others where one command can speak for all of them.

        RabbitMQ's client of a quorum queue sends 32 unanswered commands and holds the rest back; a
        channel that is closed then loses them. So acks wait for what is older, up to a limit that a
        group that hangs must not exceed, or until the channel is closed.
        """
        self._answered(group)
        if not _is_amqp(group[-1]):  # `multiple` means nothing there
            self._ack_each(group)
            return
        self._withheld += group
        self._ack_in_order()
        if len(self._withheld) > self._most_withheld and not closing:
            self._ack_each(self._withheld)
            self._withheld.clear()

    def reject(self, group: Sequence[Message]) -> None:
        """Return a group to its queue."""
        self._answered(group)
        for message in group:
            message.reject_log_error(logger, self._errors, requeue=True)
        self._ack_in_order()

    def return_waiting(self, ignore: Callable[..., Any]) -> None:
        """Return what is in no group yet; on AMQP the closing of the channel does it.

        Hundreds of rejects would hold back, and so lose, the acks that follow them.
        """
        self.return_failed([message for message, _ in self.waiting], ignore)
        self.waiting.clear()

    def return_failed(self, group: Sequence[Message], ignore: Callable[..., Any]) -> None:
        """Return a group that waits for the end of its pause, as ``return_waiting`` does."""
        for message in group:
            if not _is_amqp(message):
                ignore(message.requeue)

    def close(self, ignore: Callable[..., Any]) -> None:
        """Ack what is withheld, and close the channel."""
        self._errors = (Exception,)
        self._ack_in_order()
        self._ack_each(self._withheld)
        if self.channel is not None:
            ignore(self.channel.close)

    def _answered(self, group: Sequence[Message]) -> None:
        for message in group:
            self._unanswered.pop(message.delivery_tag, None)

    def _ack_each(self, group: Sequence[Message]) -> None:
        for message in group:
            message.ack_log_error(logger, self._errors)

    def _ack_in_order(self) -> None:
        """Ack with one command what is withheld and older than all that is unanswered."""
        oldest: Any = next(iter(self._unanswered), math.inf)
        self._withheld.sort(key=attrgetter("delivery_tag"))
        ready = bisect_left(self._withheld, oldest, key=attrgetter("delivery_tag"))
        if ready:
            self._withheld[ready - 1].ack_log_error(logger, self._errors, multiple=True)
            del self._withheld[:ready]


def _is_amqp(message: Message) -> bool:
    return isinstance(message.delivery_tag, int)
