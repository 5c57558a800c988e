"""Several workers on one machine: what an event costs, and how often workers disturb each other.

``python -m tests.servers python -m bench.workers --help`` lists the options; ``docs/scaling.md`` reads the
figures. Each run begins with empty tables and empty queues; all its events wait in the broker before the
workers begin, and what must be true after it is checked. CPU time is read from outside, for the workers'
processes, the database's sessions of this benchmark and the broker. Both servers should have nothing else to
do meanwhile: what others ask of them for a moment counts, too.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from itertools import product, starmap
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from kombu import Connection
from rich.console import Console
from rich.table import Table

from bench import broker
from bench.checks import ledger, raise_if_any
from bench.contenders.contender import Ground
from bench.contenders.platform import Platform
from bench.cpu import MAIN, POOL, POSTGRESQL, RABBITMQ, Meter, seconds_of
from bench.database import database, empty, make_tours, number
from bench.runs import meter, wait_for
from bench.worker_group import WorkerGroup
from bench.workloads import CREATED, Load
from booking_platform.contract.examples import Json, booking_created
from booking_platform.messaging.broker import former_partitions
from booking_platform.messaging.partition_sources import BALANCE_SECONDS
from tests.pgbouncer import PgBouncer, can_start_pgbouncer
from tests.servers import wait_until

TRIES = 3
START_EVENTS = 100  # of each worker, before the measurement: all connections are open then
POOLED = 4  # connections of PgBouncer to the server
SEED = 5  # every case draws its tours in the same order
PLATFORM = Platform()

WAITING = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class Case(NamedTuple):
    """What is measured in one run."""

    workers: int
    processes: int  # of the pool of each worker
    tours: int
    lock_first: int  # LOCK_FIRST_SECONDS; 0: who has lost a race tries without a lock again
    partitions: int = 0
    pgbouncer: bool = False


class Figures(NamedTuple):
    """What one run came to; CPU time is in microseconds for an event."""

    rate: float  # events committed a second
    main: float
    pool: float
    postgresql: float
    broker: float
    pgbouncer: float
    conflicts: float  # for a thousand events
    connections: int  # to PostgreSQL at the end of the run

    @property
    def total(self) -> float:
        """Return the CPU time of an event in all processes."""
        return self.main + self.pool + self.postgresql + self.broker + self.pgbouncer

    def predicted(self, case: Case, cores: int) -> tuple[float, str]:
        """Return how many events a second these costs allow, and what is exhausted first.

        A process of the pool waits while its session of the database works, so that the two follow each
        other. All processes share the cores of this machine.
        """
        in_series = self.pool + self.postgresql + self.pgbouncer
        limits = {
            "cores": cores / self.total,
            "main process": case.workers / self.main,
            "pool": case.workers * case.processes / in_series,
        }
        narrowest = min(limits, key=lambda name: limits[name])
        return 1e6 * limits[narrowest], narrowest


class Disturbed(Exception):
    """A run does not count: its workers were not left alone."""


class Bookings:
    """Bookings of one seat each, of tours that are drawn at random.

    The broker deals messages out in turn: with tours in turn it would deal out these, too.
    """

    def __init__(self, ground: Ground, tours: int) -> None:
        self._ground, self._chance = ground, Random(SEED)
        self._tours = make_tours(ground.connection, tours)
        self._events: list[Json] = []

    def publish(self, count: int) -> None:
        """Publish more of them, and return when the broker has confirmed them."""
        begin = len(self._events)
        self._events += [
            booking_created(self._chance.choice(self._tours), f"B-{begin + n}")
            for n in range(count)
        ]
        messages = (PLATFORM.outgoing(self.load, event) for event in self._events[begin:])
        broker.publish(self._ground.rabbitmq_url, messages)

    @property
    def load(self) -> Load:
        """Return what was published, and what it must come to."""
        return Load(CREATED, self._events, held=0, reserved=len(self._events))

    def reserved(self) -> int:
        """Return how many were applied so far."""
        return PLATFORM.changed(self._ground, self.load)


def measure(ground: Ground, case: Case, events: int) -> Figures:
    """Return the figures of one run, in which each booking was applied once.

    Raises:
        WrongResult: a booking is missing or was applied twice, or seats do not add up.
        Disturbed: a worker has lost its connection to the broker.
    """
    empty(ground.connection)
    PLATFORM.prepare(ground)
    _delete_partitions(ground)
    bookings = Bookings(ground, case.tours)
    with ExitStack() as stack:
        url, pooler = _way_to_the_database(stack, ground, case)
        environment = {
            "DATABASE_URL": url,
            "EVENT_PARTITIONS": str(case.partitions),
            "LOCK_FIRST_SECONDS": str(case.lock_first),
        }
        workers = WorkerGroup(ground.folder, case.workers, case.processes, env=environment)
        stack.enter_context(workers.running())
        measuring = meter(ground, workers.pids)
        _warm_up(ground, workers, bookings, case, measuring)
        with workers.held():
            bookings.publish(events)
            ground.connection.execute("CHECKPOINT")
            before, conflicts = _spent(measuring, pooler), workers.conflicts()
            begun = time.monotonic()
        ended = _applied(workers, bookings, measuring)
        after = _spent(measuring, pooler)
        lost = 1000 * (workers.conflicts() - conflicts) / events
        connections = number(ground.connection, CONNECTIONS)
        if workers.lost_connections():
            raise Disturbed
    raise_if_any(ledger(ground.connection, bookings.load, counts_repeats=False))
    costs = (1e6 * (now - was) / events for now, was in zip(after, before, strict=True))
    main, pool, postgresql, rabbitmq, pgbouncer = costs
    rate = events / (ended - begun)
    return Figures(rate, main, pool, postgresql, rabbitmq, pgbouncer, lost, connections)


def undisturbed(ground: Ground, case: Case, events: int) -> Figures:
    """Return the figures of the first run in which no worker was disturbed.

    Raises:
        Disturbed: there was none in ``TRIES``: publish fewer events, or use a machine that is less busy.
    """
    for _ in range(TRIES - 1):
        with suppress(Disturbed):
            return measure(ground, case, events)
    return measure(ground, case, events)


def _delete_partitions(ground: Ground) -> None:
    """Delete the partitions of the run before: workers would empty them, also without partitions."""
    with Connection(ground.rabbitmq_url) as connection:
        for queue in former_partitions(connection, "catalog"):
            bound = queue(connection.default_channel)
            bound.delete()
            bound.exchange.delete()


def _warm_up(
    ground: Ground, workers: WorkerGroup, bookings: Bookings, case: Case, measuring: Meter
) -> None:
    """Apply some events, and publish what they announce: connections are open, partitions shared."""
    for _ in range(case.workers if case.partitions else 1):
        bookings.publish(START_EVENTS * case.workers)
        _applied(workers, bookings, measuring)
        if case.workers > 1 and case.partitions:
            time.sleep(1.5 * BALANCE_SECONDS)
    wait_until(lambda: number(ground.connection, WAITING) == 0, what="all is announced")


def _applied(workers: WorkerGroup, bookings: Bookings, measuring: Meter) -> float:
    """Wait until all that was published is applied; return when that was seen (``time.monotonic``)."""
    end = bookings.load.reserved
    return wait_for(measuring, workers.processes, bookings.reserved, end)[1]


def _spent(measuring: Meter, pooler: int | None) -> list[float]:
    """Return the seconds of CPU time of each kind of process so far, in the order of ``Figures``."""
    found = measuring.read()
    kinds = [found[kind] for kind in (MAIN, POOL, POSTGRESQL, RABBITMQ)]
    return [*kinds, seconds_of(pooler) if pooler else 0.0]


def _way_to_the_database(stack: ExitStack, ground: Ground, case: Case) -> tuple[str, int | None]:
    """Return the URL that the workers are given, and the id of the pooler's process, if there is one."""
    if not case.pgbouncer:
        return ground.database_url, None
    bouncer = PgBouncer(ground.database_url, mode="transaction", default_pool_size=POOLED)
    stack.callback(bouncer.remove)
    assert bouncer._server is not None
    return bouncer.url(), bouncer._server.pid


