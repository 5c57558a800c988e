"""What is there is read at once, and all frames of it are taken in one pass.

py-amqp reads a frame with two or three calls of ``recv``, and sets the socket's timeout before and after
it; Kombu turns its event loop once for each message. That was more than half of what the main process
of a worker did (``docs/decisions/0040-frames-read-at-once.md``). Here bytes go to a buffer; who waits for
an answer finds in it what another has read, and the event loop is told of what is left in it.
"""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from struct import Struct
from typing import Any, NoReturn

import amqp.transport
import structlog
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from celery import signals
from kombu.transport import pyamqp

log = structlog.get_logger(__name__)

KNOWN = ("5.4.2", "5.7.0")  # of py-amqp and Kombu: the insides that this module takes the place of

READ_BYTES = 64 * 1024  # at once: some 150 events, after which the event loop turns

# AMQP 0-9-1, 4.2.3: type, channel and size come before the payload, one octet after it.
_HEAD = Struct(">BHI")
_END = 0xCE
_OVERHEAD = _HEAD.size + 1
_TYPES = frozenset({1, 2, 3, 8})  # method, content header, content body, heartbeat

# The negotiated `frame_max` is no limit to what the broker sends: it does not split a content header,
# and adds to the one of a producer (`x-death`). RabbitMQ takes no message above this, so garbage it is.
LARGEST_FRAME = 16 * 1024 * 1024  # bytes

Frame = tuple[int, int, bytes]  # type, channel, payload


class Frames:
    """Bytes as they came, from which whole frames are taken."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._bytes, self._at = b"", 0
        self._later: list[bytes] = []  # what came of a frame that is not whole, after `_bytes`
        self._missing = 0  # bytes that this frame lacks
        self._broken: UnexpectedFrame | None = None

    @property
    def ready(self) -> bool:
        """Whether there may be a whole frame."""
        if self._missing or self._broken:
            return False
        return len(self._bytes) - self._at >= _OVERHEAD

    def add(self, data: bytes) -> None:
        """Add what was read. A frame that comes in many parts is joined once, when it is whole."""
        self._later.append(data)
        if len(data) < self._missing:
            self._missing -= len(data)
            return
        rest = self._bytes[self._at :]
        self._bytes = b"".join((rest, *self._later)) if rest or len(self._later) > 1 else data
        self._later.clear()
        self._at = self._missing = 0

    def take(self) -> Frame | None:
        """Return the next frame; None: it is not whole yet.

        Raises:
            UnexpectedFrame: what came is no frame. So is all that follows.
        """
        if self._broken:
            raise self._broken
        data, at = self._bytes, self._at
        if self._missing or len(data) - at < _OVERHEAD:
            return None
        kind, channel, size = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + size
        if end >= len(data):
            if kind not in _TYPES or size > LARGEST_FRAME:
                self._refuse(f"a frame of type {kind} with {size:,} bytes")
            self._missing = end + 1 - len(data)
            return None
        if data[end] != _END:
            self._refuse(f"{data[end]:#04x} where a frame ends")
        self._at = end + 1
        return kind, channel, data[at + _HEAD.size : end]

    def _refuse(self, what: str) -> NoReturn:
        self.clear()
        self._broken = UnexpectedFrame(f"The broker sent {what}")
        raise self._broken


class _ReadsAhead:
    """A transport that reads more than it was asked for, and keeps it."""

    sock: Any
    connected: bool
    _quick_recv: Callable[[int], bytes]
    _recv_now: Callable[[int], bytes]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.frames = Frames()

    def read_frame(self, unpack: Any = None) -> Frame:
        """Return the next frame, for which it waits as long as the socket's timeout says.

        Raises:
            TimeoutError: it did not come, or not all of it. What came is kept.
        """
        while (frame := self.frames.take()) is None:
            self.frames.add(self._received(self._quick_recv))
        return frame

    def read_now(self) -> None:
        """Read once what is there.

        Raises:
            TimeoutError: there is nothing.
        """
        self.frames.add(self._received(self._recv_now))

    def close(self) -> None:
        super().close()  # type: ignore[misc]  # of py-amqp
        self.frames.clear()

    def pending(self) -> int:
        """Return how many bytes are read already, where no event loop sees them."""
        return 0

    def _received(self, recv: Callable[[int], bytes]) -> bytes:
        try:
            if data := recv(READ_BYTES):
                return data
            raise ConnectionResetError("The broker has closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None
        except TimeoutError:
            raise
        except OSError:
            self.connected = False
            raise
        except ValueError as error:  # its TLS has ended: `farewell` shuts a socket down
            self.connected = False
            raise ConnectionResetError(str(error)) from None


class TCPTransport(_ReadsAhead, amqp.transport.TCPTransport):
    """Reads from a plain socket."""

    def _recv_now(self, size: int) -> bytes:
        found: bytes = self.sock.recv(size, socket.MSG_DONTWAIT)
        return found


class TLSTransport(_ReadsAhead, amqp.transport.SSLTransport):
    """Reads what is encrypted, one record at a time: that may be there in part only."""

    def _shutdown_transport(self) -> None:
        with suppress(ValueError):  # its TLS has ended
            super()._shutdown_transport()  # type: ignore[misc]  # no stubs

    def pending(self) -> int:
        return int(self.sock.pending()) if self.sock is not None else 0

    def _recv_now(self, size: int) -> bytes:
        sock = self.sock
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            found: bytes = sock.read(size)
            return found
        finally:
            sock.settimeout(timeout)


class _Bell:
    """Something to poll that is readable from its ringing on. What it calls may fail, as readers may."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._rung = False

    def fileno(self) -> int:
        return self._reader.fileno()

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._writer.send(b"!")

    def silence(self) -> None:
        if self._rung:
            self._rung = False
            self._reader.recv(1)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


