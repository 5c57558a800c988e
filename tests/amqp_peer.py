"""A broker that knows one connection, and writes what a test tells it to, cut where the test says."""

import queue
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import methodcaller
from types import TracebackType
from typing import Any, Self

from tests.amqp_frames import BODY, FRAME_MAX, HEADER, METHOD, long, short, table

Method = tuple[int, int]  # class and method, as AMQP numbers them

START, TUNE, OPEN_OK, CLOSE, CLOSE_OK = (10, 10), (10, 30), (10, 41), (10, 50), (10, 51)
CHANNEL_OPEN, CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 10), (20, 40), (20, 41)
DECLARE, QOS, CONSUME, CONSUME_OK = (50, 10), (60, 10), (60, 20), (60, 21)
CANCEL, DELIVER, ACK = (60, 30), (60, 60), (60, 80)

HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, name: Method, arguments: bytes = b"") -> bytes:
    return frame(METHOD, channel, struct.pack(">HH", *name) + arguments)


def delivery(
    body: bytes,
    *,
    tag: int = 1,
    channel: int = 1,
    most: int = FRAME_MAX - 8,
    props: bytes = b"\0\0",
) -> list[bytes]:
    """Return the frames of a message for the consumer ``t``, a body of at most so many bytes in each."""
    arguments = short(b"t") + struct.pack(">QB", tag, 0) + short(b"events") + short(b"key")
    return [
        method(channel, DELIVER, arguments),
        frame(HEADER, channel, struct.pack(">HHQ", 60, 0, len(body)) + props),
        *(frame(BODY, channel, body[at : at + most]) for at in range(0, len(body), most)),
    ]


def refusal(code: int, text: bytes) -> bytes:
    """Return the arguments by which the broker closes a connection or a channel."""
    return struct.pack(">H", code) + short(text) + struct.pack(">HH", 0, 0)


class Peer:
    """Answers what a client asks, with ``around[method]`` written before and after the answer."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, heartbeat: int = 0) -> None:
        self._tls, self._heartbeat = tls, heartbeat
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.around: dict[Method, tuple[bytes, bytes]] = {}
        self.heard: list[Method] = []
        self._orders: queue.SimpleQueue[Callable[[socket.socket], object] | None] = (
            queue.SimpleQueue()
        )
        self._bell, self._ringer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._order(None)
        with suppress(OSError):  # whoever waits for a client waits no more
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)
        self._bell.close()
        self._ringer.close()

    def send(self, *parts: bytes) -> None:
        """Write each part by itself, as soon as what was ordered before is written."""
        for part in parts:
            self._order(methodcaller("sendall", part))

    def reset(self) -> None:
        """End the connection as a crash does."""

        def abort(connection: socket.socket) -> None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        self._order(abort)

    def _order(self, order: Callable[[socket.socket], object] | None) -> None:
        self._orders.put(order)
        self._ringer.send(b"!")

    def _run(self) -> None:
        with suppress(OSError, ssl.SSLError):
            plain, _ = self._listener.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with (
                self._tls.wrap_socket(plain, server_side=True) if self._tls else plain as connection
            ):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        came = b""
        while connection.fileno() >= 0:
            pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
            ready = [connection] if pending else select.select([connection, self._bell], [], [])[0]
            if self._bell in ready:
                self._bell.recv(1)
                order = self._orders.get()
                if order is None:
                    return
                order(connection)
            elif connection in ready:
                data = connection.recv(65_536)
                if not data:
                    return
                came = self._answer_all(connection, came + data)

    def _answer_all(self, connection: socket.socket, came: bytes) -> bytes:
        if came.startswith(b"AMQP"):
            came = came[8:]
            texts = long(b"PLAIN") + long(b"en_US")
            connection.sendall(method(0, START, b"\0\x09" + table() + texts))
        while len(came) >= 8:
            kind, channel, size = struct.unpack_from(">BHI", came)
            if len(came) < size + 8:
                break
            payload, came = came[7 : 7 + size], came[8 + size :]
            if kind == METHOD:
                self._answer(connection, channel, payload)
        return came

    def _answer(self, connection: socket.socket, channel: int, payload: bytes) -> None:
        name: Any = struct.unpack_from(">HH", payload)
        self.heard.append(name)
        answers: dict[Method, Iterable[bytes]] = {
            (10, 11): [method(0, TUNE, struct.pack(">HIH", 100, FRAME_MAX, self._heartbeat))],
            (10, 40): [method(0, OPEN_OK, b"\0")],
            CLOSE: [method(0, CLOSE_OK)],
            CHANNEL_OPEN: [method(channel, (20, 11), long(b""))],
            CHANNEL_CLOSE: [method(channel, CHANNEL_CLOSE_OK)],
            DECLARE: [method(channel, (50, 11), short(b"q") + struct.pack(">II", 7, 0))],
            QOS: [method(channel, (60, 11))],
            CONSUME: [method(channel, CONSUME_OK, short(b"t"))],
            CANCEL: [method(channel, (60, 31), short(b"t"))],
        }
        if name in answers:
            before, after = self.around.pop(name, (b"", b""))
            connection.sendall(before + b"".join(answers[name]) + after)