def numbers(text: str) -> list[int]:
    """Return the numbers of an option: ``1,2,4``."""
    return [int(each) for each in text.split(",")]


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers")
    parser.add_argument("--events", type=int, default=8_000, help="events of a run")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--processes", type=numbers, default=[1, 2], help="of the pool of a worker")
    parser.add_argument("--tours", type=numbers, default=[200, 1])
    parser.add_argument("--lock-first", type=numbers, default=[5], help="LOCK_FIRST_SECONDS")
    parser.add_argument("--partitions", type=numbers, default=[0, 8], help="0: none")
    parser.add_argument(
        "--pgbouncer", action="store_true", help="each case once more behind PgBouncer"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often all cases are measured")
    return parser.parse_args()


def main() -> None:
    asked = options()
    ways = [False, True] if asked.pgbouncer else [False]
    if asked.pgbouncer and not can_start_pgbouncer():
        sys.exit("PgBouncer is not installed.")
    dimensions = (
        asked.workers,
        asked.processes,
        asked.tours,
        asked.lock_first,
        asked.partitions,
        ways,
    )
    table = Table(*COLUMNS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left running
    os.environ["RABBITMQ_URL"] = url = os.environ["TEST_RABBITMQ_URL"]
    with (
        database(os.environ["TEST_DATABASE_URL"]) as connection,
        TemporaryDirectory(prefix="bp-bench-") as folder,
    ):
        ground = Ground(connection, url, os.environ["DATABASE_URL"], Path(folder))
        for _ in range(asked.rounds):
            for case in starmap(Case, product(*dimensions)):
                row = cells(case, undisturbed(ground, case, asked.events))
                table.add_row(*row)
                print(*row, sep="\t", file=sys.stderr, flush=True)
    Console(width=180).print(table)


COLUMNS = (
    "workers", "-c", "tours", "lock first", "partitions", "pooler", "events/s", "predicted", "limit",
    "cores used", "main", "pool", "PostgreSQL", "RabbitMQ", "PgBouncer", "µs in all",
    "conflicts/1000", "connections",
)  # fmt: skip


def cells(case: Case, figures: Figures) -> list[str]:
    """Return a row of the table."""
    cores = os.cpu_count() or 1
    predicted, limit = figures.predicted(case, cores)
    return [
        *(str(each) for each in case[:-1]), "yes" if case.pgbouncer else "no",
        f"{figures.rate:,.0f}", f"{predicted:,.0f}", limit, f"{figures.rate * figures.total / 1e6:.2f}",
        f"{figures.main:.1f}", f"{figures.pool:.1f}", f"{figures.postgresql:.1f}",
        f"{figures.broker:.1f}", f"{figures.pgbouncer:.1f}", f"{figures.total:.1f}",
        f"{figures.conflicts:.1f}", str(figures.connections),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
