"""Partitions as a worker consumes them, and how workers share them."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter

from kombu import Queue
from kombu.message import Message

from booking_platform.messaging import broker, clock
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.rules import Consumer
from booking_platform.messaging.sources import Source, Waiting

BALANCE_SECONDS = 2.0  # between looks whether this worker has more partitions than its share
# Seconds for which less than a full group waits while there is more to be spread.
LONGEST_WAIT = 10.0

_arrival = attrgetter("message.delivery_tag")  # it counts the deliveries of a channel


class Partition(Source):
    """One partition: events of several consumers, and one of its groups in the pool at a time.

    So the transactions of one partition follow each other, and can't lose races against each other.
    """

    def __init__(
        self, queue: Queue, consumers: Mapping[str, Consumer], upstream: Sequence[Source] = ()
    ) -> None:
        """``consumers`` are those of the app by routing key; ``upstream`` is what is spread."""
        self._upstream = upstream
        self.consumers = list(consumers.values())
        self.active = False  # whether the broker has given this worker anything of it
        self._tasks = {key: consumer.task for key, consumer in consumers.items()}
        self._last_group = clock.ticks()
        batch = min(consumer.batch for consumer in self.consumers)
        super().__init__(queue, self.consumers[0].task, batch)

    @property
    def has_place(self) -> bool:
        """While there is more to be spread, only a full group goes: a small one costs nearly as much.

        A partition that gets little has its turn all the same, after some time.
        """
        if self.in_pool:
            return False
        full = len(self.waiting) >= self.batch
        late = clock.ticks() - self._last_group > LONGEST_WAIT
        return full or late or not any(each.waiting for each in self._upstream)

    def receive(self, message: Message) -> None:
        self.active = True
        super().receive(message)

    def next_group(self) -> list[Waiting]:
        """Return what goes together: what is of the kind of the oldest, past what is not.

        The rest waits in the order in which it came, so that no kind waits for the end of another.
        """
        if self.waiting and (first := self.waiting[0].delivery):
            kind = self._kind(first)
            self.waiting = deque(
                sorted(self.waiting, key=lambda each: self._kind(each.delivery) != kind)
            )
        if group := super().next_group():
            self._last_group = clock.ticks()
        self.waiting = deque(sorted(self.waiting, key=_arrival))
        return group

    def task_of(self, delivery: Delivery) -> str:
        """Return the task of the consumer that takes this routing key; any refuses what has another."""
        return self._tasks.get(delivery.routing_key, self.task)

    def _kind(self, delivery: Delivery | None) -> object:
        return delivery and (delivery.redelivered, self.task_of(delivery))

    def step_back(self) -> None:
        """Let the worker that has waited longest have the partition, and wait behind all others.

        What this worker holds of it, it still applies: for a moment two workers do.
        """
        assert self.consumer is not None
        self.consumer.cancel()  # what was on its way still comes before the broker's answer
        self.active = False
        self.consumer.consume()


class Balance:
    """The share of the partitions that this worker has.

    The broker gives a partition to the first worker that asks, so that one which starts before the others
    has them all. A worker steps back from what is more than its share.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.partitions = partitions

    def restore(self) -> None:
        """Step back from the partitions that are more than the share of this worker."""
        active = [each for each in self.partitions if each.active and each.consumer is not None]
        if not active:
            return
        share = math.ceil(len(self.partitions) / max(1, _workers(active[0])))
        for each in active[share:]:
            each.step_back()


def _workers(partition: Partition) -> int:
    """Return how many workers there are: each consumes the queue of the first consumer, too.

    Asked on a channel of its own, since the broker closes the channel that asks for what is not there.
    """
    with broker.open_channel(partition.channel.connection.client) as channel:
        queue = channel.queue_declare(partition.consumers[0].queue, passive=True)
        return int(queue.consumer_count)
