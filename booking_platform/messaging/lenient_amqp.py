"""What py-amqp must not do in the main process of a worker: fail on, or unpack, what anybody sent.

py-amqp decodes the arguments, the properties and the body of each message before any code of ours
sees them. An error there would end the worker, and end it again when the broker delivers the message
again; a body without bounds would fill the memory.
"""

from typing import Any

import structlog
from amqp import abstract_channel, method_framing
from amqp.serialization import loads

log = structlog.get_logger(__name__)

LARGEST_BODY = 16 * 1024 * 1024  # bytes; RabbitMQ's own limit since 4.0
KEPT_BYTES = 4096  # of a body that is too large: enough for a person to recognise it


_Message: Any = method_framing.Message  # the stubs know its public side only


class _Readable(bytes):
    """Bytes whose parts are text whatever they hold: what is not UTF-8 appears as ``\\xff``."""

    def __getitem__(self, part: Any) -> Any:
        found = super().__getitem__(part)
        return _Readable(found) if isinstance(found, bytes) else found

    def decode(self, *_: Any) -> str:
        return super().decode("utf-8", "backslashreplace")


def load_arguments(form: str, buffer: Any, offset: int) -> Any:
    """Return the arguments of a method frame as py-amqp does, also where text is not UTF-8.

    A routing key is the text of whoever published, and ``basic.deliver`` carries it.
    """
    try:
        return loads(form, buffer, offset)
    except UnicodeError:
        return loads(form, _Readable(buffer), offset)


class LenientMessage(_Message):
    """A message whose properties may be anything, and whose body is kept within bounds.

    Text that is not UTF-8 is made readable. Properties that can't be read at all (a time out of
    range, tables nested without end) are left out. Of a body larger than ``LARGEST_BODY`` the first
    bytes are kept; ``body_size`` stays what it was.
    """

    def _load_properties(self, class_id: Any, buffer: Any, offset: int) -> Any:
        load = super()._load_properties
        for readable in (bytes, _Readable):
            try:
                return load(class_id, readable(buffer), offset)
            except UnicodeError:
                continue
            except Exception as error:  # RecursionError and OverflowError among them
                log.warning(
                    "A message's properties can't be read: taken without", error=repr(error)
                )
                break
        self.properties: dict[str, Any] = {}
        return len(buffer)

    def inbound_body(self, buffer: Any) -> None:
        """Add a frame of the body."""
        if self.body_size <= LARGEST_BODY:
            super().inbound_body(buffer)
            return
        self.body_received += len(buffer)
        if room := KEPT_BYTES - sum(map(len, self._pending_chunks)):
            self._pending_chunks.append(buffer[:room])
        if self.body_received >= self.body_size:
            self.body = b"".join(self._pending_chunks)
            self.ready = True


def install() -> None:
    """Replace what py-amqp reads messages with, for every connection of this process."""
    method_framing.Message = LenientMessage  # type: ignore[misc]
    abstract_channel.loads = load_arguments  # type: ignore[assignment]


def take_raw_bodies(channel: Any) -> Any:
    """Set a channel to hand over bodies as they came, and return it.

    The headers of a producer must not make the main process decode a body, nor inflate it: a small
    compressed body could fill the memory. Channels of other transports are left as they are.
    """
    if hasattr(channel, "auto_decode"):
        channel.auto_decode = False
        message_to_python = channel.message_to_python

        def uncompressed(raw: Any) -> Any:
            (raw.properties.get("application_headers") or {}).pop("compression", None)
            raw.delivery_info["size"] = raw.body_size
            return message_to_python(raw)

        channel.message_to_python = uncompressed
    return channel
