"""Consume messages and acknowledge them, and nothing else, with py-amqp.

``python -m bench.floors.consume QUEUE COUNT FROM BATCH`` says "begin" after FROM messages and "end" after
COUNT; it acknowledges BATCH with one command. ``RABBITMQ_URL`` names the broker.
"""

import os
import sys
from typing import Any

from bench.broker import channel


def main(queue: str, count: int, first: int, batch: int) -> None:
    taken = 0

    def take(message: Any) -> None:
        nonlocal taken
        taken += 1
        if taken % batch == 0 or taken == count:
            opened.basic_ack(message.delivery_tag, multiple=True)
        if taken in (first, count):
            print("begin" if taken == first else "end", flush=True)

    with channel(os.environ["RABBITMQ_URL"]) as opened:
        opened.basic_qos(0, 2 * batch, False)
        opened.basic_consume(queue, callback=take)
        while taken < count:
            opened.connection.drain_events()
        sys.stdin.read(1)  # it is asked to end when its CPU time was read


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
