"""Latency: from just before a publish until its transaction is committed.

PostgreSQL itself says when (``track_commit_timestamp``, on a private server), so that no observer
takes time from what it observes. Events are published on a fixed schedule, whatever becomes of them.
"""

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

from bench import broker
from bench.broker import Outgoing
from bench.contenders.contender import Contender, Ground
from bench.database import database, make_tours
from bench.runs import LONGEST_RUN, Run
from bench.workloads import CREATED, Load
from booking_platform.contract.examples import booking_created
from booking_platform.development.processes import running
from tests.servers import PostgreSQL, wait_until

RATE = 100  # events a second
HALF = 0.5  # of the rate that was measured
SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
TOURS = 200
WARM_UP = 300  # events, which open the connections

LATENCIES = (
    "SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - occurred_at)"
    " FROM processed_events WHERE aggregate_id LIKE %s ORDER BY 1"
)


def measure(contenders: list[tuple[Contender, float]], ground: Ground) -> Iterator[Run]:
    """Yield the latencies of contenders, each given with the rate that it reached before (0: unknown).

    At ``RATE``, and at half of the rate where that is known.
    """
    server = PostgreSQL(track_commit_timestamp="on")
    kept = {name: os.environ[name] for name in ("DATABASE_URL", "VAR_DIR")}
    try:
        with database(server.url()) as connection:
            there = replace(ground, connection=connection, database_url=os.environ["DATABASE_URL"])
            for contender, reached in contenders:
                yield from _of(contender, there, reached)
    finally:
        os.environ |= kept
        server.remove()


def _of(contender: Contender, ground: Ground, reached: float) -> Iterator[Run]:
    contender.prepare(ground)
    processes = contender.processes(ground)
    with running(*processes):
        _latencies(contender, ground, RATE, WARM_UP)
        yield _run(contender, ground, RATE, "")
        if reached * HALF > RATE:
            yield _run(contender, ground, reached * HALF, ", half load")


def _run(contender: Contender, ground: Ground, rate: float, suffix: str) -> Run:
    count, begun = int(rate * SECONDS), os.getloadavg()[0]
    seconds, latencies = _latencies(contender, ground, rate, count)
    cuts = statistics.quantiles(latencies, n=100)
    run = Run("latency", contender.name + suffix, 1, "events", count, count, seconds)
    run.notes = {"p50_ms": cuts[49], "p99_ms": cuts[98], "worst_ms": latencies[-1]}
    run.load_begin, run.load_end = begun, os.getloadavg()[0]
    return run


def _latencies(
    contender: Contender, ground: Ground, rate: float, count: int
) -> tuple[float, list[float]]:
    """Publish events at a rate; return how long that took, and their latencies in ms, sorted."""
    run, tours = uuid4().hex[:8], make_tours(ground.connection, TOURS)
    load = Load(CREATED, [], held=0, reserved=count)

    def events() -> Iterator[Outgoing]:
        for at in range(count):
            event = booking_created(tours[at % TOURS], f"{run}-{at}")
            yield contender.outgoing(load, event)

    begun = time.monotonic()
    broker.publish(ground.rabbitmq_url, events(), pause=1 / rate)
    seconds = time.monotonic() - begun

    def found() -> list[float]:
        rows = ground.connection.execute(LATENCIES, [f"{run}-%"])
        return [float(row[0]) for row in rows.fetchall()]

    wait_until(lambda: len(found()) == count, seconds=LONGEST_RUN, what="all are committed")
    return seconds, found()
