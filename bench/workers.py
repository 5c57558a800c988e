"""Several workers on one machine: what an event costs, and how often workers disturb each other.

``python -m tests.servers python -m bench.workers --help`` lists the options; ``docs/scaling.md`` reads the
figures. All events wait in the broker before the workers begin, and each run checks that every booking was
applied once. CPU time is read from outside, for the worker's processes, the database's sessions of this
benchmark and the broker. The broker should have nothing else to do meanwhile.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import product, starmap
from typing import NamedTuple
from uuid import uuid4

import psutil
from rich.console import Console
from rich.table import Table

from bench.stage import Disturbed, Servers, Workers, listening, seconds
from booking_platform.messaging.partition_sources import BALANCE_SECONDS
from tests.pgbouncer import PgBouncer, can_start_pgbouncer

TRIES = 3
START_EVENTS = 100  # applied before the measurement, so that every process has its connections
POOLED = 4  # connections of PgBouncer to the server


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


def measure(servers: Servers, case: Case, events: int) -> Figures:
    """Return the figures of one run, in which each booking was applied once.

    Raises:
        AssertionError: a booking is missing or was applied twice, or seats do not add up.
        Disturbed: a worker has lost its connection to the broker.
    """
    run, tours = uuid4().hex[:8], servers.make_tours(case.tours)
    rabbitmq = listening(servers.broker_url)
    with ExitStack() as stack:
        url, poolers = _way_to_the_database(stack, servers, case)
        environment = {
            "DATABASE_URL": url,
            "EVENT_PARTITIONS": str(case.partitions),
            "LOCK_FIRST_SECONDS": str(case.lock_first),
        }
        workers = Workers(case.workers, "-c", str(case.processes), env=environment)
        stack.enter_context(workers.running())
        first = _warmed_up(servers, case, run, tours)
        with workers.held():
            servers.publish(run, tours, events)
            servers.database.execute("CHECKPOINT")
            parts = [workers.mains(), workers.pools(), servers.sessions(), rabbitmq, poolers]
            before, conflicts = list(map(seconds, parts)), workers.conflicts()
            begun = time.monotonic()
        servers.wait_for(tours, first + events)
        rate = events / (time.monotonic() - begun)
        parts[2] = servers.sessions()  # with those that were opened meanwhile
        spent = [
            1e6 * (seconds(now) - was) / events for now, was in zip(parts, before, strict=True)
        ]
        lost = 1000 * (workers.conflicts() - conflicts) / events
        if workers.lost_connections():
            raise Disturbed
    servers.check(run, tours, first + events)
    main, pool, postgresql, broker_, pooler = spent
    return Figures(rate, main, pool, postgresql, broker_, pooler, lost, len(parts[2]))


def undisturbed(servers: Servers, case: Case, events: int) -> Figures:
    """Return the figures of the first run in which no worker was disturbed.

    Raises:
        Disturbed: there was none in ``TRIES``: publish fewer events, or use a machine that is less busy.
    """
    for _ in range(TRIES - 1):
        with suppress(Disturbed):
            return measure(servers, case, events)
    return measure(servers, case, events)


def _warmed_up(servers: Servers, case: Case, run: str, tours: Sequence[int]) -> int:
    """Apply some events, so that all connections are open and partitions shared; return how many."""
    done = 0
    for turn in range(case.workers if case.partitions else 1):
        servers.publish(f"{run}-{turn}", tours, START_EVENTS * case.workers)
        done += START_EVENTS * case.workers
        servers.wait_for(tours, done)
        if case.workers > 1 and case.partitions:
            time.sleep(1.5 * BALANCE_SECONDS)
    return done


def _way_to_the_database(
    stack: ExitStack, servers: Servers, case: Case
) -> tuple[str, list[psutil.Process]]:
    """Return the URL that the workers are given, and the process of the pooler before the server."""
    if not case.pgbouncer:
        return servers.url, []
    bouncer = PgBouncer(servers.url, mode="transaction", default_pool_size=POOLED)
    stack.callback(bouncer.remove)
    assert bouncer._server is not None
    return bouncer.url(), [psutil.Process(bouncer._server.pid)]


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
    with ExitStack() as cleanup:
        servers = Servers(cleanup)
        for _ in range(asked.rounds):
            for case in starmap(Case, product(*dimensions)):
                figures = undisturbed(servers, case, asked.events)
                table.add_row(*cells(case, figures))
                print(*cells(case, figures), sep="\t", file=sys.stderr, flush=True)
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