_Connection: Any = amqp.Connection  # the stubs know its public side only


class ReadsAtOnce(_Connection):
    """A connection whose frames are read at once, by whoever reads first: a caller, or the event loop."""

    _bell: _Bell | None = None  # of the event loop that reads the connection, if one does

    def Transport(  # noqa: N802  (py-amqp's name)
        self,
        host: str,
        connect_timeout: float | None,
        ssl: Any = False,
        *timeouts: float | None,
        **options: Any,
    ) -> Any:
        """Return the transport, which is not connected yet; ``timeouts`` are those to read and write."""
        kind = TLSTransport if ssl else TCPTransport
        options |= dict(zip(("read_timeout", "write_timeout"), timeouts, strict=True))
        return kind(host, connect_timeout=connect_timeout, ssl=ssl, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Take one frame, and wait for it where there is none; return whether it ended a method."""
        transport = self.transport
        frame = transport.frames.take()
        if frame is None:
            with transport.having_timeout(timeout):
                frame = transport.read_frame()
        try:
            return self.on_inbound_frame(frame)
        finally:
            self._tell_loop()

    def read_in(self, loop: Any) -> None:
        """Register with an event loop, which reads what comes and what other callers leave in the buffer."""
        self._bell = _Bell()
        loop.add_reader(self._bell, self._on_bell)
        loop.add_reader(self.sock, self._on_readable)
        self._tell_loop()

    def collect(self) -> None:
        super().collect()
        bell, self._bell = self._bell, None
        if bell:
            bell.close()

    def _on_readable(self) -> None:
        if not self.connected:
            raise RecoverableConnectionError("Socket was disconnected")
        self._take_all()

    def _on_bell(self) -> None:
        if self._bell:
            self._bell.silence()
        if self.connected:
            self._take_all()

    def _take_all(self) -> None:
        """Take the frames of the buffer; where it has none, of what is there to be read."""
        transport = self._transport
        frames: Frames = transport.frames
        try:
            if not frames.ready:
                with suppress(TimeoutError):
                    transport.read_now()
            while frame := frames.take():
                self.on_inbound_frame(frame)
        finally:
            self._tell_loop()

    def _tell_loop(self) -> None:
        """Wake the event loop for frames that are left: the broker's socket says nothing of them.

        A caller that waited for one answer leaves what came with it. So does an error: Celery's
        remote ``shutdown`` is raised by the message that asks for it, and the loop goes on to finish.
        """
        transport = self._transport
        if self._bell and transport and (transport.frames.ready or transport.pending()):
            self._bell.ring()


def _register(transport: Any, connection: Any, loop: Any) -> None:
    """Register a connection with an event loop, in place of Kombu's own function."""
    if isinstance(connection, ReadsAtOnce):
        connection.read_in(loop)
    else:
        _register_by_kombu(transport, connection, loop)


_register_by_kombu: Any = pyamqp.Transport.register_with_event_loop


def install() -> None:
    """Replace Kombu's class of connections to RabbitMQ by one that reads what is there at once.

    With versions of py-amqp and Kombu whose insides are not known, they read as ever, and the worker
    says so.
    """
    found = (version("amqp"), version("kombu"))
    if found != KNOWN:
        signals.celeryd_after_setup.connect(partial(_say_why_not, found), weak=False)
        return
    kind: Any = pyamqp.Transport.Connection
    pyamqp.Transport.Connection = type(kind.__name__, (ReadsAtOnce, kind), {})
    pyamqp.Transport.register_with_event_loop = _register  # type: ignore[assignment,method-assign]


def _say_why_not(found: tuple[str, str], **_: Any) -> None:
    log.warning(
        "Frames are read one by one: these versions of py-amqp and Kombu are not known",
        found=found,
        known=KNOWN,
    )
