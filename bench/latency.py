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

import psycopg

from bench import broker
from bench.broker import Outgoing
from bench.contenders.contender import Contender, Ground
from bench.database import database, make_tours
from bench.runs import LONGEST_RUN, Run
from bench.workloads import CREATED, Load
from booking_platform.contract.examples import booking_created
from booking_platform.development.processes import running
from tests.servers import PostgreSQL, wait_until

WORKLOAD = "latency"
RATE = 100  # events a second
SHARES = {"half": 0.5, "a quarter": 0.25}  # of the rate that was measured
KEPT_PACE = 0.95  # of the rate: what is published more slowly is said to be
SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
TOURS = 200
WARM_UP = 300  # events, which open the connections

LATENCIES = (
    "SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - occurred_at)"
    " FROM processed_events WHERE aggregate_id LIKE %s ORDER BY 1"
)


def measure(contenders: list[tuple[Contender, float]], ground: Ground) -> Iterator[Run]:
    """Yield the latencies of contenders, each given with the rate that it reached before (0: unknown).

    At ``RATE``, and at shares of the rate where that is known: while events are published, the publisher and
    what the broker does to take them in have a part of the machine, which they had not before. First come those of commits alone, which have
    neither a broker nor a worker: what stalls them is the machine, or PostgreSQL.
    """
    server = PostgreSQL(track_commit_timestamp="on")
    kept = {name: os.environ[name] for name in ("DATABASE_URL", "VAR_DIR")}
    try:
        with database(server.url()) as connection:
            there = replace(ground, connection=connection, database_url=os.environ["DATABASE_URL"])
            yield _commits_alone(connection)
            for contender, reached in contenders:
                yield from _of(contender, there, reached)
    finally:
        os.environ |= kept
        server.remove()


def _commits_alone(connection: psycopg.Connection) -> Run:
    """Return how long an INSERT of one row takes at ``RATE``, each a transaction of its own."""
    connection.execute("CREATE TABLE commits_alone (id bigint PRIMARY KEY, at timestamptz)")
    count, latencies, load = int(RATE * SECONDS), list[float](), os.getloadavg()[0]
    begun = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        at = time.perf_counter()
        connection.execute("INSERT INTO commits_alone VALUES (%s, now())", [number])
        latencies.append(1000 * (time.perf_counter() - at))
    return _told("commits alone", "commits", sorted(latencies), time.perf_counter() - begun, load)


def _of(contender: Contender, ground: Ground, reached: float) -> Iterator[Run]:
    contender.prepare(ground)
    processes = contender.processes(ground)
    with running(*processes):
        _latencies(contender, ground, RATE, WARM_UP)
        yield _run(contender, ground, RATE, "")
        for words, share in SHARES.items():
            if reached * share > RATE:
                yield _run(contender, ground, reached * share, f", {words} of the load")


def _run(contender: Contender, ground: Ground, rate: float, suffix: str) -> Run:
    count, begun = int(rate * SECONDS), os.getloadavg()[0]
    seconds, latencies = _latencies(contender, ground, rate, count)
    if count / seconds < KEPT_PACE * rate:
        suffix += f", of {rate:,.0f} wanted"  # the benchmark could not publish as many
    return _told(contender.name + suffix, "events", latencies, seconds, begun)


def _told(name: str, unit: str, latencies: list[float], seconds: float, load: float) -> Run:
    """Return a run that says how latencies in ms, which are sorted, are spread."""
    cuts = statistics.quantiles(latencies, n=100)
    run = Run(WORKLOAD, name, 1, unit, len(latencies), len(latencies), seconds)
    run.notes = {"p50_ms": cuts[49], "p99_ms": cuts[98], "worst_ms": latencies[-1]}
    run.load_begin, run.load_end = load, os.getloadavg()[0]
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
