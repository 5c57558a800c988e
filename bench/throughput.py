"""Throughput: the platform's worker against a Celery task per event, in one run on one machine.

``make bench`` runs it. Every figure is events committed a second, measured in the database from
the first claim to the last, one worker with two pool processes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import amqp
import django
import psycopg
from kombu import Connection
from kombu.utils.url import parse_url
from rich.console import Console
from rich.table import Table

from booking_platform.contract.examples import body, booking_created
from booking_platform.development.processes import CeleryProcess, running
from booking_platform.messaging.broker import declare
from tests.servers import wait_until

EVENTS = int(os.environ.get("BENCH_EVENTS", "20000"))
PER_EVENT = int(os.environ.get("BENCH_PER_EVENT", "2000"))  # the slow side needs no more
console = Console()


@contextmanager
def database() -> Iterator[psycopg.Connection]:
    """A database of our own, migrated, and the environment that names it."""
    admin = os.environ["TEST_DATABASE_URL"]
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = admin.rsplit("/", 1)[0] + f"/{name}"
    os.environ |= {
        "DATABASE_URL": url,
        "RABBITMQ_URL": os.environ["TEST_RABBITMQ_URL"],
        "CELERY_BROKER_URL": os.environ["TEST_RABBITMQ_URL"],  # of the app beside the platform's
        "VAR_DIR": mkdtemp(prefix="bp-bench-"),
        "LOG_LEVEL": "WARNING",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
    django.setup()  # registers the consumers; this process itself uses neither of its servers
    with Connection(os.environ["RABBITMQ_URL"]) as broker:
        declare(broker)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def worker(app: str, *options: str) -> Iterator[None]:
    log = Path(os.environ["VAR_DIR"]) / "worker.log"
    with running(CeleryProcess(log, "worker", "-c", "2", *options, app=app)):
        yield


def connect() -> amqp.Connection:
    url = parse_url(os.environ["RABBITMQ_URL"])
    connection = amqp.Connection(
        f"{url['hostname']}:{url['port'] or 5672}",
        userid=url["userid"] or "guest",
        password=url["password"] or "guest",
        virtual_host=url["virtual_host"] or "/",
    )
    connection.connect()
    return connection


def event(run: str, number: int, tour: int) -> dict[str, Any]:
    return booking_created(tour, f"{run}-{number}")


def publish_plain(run: str, tours: list[int], count: int) -> None:
    with connect() as connection:
        channel = connection.channel()
        for number in range(count):
            message = body(event(run, number, tours[number % len(tours)]))
            channel.basic_publish(
                amqp.Message(message, delivery_mode=2), "booking-events", "booking.created"
            )


def publish_tasks(run: str, tours: list[int], count: int) -> None:
    from bench.per_event import app

    with app.producer_or_acquire() as producer:
        for number in range(count):
            app.send_task(
                "bench.booking_created",
                [event(run, number, tours[number % len(tours)])],
                producer=producer,
            )


def measure(connection: psycopg.Connection, run: str, count: int) -> float:
    """Wait until all bookings of a run are there; return events a second."""

    def done() -> bool:
        where = "SELECT count(*) FROM reservations WHERE booking_id LIKE %s"
        return connection.execute(where, [f"{run}-%"]).fetchone() == (count,)

    wait_until(done, seconds=300, what=f"{count} reservations of {run}")
    span = (
        "SELECT extract(epoch FROM max(processed_at) - min(processed_at)) FROM processed_events "
        "WHERE aggregate_id LIKE %s"
    )
    row = connection.execute(span, [f"{run}-%"]).fetchone()
    assert row is not None
    return count / float(row[0])


def make_tours(connection: psycopg.Connection, count: int) -> list[int]:
    insert = (
        "INSERT INTO tours (name, description, price, capacity, available_seats, reserved_seats,"
        " unledgered_seats, optimistic_lock_version, created_at, updated_at) SELECT 'Bench', '', 1,"
        " 10000000, 10000000, 0, 0, 0, now(), now() FROM generate_series(1, %s) RETURNING id"
    )
    return [tour for (tour,) in connection.execute(insert, [count]).fetchall()]


def platform(connection: psycopg.Connection, tours: list[int]) -> float:
    run = uuid4().hex[:8]
    publish_plain(run, tours, EVENTS)
    with worker("booking_platform"):
        return measure(connection, run, EVENTS)


def per_event(connection: psycopg.Connection, tours: list[int], *, keep: bool) -> float:
    run = uuid4().hex[:8]
    publish_tasks(run, tours, PER_EVENT)
    os.environ["KEEP_CONNECTIONS"] = "1" if keep else ""
    with worker("bench.per_event"):
        return measure(connection, run, PER_EVENT)


def main() -> None:
    with database() as connection:
        table = Table(
            "tours", "platform", "a task per event", "ratio", "… kept connection", "ratio"
        )
        for count in (200, 1):
            tours = make_tours(connection, count)
            ours = platform(connection, tours)
            plain = per_event(connection, tours, keep=False)
            kept = per_event(connection, tours, keep=True)
            row = (ours, plain, ours / plain, kept, ours / kept)
            table.add_row(
                str(count), *(f"{value:,.0f}" if value > 99 else f"{value:.1f}" for value in row)
            )
        console.print(table)
        console.print(f"events a second, committed; {EVENTS:,} and {PER_EVENT:,} events")


if __name__ == "__main__":
    main()
