"""A producer that writes AMQP 0-9-1 frames by itself, so that no client library tidies them up.

https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
"""

import socket
import struct
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
FRAME_MAX = 131_072
PERSISTENT = 2

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = 15, 14, 13, 12, 11
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE = 10, 9, 8, 7, 6, 5
USER_ID, APP_ID, CLUSTER_ID = 4, 3, 2


class Closed(Exception):
    """The broker has closed the channel or the connection over what was written."""


def short(text: bytes) -> bytes:
    return struct.pack("B", len(text)) + text


def long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def table(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a table of names and values; each value begins with the letter of its type."""
    return long(b"".join(short(name) + value for name, value in fields))


def array(*values: bytes) -> bytes:
    return b"A" + long(b"".join(values))


def text(value: bytes) -> bytes:
    return b"S" + long(value)


def nested(depth: int) -> bytes:
    """Return an array within an array, so many deep."""
    parts = []
    size = 0
    for _ in range(depth):
        parts.append(b"A" + struct.pack(">I", size))
        size += 5
    return b"".join(reversed(parts))


def properties(values: dict[int, bytes]) -> bytes:
    """Return a property list: by the number of each property's flag, the bytes of its value."""
    flags = sum(1 << bit for bit in values)
    return struct.pack(">H", flags) + b"".join(values[bit] for bit in sorted(values, reverse=True))


class FrameWriter:
    """A connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), timeout=60)
        self._input = self._socket.makefile("rb")
        self._published = 0
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(10, 10)
        plain = f"\0{user}\0{password}".encode()
        self._call(0, 10, 11, table() + short(b"PLAIN") + long(plain) + short(b"en_US"))
        self._expect(10, 30)
        self._call(0, 10, 31, struct.pack(">HIH", 1, FRAME_MAX, 0))
        vhost = unquote(parts.path[1:]) or "/"
        self._call(0, 10, 40, short(vhost.encode()) + b"\0\0")
        self._expect(10, 41)
        self._call(1, 20, 10, b"\0")
        self._expect(20, 11)
        self._call(1, 85, 10, b"\0")
        self._expect(85, 11)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._input.close()
        self._socket.close()

    def publish(
        self, body: bytes, *, key: bytes, exchange: bytes = b"", props: bytes = b"\0\0"
    ) -> None:
        """Publish, and return when the broker has it.

        Raises:
            Closed: the broker takes no such thing.
        """
        method = struct.pack(">HHH", 60, 40, 0) + short(exchange) + short(key) + b"\0"
        header = struct.pack(">HHQ", 60, 0, len(body)) + props
        frames = [(METHOD, method), (HEADER, header)]
        step = FRAME_MAX - 8
        frames += [(BODY, body[start : start + step]) for start in range(0, len(body), step)]
        try:
            self._socket.sendall(b"".join(self._frame(kind, 1, part) for kind, part in frames))
            self._published += 1
            self._await_confirm()
        except OSError as error:
            raise Closed(str(error)) from None

    def _await_confirm(self) -> None:
        confirmed = 0
        while confirmed < self._published:
            class_id, method, arguments = self._read_method()
            if (class_id, method) == (60, 80):
                (confirmed,) = struct.unpack_from(">Q", arguments)
            elif class_id in (10, 20) or (class_id, method) == (60, 120):
                raise Closed(repr(arguments[:200]))

    def _call(self, channel: int, class_id: int, method: int, arguments: bytes) -> None:
        payload = struct.pack(">HH", class_id, method) + arguments
        self._socket.sendall(self._frame(METHOD, channel, payload))

    def _expect(self, class_id: int, method: int) -> None:
        found = self._read_method()
        if found[:2] != (class_id, method):
            raise Closed(repr(found))

    def _read_method(self) -> tuple[int, int, bytes]:
        while True:
            head = self._input.read(7)
            if len(head) < 7:
                raise Closed("the connection is closed")
            kind, _, size = struct.unpack(">BHI", head)
            payload = self._input.read(size + 1)[:-1]
            if kind == METHOD:
                class_id, method = struct.unpack_from(">HH", payload)
                return class_id, method, payload[4:]

    @staticmethod
    def _frame(kind: int, channel: int, payload: bytes) -> bytes:
        return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END
