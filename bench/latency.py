"""Idle latency: from just before a publish until its transaction is committed.

PostgreSQL itself says when (``track_commit_timestamp``, on a private server), so that no observer
takes time from what it observes. Events are published on a fixed schedule, whatever becomes of them.
"""

import os
import statistics
import time
from uuid import uuid4

import amqp
import psycopg

from bench.throughput import connect, console, database, event, make_tours, worker
from booking_platform.contract.examples import body
from tests.servers import PostgreSQL, wait_until

RATE = 100  # events a second
SECONDS = int(os.environ.get("BENCH_SECONDS", "20"))
TOURS = 20


def publish(run: str, tours: list[int], count: int) -> None:
    with connect() as connection:
        channel = connection.channel()
        start = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
            message = body(event(run, number, tours[number % len(tours)]))
            channel.basic_publish(
                amqp.Message(message, delivery_mode=2), "booking-events", "booking.created"
            )


def measure(connection: psycopg.Connection, count: int) -> list[float]:
    """Return the latencies of one run, in milliseconds, sorted."""
    run = uuid4().hex[:8]
    publish(run, make_tours(connection, TOURS), count)
    latencies = (
        "SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - occurred_at)"
        " FROM processed_events WHERE aggregate_id LIKE %s ORDER BY 1"
    )

    def found() -> list[float]:
        return [float(row[0]) for row in connection.execute(latencies, [f"{run}-%"]).fetchall()]

    wait_until(lambda: len(found()) == count, seconds=60, what="all events are committed")
    return found()


def main() -> None:
    server = PostgreSQL(track_commit_timestamp="on")
    os.environ["TEST_DATABASE_URL"] = server.url()
    try:
        with database() as connection, worker("booking_platform"):
            time.sleep(5)
            measure(connection, RATE)  # opens the pool's connections
            latencies = measure(connection, RATE * SECONDS)
    finally:
        server.remove()
    cuts = statistics.quantiles(latencies, n=100)
    console.print(
        f"publish to commit at {RATE} events/s, {len(latencies)} events, in ms: "
        f"median {cuts[49]:.1f}, 90 % {cuts[89]:.1f}, 99 % {cuts[98]:.1f}, worst {latencies[-1]:.1f}"
    )


if __name__ == "__main__":
    main()
