"""Several workers on one machine: what an event costs, and how often workers disturb each other.

``python -m tests.servers python -m bench.workers --help`` lists the options; ``docs/scaling.md`` reads the
figures. All events wait in the broker before the workers begin, and each run checks that every booking was
applied once. CPU time is read from outside, for the worker's processes, the database's sessions of this
benchmark and the broker. The broker should have nothing else to do meanwhile.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product, starmap
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any, NamedTuple
from uuid import uuid4

import amqp
import django
import psutil
import psycopg
from kombu import Connection
from kombu.utils.url import parse_url
from rich.console import Console
from rich.table import Table

from booking_platform.contract.examples import body, booking_created
from booking_platform.development.processes import CeleryProcess
from booking_platform.messaging import broker
from booking_platform.messaging.partition_sources import BALANCE_SECONDS
from tests.pgbouncer import PgBouncer
from tests.servers import wait_until

QUEUE = "tour-catalog.booking-created"
IN_FLIGHT = 1_000  # messages that the broker has not confirmed
START_EVENTS = 100  # applied before the measurement, so that every process has its connections
RUN_SECONDS = 300
SEATS = 10_000_000  # of a tour: nothing is rejected
LOOK_SECONDS = 0.02
POOLED = 4  # connections of PgBouncer to the server


class Case(NamedTuple):
    """What is measured in one run."""

    workers: int
    processes: int  # of the pool of each worker
    tours: int
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


class Servers:
    """A database of this benchmark's own, and the broker; what the workers' environment says of them."""

    def __init__(self, cleanup: ExitStack) -> None:
        admin = os.environ["TEST_DATABASE_URL"]
        self.name = f"bench_{uuid4().hex[:8]}"
        self.url = admin.rsplit("/", 1)[0] + f"/{self.name}"
        self.broker_url = os.environ["TEST_RABBITMQ_URL"]
        self._admin = cleanup.enter_context(psycopg.connect(admin, autocommit=True))
        self._admin.execute(f"CREATE DATABASE {self.name}")
        cleanup.callback(self._admin.execute, f"DROP DATABASE {self.name} WITH (FORCE)")
        os.environ |= {
            "DATABASE_URL": self.url,
            "RABBITMQ_URL": self.broker_url,
            "VAR_DIR": mkdtemp(prefix="bp-bench-"),
            "LOG_LEVEL": "WARNING",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
        self.database = cleanup.enter_context(psycopg.connect(self.url, autocommit=True))
        django.setup()
        with Connection(self.broker_url) as connection:
            broker.declare(connection)

    def one(self, query: str, *values: object) -> Any:
        """Return the one row that a query finds."""
        row = self.database.execute(query, values).fetchone()
        assert row is not None
        return row

    def sessions(self) -> list[psutil.Process]:
        """Return the processes of the server that work for this benchmark's workers."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        pids = self.database.execute(query, [self.name]).fetchall()
        return [psutil.Process(pid) for (pid,) in pids]

    def make_tours(self, count: int) -> list[int]:
        """Return the ids of new tours."""
        insert = (
            "INSERT INTO tours (name, description, price, capacity, available_seats, reserved_seats,"
            " unledgered_seats, optimistic_lock_version, created_at, updated_at) SELECT 'Bench', '', 1,"
            " %s, %s, 0, 0, 0, now(), now() FROM generate_series(1, %s) RETURNING id"
        )
        rows = self.database.execute(insert, [SEATS, SEATS, count]).fetchall()
        return [tour for (tour,) in rows]

    def wait_for(self, tours: Sequence[int], seats: int) -> None:
        """Wait until so many seats of the tours are reserved: one for each booking."""
        query = "SELECT sum(reserved_seats) FROM tours WHERE id = ANY(%s)"
        deadline = time.monotonic() + RUN_SECONDS
        while self.one(query, tours)[0] < seats:
            assert time.monotonic() < deadline, f"not done within {RUN_SECONDS} s"
            time.sleep(LOOK_SECONDS)

    def check(self, run: str, tours: Sequence[int], bookings: int) -> None:
        """Check that each booking of a run was applied once, and that seats add up."""
        reserved = "SELECT count(*), sum(seats) FROM reservations WHERE booking_id LIKE %s"
        assert self.one(reserved, f"{run}-%") == (bookings, bookings)
        processed = "SELECT count(*) FROM processed_events WHERE aggregate_id LIKE %s"
        assert self.one(processed, f"{run}-%") == (bookings,)
        wrong = (
            "SELECT count(*) FROM tours WHERE id = ANY(%s) AND reserved_seats <>"
            " (SELECT sum(seats) FROM reservations WHERE tour_id = tours.id)"
        )
        assert self.one(wrong, tours) == (0,)
        assert self.one("SELECT count(*) FROM dead_letters") == (0,)

    def publish(self, run: str, tours: Sequence[int], count: int) -> None:
        """Publish bookings, and return when the broker has confirmed them all."""
        url = parse_url(self.broker_url)
        connection = amqp.Connection(
            f"{url['hostname']}:{url['port'] or 5672}",
            userid=url["userid"] or "guest",
            password=url["password"] or "guest",
            virtual_host=url["virtual_host"] or "/",
        )
        with connection:
            channel: Any = connection.channel()
            channel.confirm_select()
            confirmed, chance = [0], Random(run)
            channel.events["basic_ack"].add(lambda tag, _multiple: confirmed.append(tag))
            for number in range(count):
                # In no order: the broker deals messages out in turn, and would deal out the tours, too.
                message = body(booking_created(chance.choice(tours), f"{run}-{number}"))
                # Not basic_publish: on a channel with confirms Kombu's driver waits for each.
                channel._basic_publish(
                    amqp.Message(message, delivery_mode=2), "booking-events", "booking.created"
                )
                while number - max(confirmed) > IN_FLIGHT:
                    del confirmed[:-1]
                    connection.drain_events(timeout=60)
            while max(confirmed) < count:
                connection.drain_events(timeout=60)


