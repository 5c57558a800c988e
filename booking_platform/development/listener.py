"""A listener: what anybody hears who binds a queue of their own to the announcements."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu import Connection, Consumer, Queue

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging.topology import events_exchange

Json = dict[str, Any]

EXPIRES = 600_000  # milliseconds after which the broker removes a queue that nobody has used
QUIET_SECONDS = 0.3  # without a message: all that is there has come


class Listener:
    """What has come into a queue that is bound to the keys of announcements."""

    def __init__(self, connect: Callable[[], Connection], keys: tuple[str, ...]) -> None:
        self._connect = connect
        self._name = f"listener-{uuid4().hex[:8]}"
        arguments = {"x-queue-type": "quorum", "x-expires": EXPIRES}
        exchange = events_exchange(no_declare=True)
        self._queues = [
            Queue(self._name, exchange, routing_key=key, queue_arguments=arguments) for key in keys
        ]
        self.heard: list[Json] = []  # each as it came, repeats among them
        self.keys: list[str] = []
        self.headers: list[Json] = []

    def listen(self) -> None:
        """Declare the queue and bind it."""
        with self._connect() as connection, connection.channel() as channel:
            events_exchange()(channel).declare()
            for queue in self._queues:
                queue(channel).declare()

    def hear(self) -> list[Json]:
        """Take what has come, and return all that has come so far."""
        with self._connect() as connection, connection.channel() as channel:
            queue = self._queues[0](channel)
            consumer = Consumer(channel, [queue], accept=None, on_message=self._take)
            with consumer, suppress(TimeoutError, Empty):
                while True:
                    connection.drain_events(timeout=QUIET_SECONDS)
        return self.heard

    def _take(self, message: Any) -> None:
        self.heard.append(json.loads(_body(message)))
        self.keys.append(message.delivery_info["routing_key"])
        self.headers.append(message.headers)
        message.ack()

    def once(self) -> list[Json]:
        """Return what has come, each event once, in the order in which they came first."""
        first: dict[str, Json] = {}
        for event in self.hear():
            first.setdefault(event["eventId"], event)
        return list(first.values())

    def of(self, event_type: str) -> list[Json]:
        """Return the payloads of one type that have come, each once."""
        return [event["payload"] for event in self.once() if event["eventType"] == event_type]

    def known(self, event_type: str) -> list[Json]:
        """Return the payloads of one type that were taken so far, repeats among them."""
        return [event["payload"] for event in self.heard if event["eventType"] == event_type]

    def close(self) -> None:
        with self._connect() as connection, connection.channel() as channel:
            self._queues[0](channel).delete()


@contextmanager
def listening(connect: Callable[[], Connection], *keys: str) -> Iterator[Listener]:
    """Listen to announcements under some keys, or under all of them."""
    listener = Listener(connect, keys or tuple(ANNOUNCEMENTS))
    listener.listen()
    try:
        yield listener
    finally:
        listener.close()


def _body(message: Any) -> bytes:
    return message.body if isinstance(message.body, bytes) else message.body.encode()
