"""The database of a benchmark: made for it, emptied between runs, removed at the end."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from uuid import uuid4

import django
import psycopg

Connection = psycopg.Connection

CAPACITY = 10_000_000  # seats of a tour: nobody is refused but where that is meant

FILLED = (
    "tours, reservations, processed_events, seat_changes, outbox, dead_letters, idempotency_store, "
    "cancellation_emails"
)


@contextmanager
def database(admin: str) -> Iterator[Connection]:
    """Run a block with a database of its own on a server, migrated, and the environment that names it."""
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        url = admin.rsplit("/", 1)[0] + f"/{name}"
        with TemporaryDirectory(prefix="bp-bench-") as folder:
            os.environ |= {"DATABASE_URL": url, "VAR_DIR": folder, "LOG_LEVEL": "WARNING"}
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")
            subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True)
            django.setup()  # registers the consumers; this process uses neither server through it
            with psycopg.connect(url, autocommit=True) as connection:
                yield connection
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def empty(connection: Connection) -> None:
    """Remove what earlier runs have stored, and have what they wrote on disk before the next begins."""
    connection.execute(f"TRUNCATE {FILLED} CASCADE")
    connection.execute("CHECKPOINT")


def make_tours(connection: Connection, count: int, capacity: int = CAPACITY) -> list[int]:
    """Store tours that have only free seats; return their ids."""
    insert = (
        "INSERT INTO tours (name, description, price, capacity, available_seats, reserved_seats,"
        " unledgered_seats, optimistic_lock_version, created_at, updated_at) SELECT 'Bench', '', 1,"
        " %(seats)s, %(seats)s, 0, 0, 0, now(), now() FROM generate_series(1, %(count)s) RETURNING id"
    )
    rows = connection.execute(insert, {"seats": capacity, "count": count})
    return [tour for (tour,) in rows.fetchall()]


def make_bookings(connection: Connection, bookings: list[tuple[str, int]]) -> None:
    """Store bookings of one seat as the platform has them when their creations are applied."""
    names, tours = [name for name, _ in bookings], [tour for _, tour in bookings]
    connection.execute(
        "INSERT INTO reservations (booking_id, tour_id, seats, state, booked, steps,"
        " created_event_id, cancelled_event_id, created_at, updated_at)"
        " SELECT name, tour, 1, 'reserved', 1, '', name, '', now(), now()"
        " FROM unnest(%s::text[], %s::bigint[]) AS given (name, tour)",
        [names, tours],
    )
    connection.execute(
        "UPDATE tours SET reserved_seats = booked.seats,"
        " available_seats = available_seats - booked.seats"
        " FROM (SELECT tour_id, sum(seats) AS seats FROM reservations GROUP BY 1) AS booked"
        " WHERE booked.tour_id = tours.id"
    )


def number(connection: Connection, query: str) -> int:
    """Return the one number that a query has for its answer; 0 where that is null."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0] or 0)
