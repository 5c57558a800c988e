"""What a scenario of the demo is made of: what is published, and what must be found in the end."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from booking_platform.contract import examples
from booking_platform.messaging import broker
from catalog.models import Tour

PUBLISHERS = 20  # at once, for the concurrent scenario
RUN = uuid4().hex[:8]  # tells this run's rows from those of others in the same database

Body = tuple[str, bytes]  # a routing key, and what is published under it


@dataclass
class Scenario:
    """What happens, and the questions to the database with the answers that must come."""

    title: str
    publish: Callable[[], None]
    finished: Callable[[], bool]
    checks: list[tuple[str, object, Callable[[], object]]] = field(default_factory=list)


def new_tour(name: str, **seats: int) -> int:
    return Tour.objects.create(name=f"{name} (demo {RUN})", price="10.00", **seats).pk


def created(tour: int, booking: str, *, seats: int = 1, event: str = "") -> Body:
    event_id = f"{RUN}-{event or booking}"
    one = examples.booking_created(tour, f"{RUN}-{booking}", seats, event_id=event_id)
    return "booking.created", examples.body(one)


def cancelled(tour: int, booking: str, *, seats: int = 1, event: str = "", **more: Any) -> Body:
    """Return a cancellation; ``more`` are optional fields of its payload."""
    event_id = f"{RUN}-{event or booking}"
    one = examples.booking_cancelled(tour, f"{RUN}-{booking}", seats, event_id=event_id, **more)
    return "booking.cancelled", examples.body(one)


def changed(tour: int, booking: str, *, seats: int, revision: int, event: str) -> Body:
    one = examples.booking_changed(
        tour, f"{RUN}-{booking}", seats, revision=revision, event_id=f"{RUN}-{event}"
    )
    return "booking.changed", examples.body(one)


def publish(bodies: Iterable[Body], *, pause: float = 0) -> None:
    with broker.producer() as producer:
        for routing_key, body in bodies:
            broker.publish(producer, body, routing_key=routing_key)
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
