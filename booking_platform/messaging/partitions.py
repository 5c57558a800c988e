"""Events spread over partitions by what they are about, where ``EVENT_PARTITIONS`` is set.

Producers know nothing of it. A group from a consumer's own queue is published on to the partitions, and
acknowledged once the broker has confirmed all of it; a crash in between publishes it again, and the
repeats have no effect. A message is not decoded here: what ends a decoder does so in its partition,
where it is on trial (``suspects.py``).
"""

import re
import threading
from collections.abc import Sequence
from functools import cache
from zlib import crc32

from django.conf import settings

from booking_platform.contract.envelope import Payload
from booking_platform.messaging import inbox, topology
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.outbox import BrokerRefused
from booking_platform.messaging.publishing import Outgoing, Publisher
from booking_platform.messaging.rules import Consumer

_kept = threading.local()  # a connection for each thread that spreads events


def process(consumer: Consumer, deliveries: Sequence[Delivery], *, came_from: str) -> None:
    """Apply a group, or publish it on to the partitions; the return is the ack.

    Applied in place is what comes out of a partition, and what can't be spread as it came: it is to be
    parked.

    Raises:
        BrokerRefused: a partition is full or has no majority; the group goes back to its queue.
        UNREACHABLE: the broker is away; the group goes back to its queue.
    """
    if came_from != consumer.queue or not (settings.EVENT_PARTITIONS and consumer.partition_by):
        inbox.process(consumer, deliveries)
        return
    outgoing, here = spread(consumer, deliveries)
    if outgoing:
        _publish(outgoing)
    if here:
        inbox.process(consumer, here)


def spread(
    consumer: Consumer, deliveries: Sequence[Delivery]
) -> tuple[list[Outgoing], list[Delivery]]:
    """Return what goes to the partitions, and what can't: it is cut, no event, or names no value."""
    outgoing: list[Outgoing] = []
    here: list[Delivery] = []
    for delivery in deliveries:
        about = _about(consumer, delivery)
        if about is None:
            here.append(delivery)
        else:
            outgoing.append(_to_partition(consumer, delivery, about))
    return outgoing, here


def _to_partition(consumer: Consumer, delivery: Delivery, about: bytes) -> Outgoing:
    number = crc32(about) % settings.EVENT_PARTITIONS
    exchange = topology.partition_name(consumer.task_queue, number)
    return Outgoing(
        consumer.routing_key, delivery.body, delivery.trace, exchange, delivery.replay_of
    )


def _about(consumer: Consumer, delivery: Delivery) -> bytes | None:
    """Return the value by which a delivery is spread; none where it can't be spread.

    A body that holds it twice may be spread by the wrong one: the optimistic lock does not rest on it.
    """
    if delivery.size or delivery.task:  # cut, or no event
        return None
    found = _pattern(consumer.payload, consumer.partition_by or "").search(delivery.body)
    return found[1] if found else None


@cache
def _pattern(payload: type[Payload], field: str) -> re.Pattern[bytes]:
    """Return what finds a number, or a text without escapes, under the field's name in JSON."""
    names = dict(zip(payload.__struct_fields__, payload.__struct_encode_fields__, strict=True))
    return re.compile(
        rb'"%b"\s*+:\s*+("[^"\\]{1,255}+"|[^",\s}\]]{1,255}+)' % names[field].encode()
    )


def _publish(messages: Sequence[Outgoing]) -> None:
    if not hasattr(_kept, "publisher"):
        _kept.publisher = Publisher()
    publisher: Publisher = _kept.publisher
    confirmed = publisher.publish(messages)
    if confirmed < len(messages):
        publisher.close()  # what it may still answer is published again
        raise BrokerRefused(
            f"the broker did not take what belongs to {messages[confirmed].exchange}: it may be full, or "
            "have no majority of its nodes"
        )
