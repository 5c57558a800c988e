"""Many announcements published in one go, in their order, each confirmed by the broker.

Kombu publishes one message at a time and waits for its confirm. Here the frames of many are written at
once, and their confirms are read together: a quorum queue confirms hundreds as fast as one.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from struct import Struct, pack
from typing import Any, NamedTuple

from amqp import Message as AmqpMessage
from django.conf import settings
from kombu import Connection, Producer

from booking_platform.contract import trace_context
from booking_platform.messaging import broker
from booking_platform.messaging.broker import BROKER_SECONDS, PERSISTENT, UNREACHABLE
from booking_platform.messaging.groups import REPLAY_HEADER

# AMQP 0-9-1: types of frames, the class basic, its method publish, and how a frame ends.
_METHOD, _HEADER, _BODY, _BASIC, _PUBLISH, _END = 1, 2, 3, 60, 40, b"\xce"
_FRAME_OVERHEAD = 8  # bytes
_start = Struct(">BHI").pack  # of a frame: its type, its channel, the length of what follows
_SIZED = Struct(
    ">HHQ"
)  # how a header begins: the class, a weight that is 0, the length of the body

GO_SECONDS = 10  # for the answers to one go: the transaction around it may be idle for 30 s

_PLACE = "\0" * trace_context.PARENT_LENGTH  # no trace can hold it


class Outgoing(NamedTuple):
    """A message to be published to the exchange of the events, unless another is named."""

    routing_key: str
    body: bytes
    trace: str = ""  # of contract/trace_context.py, of what caused it; empty: none is known
    exchange: str = ""
    replay_of: str = ""  # the token of the dead letter that this is the replay of


class Publisher:
    """A kept connection to the broker, for one thread."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._channel: Any = None
        self._fresh = True  # nothing was published over it yet
        self._next = 1  # the number of the next message on the channel
        self.late = False  # whether some of the last go were not answered in time

    def publish(self, messages: Sequence[Outgoing]) -> int:
        """Publish messages in their order; return how many of them, from the first on, are confirmed.

        They are written at once: they must fit into what the broker reads in a moment. One that the
        broker has refused, as a queue that is full makes it do, ends the count, though later ones may
        have gone out. Nobody need listen: a message that no queue takes is confirmed. One that is not
        answered in time ends the count, too; then ``late`` is set.

        Raises:
            UNREACHABLE: the broker is away, or does not answer; any of the messages may have gone out.
        """
        while True:
            try:
                self.open()
                confirmed = self._publish(messages)
            except UNREACHABLE:
                kept = not self._fresh
                self.close()
                if not kept:  # a kept connection may have broken long ago
                    raise
            except BaseException:
                self.close()
                raise
            else:
                self._fresh = False
                return confirmed

    def close(self) -> None:
        """Close the connection; the next publish opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(*UNREACHABLE):
                connection.collect(socket_timeout=0.2)

    def open(self) -> None:
        """Connect, unless it is connected.

        Raises:
            UNREACHABLE: the broker is away, or does not answer.
        """
        if self._connection is not None:
            return
        self._fresh = True
        self._connection = connection = broker.connection_to_publish()
        broker.connect(connection)
        if connection.transport.driver_type == "amqp":
            self._channel = connection.channel()
            self._channel.confirm_select()
            self._next = 1

    def _publish(self, messages: Sequence[Outgoing]) -> int:
        if self._channel is None:
            producer = Producer(self._connection)  # type: ignore[arg-type]  # it is open
            for message in messages:
                broker.publish(
                    producer,
                    message.body,
                    routing_key=message.routing_key,
                    headers=trace_context.as_headers(message.trace),
                )
            return len(messages)
        channel, amqp = self._channel, self._channel.connection
        confirms = _Confirms(channel, self._next, len(messages))
        self._next += len(messages)
        amqp.transport.write(_frames(channel.channel_id, amqp.frame_max, messages))
        end = time.monotonic() + GO_SECONDS
        while confirms.waiting and time.monotonic() < end:
            try:
                amqp.drain_events(timeout=BROKER_SECONDS)
            except TimeoutError:
                if not confirms.in_order:
                    raise
                break  # what was confirmed counts, or a slow broker would be sent the same for ever
        self.late = bool(confirms.waiting)
        return confirms.in_order


class _Confirms:
    """The broker's answers to messages, which it counts by channel."""

    def __init__(self, channel: Any, first: int, count: int) -> None:
        self.waiting = set(range(first, first + count))
        self._first, self._end = first, first + count
        self._lowest = first  # that an answer to several may speak of
        self._refused: set[int] = set()
        channel.events["basic_ack"] = {self._acked}
        channel.events["basic_nack"] = {self._nacked}

    @property
    def in_order(self) -> int:
        """Return how many were confirmed before the first that was refused, or is not answered."""
        return min(self._refused | self.waiting, default=self._end) - self._first

    def _acked(self, tag: int, multiple: bool) -> None:
        self._answered(tag, multiple)

    def _nacked(self, tag: int, multiple: bool) -> None:
        self._refused |= self._answered(tag, multiple)

    def _answered(self, tag: int, multiple: bool) -> set[int]:
        answered = {tag}
        if multiple:
            answered = self.waiting.intersection(range(self._lowest, tag + 1))
            self._lowest = tag + 1
        self.waiting -= answered
        return answered


def _frames(channel: int, frame_max: int, messages: Sequence[Outgoing]) -> bytes:
    """Return the frames that publish messages on a channel."""
    parts: list[bytes] = []
    most, exchange = frame_max - _FRAME_OVERHEAD, settings.EVENTS_EXCHANGE
    for message in messages:
        body, properties = message.body, _properties(message.trace, message.replay_of)
        parts += (
            _method_frame(channel, message.exchange or exchange, message.routing_key),
            _start(_HEADER, channel, _SIZED.size + len(properties)),
            _SIZED.pack(_BASIC, 0, len(body)),
            properties,
            _END,
        )
        for start in range(0, len(body), most):
            piece = body[start : start + most]
            parts += (_start(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


@cache
def _method_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    names = (name.encode() for name in (exchange, routing_key))
    texts = b"".join(bytes([len(name)]) + name for name in names)
    content = pack(">HHH", _BASIC, _PUBLISH, 0) + texts + b"\0"
    return _start(_METHOD, channel, len(content)) + content + _END


def _properties(trace: str, replay_of: str = "") -> bytes:
    """Return the properties of a message. They are made once for all that differ by their parent only."""
    if replay_of:
        return _made_properties(trace, replay_of)
    if not trace:
        return _made_properties("")
    parent, state = trace_context.parent(trace), trace_context.state(trace)
    if len(parent) != trace_context.PARENT_LENGTH:  # none; its place has exactly as many bytes
        return _made_properties("")
    made = _made_properties(f"{_PLACE} {state}" if state else _PLACE)
    return made.replace(_PLACE.encode(), parent.encode("ascii", "replace"))


@lru_cache(maxsize=128)
def _made_properties(trace: str, replay_of: str = "") -> bytes:
    replay = {REPLAY_HEADER: replay_of} if replay_of else {}
    message = AmqpMessage(
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=PERSISTENT,
        application_headers=replay | trace_context.as_headers(trace),
    )
    return bytes(message._serialize_properties())  # type: ignore[attr-defined]  # no public name