class Workers:
    """Some workers that are alike."""

    def __init__(self, case: Case, database_url: str) -> None:
        folder = Path(mkdtemp(prefix="bp-bench-workers-"))
        self.metrics = folder / "metrics"
        environment = {
            "DATABASE_URL": database_url,
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            "EVENT_PARTITIONS": str(case.partitions),
        }
        self._all = [
            CeleryProcess(
                folder / f"{n}.log", "worker", "-c", str(case.processes), "-Q", "catalog",
                env=environment,
            )
            for n in range(case.workers)
        ]  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the workers for as long as a block runs."""
        with ExitStack() as stack:
            for each in self._all:
                each.start()
                stack.callback(each.stop)
            wait_until(
                lambda: self._consuming() == len(self._all), what="every worker takes events"
            )
            yield

    def _consuming(self) -> int | None:
        with Connection(os.environ["RABBITMQ_URL"]) as connection:
            depth = broker.depths(connection)[QUEUE]
        return depth and depth.consumers

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the workers for as long as a block runs, so that they begin together."""
        everybody = [*self.mains(), *self.pools()]
        for each in everybody:
            each.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for each in everybody:
                each.send_signal(signal.SIGCONT)

    def mains(self) -> list[psutil.Process]:
        return [psutil.Process(each.process.pid) for each in self._all]

    def pools(self) -> list[psutil.Process]:
        return [child for main in self.mains() for child in main.children()]

    def conflicts(self) -> float:
        """Return how often the workers have lost a race, as they count it themselves."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.metrics))  # type: ignore[no-untyped-call]
        return sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "optimistic_lock_conflicts_total"
        )


def seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU time that these processes have used."""
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def listening(url: str) -> list[psutil.Process]:
    """Return the process on this machine that listens at the port of a URL."""
    port = parse_url(url)["port"] or 5672
    found = psutil.net_connections("tcp")
    pids = {each.pid for each in found if each.status == "LISTEN" and each.laddr.port == port}
    return [psutil.Process(pid) for pid in pids]


def measure(servers: Servers, case: Case, events: int) -> Figures:
    """Return the figures of one run, in which each booking was applied once.

    Raises:
        AssertionError: a booking is missing or was applied twice, or seats do not add up.
    """
    run, tours = uuid4().hex[:8], servers.make_tours(case.tours)
    rabbitmq = listening(servers.broker_url)
    with ExitStack() as stack:
        url, poolers = _way_to_the_database(stack, servers, case)
        workers = Workers(case, url)
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
    servers.check(run, tours, first + events)
    main, pool, postgresql, broker_, pooler = spent
    return Figures(rate, main, pool, postgresql, broker_, pooler, lost, len(parts[2]))


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
    parser.add_argument("--events", type=int, default=10_000, help="events of a run")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--processes", type=numbers, default=[1, 2], help="of the pool of a worker")
    parser.add_argument("--tours", type=numbers, default=[200, 1])
    parser.add_argument("--partitions", type=numbers, default=[0], help="0: none")
    parser.add_argument(
        "--pgbouncer", action="store_true", help="each case once more behind PgBouncer"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often all cases are measured")
    return parser.parse_args()


def main() -> None:
    asked = options()
    ways = [False, True] if asked.pgbouncer else [False]
    dimensions = (asked.workers, asked.processes, asked.tours, asked.partitions, ways)
    table = Table(*COLUMNS)
    with ExitStack() as cleanup:
        servers = Servers(cleanup)
        for _ in range(asked.rounds):
            for case in starmap(Case, product(*dimensions)):
                figures = measure(servers, case, asked.events)
                table.add_row(*cells(case, figures))
                print(*cells(case, figures), sep="\t", file=sys.stderr, flush=True)
    console = Console(width=140)
    console.print(table)


COLUMNS = (
    "workers", "-c", "tours", "partitions", "pooler", "events/s", "predicted", "main", "pool",
    "PostgreSQL", "RabbitMQ", "PgBouncer", "µs in all", "conflicts/1000", "connections", "load",
)  # fmt: skip


def cells(case: Case, figures: Figures) -> list[str]:
    """Return a row of the table."""
    predicted = 1e6 * (os.cpu_count() or 1) / figures.total
    return [
        str(case.workers), str(case.processes), str(case.tours), str(case.partitions),
        "yes" if case.pgbouncer else "no", f"{figures.rate:,.0f}", f"{predicted:,.0f}",
        f"{figures.main:.1f}", f"{figures.pool:.1f}", f"{figures.postgresql:.1f}",
        f"{figures.broker:.1f}", f"{figures.pgbouncer:.1f}", f"{figures.total:.1f}",
        f"{figures.conflicts:.1f}", str(figures.connections), f"{os.getloadavg()[0]:.1f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
