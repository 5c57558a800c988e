"""What the platform announces, shown to a developer as it comes."""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from time import sleep
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from kombu import Queue, binding

from booking_platform.contract import announcements
from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging import broker, clock, topology

__all__ = ["announcements"]  # imported for what they register

LOOK_SECONDS = 0.05


class _Event(msgspec.Struct, rename="camel"):
    event_type: str
    payload: dict[str, Any]


class Heard(NamedTuple):
    """An announcement."""

    routing_key: str
    event_type: str
    payload: Mapping[str, Any]

    def speaks_of(self, event_ids: Set[str], bookings: Set[str]) -> bool:
        """Return whether it was caused by one of these events, or is about one of these bookings."""
        return (
            self.payload.get("causedBy") in event_ids or self.payload.get("bookingId") in bookings
        )

    def __str__(self) -> str:
        said = ", ".join(f"{name} {_text(value)}" for name, value in self.payload.items())
        return f"{self.event_type}: {said}"


@contextmanager
def watch() -> Iterator["Watch"]:
    """Listen to all announcements from now on; nothing is left of it afterwards."""
    with broker.connection_to_publish() as connection:
        broker.connect(connection)
        exchange = topology.events_exchange(no_declare=True)
        queue = Queue(
            f"watch-{uuid4().hex}",
            bindings=[binding(exchange, routing_key=key) for key in ANNOUNCEMENTS],
            durable=False,
            exclusive=True,
            auto_delete=True,
            queue_arguments={"x-queue-type": "classic"},  # whatever the virtual host's default is
        )(connection.channel())
        queue.declare()
        try:
            yield Watch(queue)
        finally:
            queue.delete()  # the embedded broker does not do so by itself


class Watch:
    """A queue of announcements that belongs to one process."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def heard(self, seconds: float) -> Iterator[Heard]:
        """Yield what is announced within some seconds."""
        end = clock.ticks() + seconds
        while clock.ticks() < end:
            message = self._queue.get(no_ack=True)
            if message is None:
                sleep(LOOK_SECONDS)
                continue
            with suppress(msgspec.MsgspecError):  # no announcement of ours, whatever its key
                event = msgspec.json.decode(message.body, type=_Event)
                key = message.delivery_info["routing_key"]
                yield Heard(key, event.event_type, event.payload)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
