"""Consume messages and acknowledge them, and nothing else, with py-amqp.

``python -m bench.floors.consume HOW QUEUE COUNT FROM BATCH`` says "begin" after FROM messages and "end" after
COUNT, and waits for a line each time; it acknowledges BATCH with one command. ``RABBITMQ_URL`` names the broker.
HOW is ``plain``, or ``at-once`` for frames that are read as a worker of the platform reads them.
"""

import os
import sys
from typing import Any

import amqp

from bench.broker import channel
from booking_platform.messaging.frame_reading import ReadsAtOnce


def main(how: str, queue: str, count: int, first: int, batch: int) -> None:
    taken = 0
    kind = {"plain": amqp.Connection, "at-once": ReadsAtOnce}[how]

    def take(message: Any) -> None:
        nonlocal taken
        taken += 1
        if taken % batch == 0 or taken == count:
            opened.basic_ack(message.delivery_tag, multiple=True)
        if taken in (first, count):
            print("begin" if taken == first else "end", flush=True)
            sys.stdin.readline()

    with channel(os.environ["RABBITMQ_URL"], kind) as opened:
        opened.basic_qos(0, 2 * batch, False)
        opened.basic_consume(queue, callback=take)
        while taken < count:
            opened.connection.drain_events()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
