"""The broker of a benchmark: messages published with confirms, and what is left in a queue."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import amqp
from kombu.utils.url import parse_url

UNCONFIRMED = 1000  # the most messages that wait for their confirm at once
PATIENCE = 60  # seconds for an answer of the broker


class Outgoing(NamedTuple):
    """A message, and where it goes."""

    exchange: str
    routing_key: str
    message: amqp.Message


class NotConfirmed(Exception):
    """The broker has refused a message: the run would lack it."""


@contextmanager
def channel(url: str, kind: type[amqp.Connection] = amqp.Connection) -> Iterator[Any]:
    """Run a block with a channel of a connection of its own."""
    parts = parse_url(url)
    connection = kind(
        f"{parts['hostname']}:{parts['port'] or 5672}",
        userid=parts["userid"] or "guest",
        password=parts["password"] or "guest",
        virtual_host=parts["virtual_host"] or "/",
    )
    with connection:
        yield connection.channel()


class Publisher:
    """Publishes on a channel with confirms, many of them outstanding, as RabbitMQ asks of clients.

    A quorum queue drops what its client has not handed on yet when the channel is closed, so that a
    message which is not confirmed may be lost.
    """

    def __init__(self, opened: Any) -> None:
        self._channel = opened
        self._channel.confirm_select()
        self._channel.events["basic_ack"] = {self._acked}
        self._channel.events["basic_nack"] = {self._refused}
        self._sent = 0
        self._waiting: set[int] = set()
        self._lowest = 1  # that an answer to several may speak of

    def publish(self, outgoing: Outgoing) -> None:
        """Send a message; wait only where too many are unconfirmed.

        Raises:
            NotConfirmed: the broker has refused one.
        """
        self._sent += 1
        self._waiting.add(self._sent)
        self._channel._basic_publish(outgoing.message, outgoing.exchange, outgoing.routing_key)
        if len(self._waiting) > UNCONFIRMED:
            self.wait(UNCONFIRMED // 2)

    def wait(self, most: int = 0) -> None:
        """Return when no more than ``most`` messages wait for their confirm.

        Raises:
            NotConfirmed: the broker has refused one.
            TimeoutError: it does not answer.
        """
        while len(self._waiting) > most:
            self._channel.connection.drain_events(timeout=PATIENCE)

    def _acked(self, tag: int, multiple: bool) -> None:
        first = self._lowest if multiple else tag
        self._waiting.difference_update(range(first, tag + 1))
        if multiple:
            self._lowest = tag + 1

    def _refused(self, tag: int, multiple: bool) -> None:
        raise NotConfirmed(f"message {tag}{' and earlier ones' if multiple else ''}")


def publish(url: str, messages: Iterable[Outgoing], pause: float = 0.0) -> None:
    """Publish messages and return when the broker has confirmed them all.

    With a ``pause`` (seconds) each is sent when its turn has come, whatever becomes of the others: a
    message is taken from the iterable just before it is sent.
    """
    with channel(url) as opened:
        publisher = Publisher(opened)
        start = time.perf_counter()
        source = iter(messages)
        for ordinal in count():
            if pause:
                time.sleep(max(0.0, start + ordinal * pause - time.perf_counter()))
            outgoing = next(source, None)
            if outgoing is None:
                break
            publisher.publish(outgoing)
        publisher.wait()


def waiting(url: str, queue: str) -> int:
    """Return how many messages of a queue are ready to be delivered."""
    with channel(url) as opened:
        return int(opened.queue_declare(queue, passive=True).message_count)


def purge(url: str, queues: Iterable[str]) -> None:
    """Remove what is left in queues."""
    with channel(url) as opened:
        for queue in queues:
            opened.queue_purge(queue)
