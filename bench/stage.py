"""Servers and workers for a benchmark: bookings published, workers watched from outside."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import amqp
import django
import psutil
import psycopg
from kombu import Connection
from kombu.utils.url import parse_url

from booking_platform.contract.examples import body, booking_created
from booking_platform.development.processes import CeleryProcess
from booking_platform.messaging import broker
from tests.servers import wait_until

QUEUE = "tour-catalog.booking-created"
IN_FLIGHT = 1_000  # messages that the broker has not confirmed
RUN_SECONDS = 300
SEATS = 10_000_000  # of a tour: nothing is rejected
LOOK_SECONDS = 0.02


class Disturbed(Exception):
    """A run does not count: its workers were not left alone."""


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

    def __init__(self, count: int, *options: str, env: Mapping[str, str]) -> None:
        folder = Path(mkdtemp(prefix="bp-bench-workers-"))
        self.metrics = folder / "metrics"
        environment = {**env, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
        self._all = [
            CeleryProcess(folder / f"{n}.log", "worker", *options, "-Q", "catalog", env=environment)
            for n in range(count)
        ]

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

    def lost_connections(self) -> bool:
        """Return whether a worker has lost its connection: held for too long, it sends no heartbeats."""
        return any("onnection to broker lost" in each.log for each in self._all)

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
