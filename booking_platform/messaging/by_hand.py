"""Events that a developer gives to a consumer's task, in a shell or a test or through a worker."""

from typing import Any

import msgspec

from booking_platform.messaging import inbox
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.rules import Consumer


def apply(consumer: Consumer, events: Any, *, park: bool) -> str | list[str | None] | None:
    """Apply one event or several, in their order, and return their outcomes.

    An event is a mapping, a JSON text, or bytes. With ``park`` what can't be applied becomes a dead
    letter, as if it had come from the consumer's queue, and has no outcome.

    Raises:
        EventRefused: without ``park``, an event can't be applied; those before it are.
        TypeError: something in an event has no form in JSON.
    """
    if isinstance(events, list | tuple):
        return [_apply(consumer, event, park) for event in events]
    return _apply(consumer, events, park)


def _apply(consumer: Consumer, event: Any, park: bool) -> str | None:
    delivery = Delivery(_body(event))
    return inbox.apply(consumer, delivery, park=park)


def _body(event: Any) -> bytes:
    if isinstance(event, str):
        return event.encode(errors="surrogatepass")
    if isinstance(event, bytes | bytearray | memoryview):
        return bytes(event)
    return msgspec.json.Encoder(decimal_format="number", enc_hook=_refuse).encode(event)


def _refuse(value: object) -> None:
    raise TypeError(f"An event holds {value!r}, a {type(value).__name__}: JSON has no such thing.")
