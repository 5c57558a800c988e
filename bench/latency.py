"""Idle latency: from just before a publish until another connection sees the committed event.

Publishes on a fixed schedule, whatever the answers do, so that a slow answer is not hidden by the
next one's delay. The observer polls every millisecond: figures are too high by up to that.
"""

import json
import os
import statistics
import threading
import time
from uuid import uuid4

import amqp
import psycopg

from bench.throughput import connect, console, database, event, make_tours, worker

RATE = 100  # events a second
SECONDS = int(os.environ.get("BENCH_SECONDS", "20"))
TOURS = 20


def publish(run: str, tours: list[int], sent: dict[str, float]) -> None:
    with connect() as connection:
        channel = connection.channel()
        start = time.perf_counter()
        for number in range(RATE * SECONDS):
            due = start + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            body = json.dumps(event(run, number, tours[number % len(tours)]))
            sent[f"{run}-{number}"] = due
            channel.basic_publish(
                amqp.Message(body, delivery_mode=2), "booking-events", "booking.created"
            )


def observe(url: str, run: str, seen: dict[str, float]) -> None:
    newest = (
        "SELECT aggregate_id FROM processed_events WHERE aggregate_id LIKE %s"
        " ORDER BY id DESC LIMIT 50"
    )
    deadline = time.monotonic() + SECONDS + 30
    with psycopg.connect(url, autocommit=True) as connection:
        while len(seen) < RATE * SECONDS and time.monotonic() < deadline:
            rows = connection.execute(newest, [f"{run}-%"]).fetchall()
            now = time.perf_counter()
            for (booking,) in rows:
                seen.setdefault(booking, now)
            time.sleep(0.001)


def main() -> None:
    with database() as connection, worker("booking_platform"):
        time.sleep(5)
        run, sent, seen = uuid4().hex[:8], {}, {}
        tours = make_tours(connection, TOURS)
        observer = threading.Thread(target=observe, args=(os.environ["DATABASE_URL"], run, seen))
        observer.start()
        publish(run, tours, sent)
        observer.join()
        latencies = sorted(1000 * (seen[booking] - moment) for booking, moment in sent.items())
        cuts = statistics.quantiles(latencies, n=100)
        console.print(
            f"publish to commit at {RATE} events/s, {len(latencies)} events: "
            f"median {cuts[49]:.1f} ms, 90 % {cuts[89]:.1f} ms, 99 % {cuts[98]:.1f} ms, "
            f"worst {latencies[-1]:.1f} ms"
        )


if __name__ == "__main__":
    main()
