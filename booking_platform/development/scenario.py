"""What a scenario of the demo is made of: what is published, and what must be found in the end."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from django.utils import timezone

from booking_platform.messaging import publisher
from booking_platform.messaging.topology import EVENTS
from catalog.models import Tour

PUBLISHERS = 20  # at once, for the concurrent scenario
RUN = uuid4().hex[:8]  # tells this run's rows from those of others in the same database

Body = tuple[str, bytes]  # a routing key, and what is published under it


@dataclass
class Scenario:
    """What happens, and the questions to the database with the answers that must come."""

    title: str
    publish: Callable[[], None]
    settled: Callable[[], bool]
    checks: list[tuple[str, object, Callable[[], object]]] = field(default_factory=list)


def new_tour(name: str, **seats: int) -> int:
    return Tour.objects.create(name=f"{name} (demo {RUN})", price="10.00", **seats).pk


def created(tour: int, booking: str, *, seats: int = 1, event: str = "") -> Body:
    payload = {"bookingId": f"{RUN}-{booking}", "tourId": tour, "seatsBooked": seats}
    return "booking.created", _event(event or booking, "BookingCreated", payload)


def cancelled(tour: int, booking: str, *, seats: int = 1, event: str = "", **more: Any) -> Body:
    """Give a cancellation; ``more`` are optional fields of its payload."""
    payload = {"bookingId": f"{RUN}-{booking}", "tourId": tour, "seatsReleased": seats, **more}
    return "booking.cancelled", _event(event or booking, "BookingCancelled", payload)


def _event(event_id: str, event_type: str, payload: dict[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "eventId": f"{RUN}-{event_id}",
            "eventType": event_type,
            "timestamp": timezone.now(),
            "payload": payload,
        }
    )


def publish(bodies: Iterable[Body], *, pause: float = 0) -> None:
    with publisher.producer() as producer:
        for routing_key, body in bodies:
            publisher.publish(producer, body, exchange=EVENTS.name, routing_key=routing_key)
            time.sleep(pause)


def publish_at_once(bodies: list[Body]) -> None:
    shares = [bodies[number::PUBLISHERS] for number in range(PUBLISHERS)]
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(publish, shares))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds; false if it did not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
