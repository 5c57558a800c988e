"""What py-amqp must not do in the main process of a worker: fail on, or unpack, what anybody sent.

py-amqp decodes each message before any code of ours sees it. An error there would end the worker, and
end it again when the broker delivers the message again.
"""

from typing import Any

import structlog
from amqp import method_framing

log = structlog.get_logger(__name__)


class LenientMessage(method_framing.Message):
    """A message whose properties may be anything.

    Text that is not UTF-8, a time out of range and tables nested without end are left out.
    """

    def _load_properties(self, class_id: Any, buffer: Any, offset: int) -> Any:
        try:
            return super()._load_properties(class_id, buffer, offset)  # type: ignore[misc]
        except Exception as error:
            log.warning("A message's properties can't be read: taken without", error=repr(error))
            self.properties = {}
            return len(buffer)


def install() -> None:
    """Replace py-amqp's message, for every connection of this process, by ``LenientMessage``."""
    method_framing.Message = LenientMessage  # type: ignore[misc]


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
            return message_to_python(raw)

        channel.message_to_python = uncompressed
    return channel
