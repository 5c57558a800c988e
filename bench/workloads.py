"""What is published, and what must be in the database when it has been processed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from bench.database import Connection, make_bookings, make_tours
from booking_platform.contract.examples import Json, booking_cancelled, booking_created

CREATED, CANCELLED = "booking.created", "booking.cancelled"

DUPLICATES, REJECTED = 0.20, 0.05  # of the messages of ``mix``
SEED = 5  # every run of ``mix`` has the same order


@dataclass(frozen=True)
class Load:
    """Events in the order in which they are published, and what they must come to."""

    routing_key: str
    events: list[Json]
    held: int  # seats that are reserved before
    reserved: int  # seats that must be reserved afterwards, one for each booking
    rejected: int = 0  # bookings for which there are no seats
    duplicates: int = 0  # messages that must have no effect

    @property
    def distinct(self) -> int:
        """Return how many different events there are."""
        return len(self.events) - self.duplicates

    @property
    def change(self) -> int:
        """Return by how many seats the tours must have changed in the end."""
        return abs(self.reserved - self.held)


@dataclass(frozen=True)
class Workload:
    """A named way to make a load of as many messages as are wanted."""

    name: str
    meaning: str
    make: Callable[[Connection, int], Load]


def _bookings(tours: int) -> Callable[[Connection, int], Load]:
    def make(connection: Connection, count: int) -> Load:
        ids, run = make_tours(connection, tours), uuid4().hex[:8]
        events = [booking_created(ids[at % tours], f"{run}-{at}") for at in range(count)]
        return Load(CREATED, events, held=0, reserved=count)

    return make


def _cancellations(connection: Connection, count: int) -> Load:
    ids, run = make_tours(connection, 200), uuid4().hex[:8]
    bookings = [(f"{run}-{at}", ids[at % len(ids)]) for at in range(count)]
    make_bookings(connection, bookings)
    events = [booking_cancelled(tour, booking) for booking, tour in bookings]
    return Load(CANCELLED, events, held=count, reserved=0)


def _mix(connection: Connection, count: int) -> Load:
    ids, run = make_tours(connection, 200), uuid4().hex[:8]
    [full] = make_tours(connection, 1, capacity=0)
    repeated, rejected = int(count * DUPLICATES), int(count * REJECTED)
    reserved = count - repeated - rejected
    events = [booking_created(ids[at % len(ids)], f"{run}-{at}") for at in range(reserved)]
    events += [booking_created(full, f"{run}-full-{at}") for at in range(rejected)]
    chance = random.Random(SEED)
    events += chance.sample(events[:reserved], repeated)
    chance.shuffle(events)
    return Load(CREATED, events, held=0, reserved=reserved, rejected=rejected, duplicates=repeated)


WORKLOADS = {
    each.name: each
    for each in (
        Workload("spread", "bookings of 200 tours, in turn", _bookings(200)),
        Workload("hot", "bookings of one tour", _bookings(1)),
        Workload("wide", "bookings of 10,000 tours, in turn", _bookings(10_000)),
        Workload("cancel", "cancellations of 200 tours' bookings", _cancellations),
        Workload(
            "mix",
            f"bookings of 200 tours, {DUPLICATES:.0%} duplicates and {REJECTED:.0%} without seats",
            _mix,
        ),
    )
}
