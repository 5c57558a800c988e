"""The parts of ``bench.growth``: each measures one thing that must not get worse, and prints it."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console
from rich.table import Table

from bench.cpu import BACKGROUND, MAIN, POOL, POSTGRESQL, seconds_of
from bench.growth_load import (
    Database,
    Load,
    Measured,
    children,
    measure,
    memory_of,
    publish,
    purge,
    worker,
)
from booking_platform.development.processes import CeleryProcess, running
from tests.servers import wait_until

console = Console()

KINDS = (MAIN, POOL, POSTGRESQL, BACKGROUND)
WINDOW = 20  # seconds of a measurement without cleanup
STEADY = 300  # events a second
SAMPLE, SETTLED = 50_000, 100_000  # events between samples of memory; events after which it is flat

Part = Callable[[Database, Database, Namespace], None]
PARTS: dict[str, Part] = {}

_firsts = count(5_000_000_000 + int(time.time()) * 100_000, 10_000_000)  # of the bookings made here


def part(run: Part) -> Part:
    PARTS[run.__name__] = run
    return run


@part
def size(empty: Database, full: Database, arguments: Namespace) -> None:
    """Compare the rates with empty and with full tables, in turns."""
    results: dict[str, list[Measured]] = {"empty": [], "full": []}
    table = Table("tables", "events/s", *(f"{kind}, µs" for kind in KINDS), "sum, µs", "load")
    before = _scans(full)
    for turn in range(arguments.turns):
        pair = [("empty", empty), ("full", full)]
        for name, each in pair if turn % 2 == 0 else reversed(pair):
            first = next(_firsts)
            one = measure(each, events=arguments.load, first=first, tours=arguments.tours)
            results[name].append(one)
            _add(table, name, [one])
    for name, those in results.items():
        _add(table, f"{name}, median", those)
    console.print(table)
    rates = {name: statistics.median(one.rate for one in each) for name, each in results.items()}
    console.print(f"full against empty: {rates['full'] / rates['empty']:.2f} of the rate")
    for name, scans in _scans(full).items():
        if more := scans - before.get(name, 0):
            console.print(f"{name}: {more} sequential scans")


def _add(table: Table, name: str, those: list[Measured]) -> None:
    each = [statistics.median(one.each(kind) for one in those) for kind in KINDS]
    table.add_row(
        name,
        f"{statistics.median(one.rate for one in those):,.0f}",
        *(f"{cost:.1f}" for cost in (*each, sum(each))),
        f"{os.getloadavg()[0]:.1f}",
    )


def _scans(database: Database) -> dict[str, int]:
    """Return how often each large table was read from one end to the other."""
    sql = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE n_live_tup > 50000"
    return dict(database.connection.execute(sql).fetchall())


@part
def cleanup(_: Database, full: Database, arguments: Namespace) -> None:
    """Measure what the cleanup of a tenth of the rows costs the events, twice: at full load, and at a rate."""
    for rate, days in ((None, arguments.keep), (STEADY, arguments.keep - 3)):
        console.print(f"cleanup that keeps {days} days, {rate or 'as many as it can'} events/s:")
        for name, window in _around_cleanup(full, rate, days, arguments):
            console.print(f"  {name}: {window}")


def _around_cleanup(
    full: Database, rate: int | None, days: int, arguments: Namespace
) -> Iterator[tuple[str, str]]:
    env = {"RETENTION_DAYS": str(days), "EMAIL_RETENTION_DAYS": str(days)}
    load = Load(full, first=next(_firsts), tours=arguments.tours, rate=rate)
    purge()
    with worker(full, env=env) as process, load.running():
        wait_until(lambda: full.committed > load.before, what="the first event")
        time.sleep(WINDOW / 4)
        yield "before", _window(full, lambda: False, WINDOW)
        old = full.one(f"SELECT count(*) FROM processed_events WHERE {_older(days)}")
        ask = ("-m", "celery", "-A", "booking_platform", "call", "messaging.cleanup")
        subprocess.run([sys.executable, *ask], check=True, stdout=subprocess.DEVNULL)
        during = _window(full, lambda: _cleaned(full, days), arguments.longest)
        left = full.one(f"SELECT count(*) FROM processed_events WHERE {_older(days)}")
        yield f"during, {old - left:,} of {old:,} processed events deleted", during
        if _cleaned(full, days):
            yield "after", _window(full, lambda: False, WINDOW)
        else:
            process.kill()  # it may wait for its cleanup for long


def _older(days: int) -> str:
    return f"processed_at < now() - interval '{days} days 1 hour 5 minutes'"


def _cleaned(database: Database, days: int) -> bool:
    """Return whether the cleanup is done: of the tables that are filled, the e-mails are its last."""
    events = f"SELECT 1 FROM processed_events WHERE {_older(days)} LIMIT 1"
    mails = (
        "SELECT 1 FROM cancellation_emails WHERE forgotten_at IS NULL"
        f" AND created_at < now() - interval '{days} days 5 minutes' LIMIT 1"
    )
    return not database.one(mails) and not database.one(events)


def _window(database: Database, done: Callable[[], bool], seconds: float) -> str:
    """Return in words what became of the events until ``done``, or for so many seconds.

    PostgreSQL says when they were committed (``track_commit_timestamp``).
    """
    begun, since = time.monotonic(), database.committed
    while time.monotonic() - begun < seconds and not done():
        time.sleep(1)
    took = time.monotonic() - begun
    commits = (
        "SELECT pg_xact_commit_timestamp(xmin) AS at, occurred_at FROM processed_events"
        f" WHERE id > {since} AND id <= {database.committed}"
    )
    pauses = f"SELECT *, at - lag(at) OVER (ORDER BY at) AS pause FROM ({commits}) AS commits"
    row = database.connection.execute(
        "SELECT count(*), extract(epoch FROM max(pause)),"
        " percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP"
        f" (ORDER BY 1000 * extract(epoch FROM at - occurred_at)) FROM ({pauses}) AS pauses"
    ).fetchone()
    assert row is not None
    events, pause, (middle, most, longest) = row
    return (
        f"{took:.0f} s, {events / took:,.0f} events/s, no commit for at most {pause:.2f} s; from an event's"
        f" timestamp to its commit: median {middle:,.0f} ms, 99 % {most:,.0f} ms, longest {longest:,.0f} ms"
    )


@part
def memory(empty: Database, _: Database, arguments: Namespace) -> None:
    """Sample what each process holds over a million events, and fit a straight line."""
    folder = Path(os.environ["VAR_DIR"])
    beat = CeleryProcess(folder / "beat.log", "beat", env={"DATABASE_URL": empty.url})
    load = Load(first=next(_firsts), tours=arguments.tours, database=empty)
    samples: dict[str, list[tuple[int, int]]] = {}
    with worker(empty) as process, running(beat), load.running():
        for events in range(SAMPLE, arguments.run + 1, SAMPLE):
            wait_until(lambda: empty.committed - load.before >= events, seconds=600, what="events")  # noqa: B023
            pids = {"main": process.process.pid, "beat": beat.process.pid}
            pool = sorted(children(process.process.pid))
            pids |= {f"pool {number}": pid for number, pid in enumerate(pool, 1)}
            for name, pid in pids.items():
                samples.setdefault(name, []).append((events, memory_of(pid)))
    table = Table("process", *(f"{events // 1000}k" for events, _ in samples["main"]), "KB/100k")
    for name, those in samples.items():
        settled = [each for each in those if each[0] >= SETTLED]
        slope = statistics.linear_regression(*zip(*settled, strict=True)).slope
        table.add_row(name, *(f"{kilobytes:,}" for _, kilobytes in those), f"{1e5 * slope:+.0f}")
    console.print(table)
    console.print(
        "kilobytes of its own; the last column is the slope of a straight line after 100k"
    )


@part
def start(empty: Database, __: Database, arguments: Namespace) -> None:
    """Measure from the start of a worker to the commit of an event that waits for it."""
    for _ in range(arguments.turns):
        publish(1, first=next(_firsts), tours=1)
        before, begun = empty.committed, time.monotonic()
        process = CeleryProcess(
            Path(os.environ["VAR_DIR"]) / "start.log",
            "worker",
            "-c",
            "2",
            env={"DATABASE_URL": empty.url},
        )
        with running(process):
            wait_until(lambda: empty.committed > before, seconds=60, what="the first commit")  # noqa: B023
            took = time.monotonic() - begun
            used = [
                seconds_of(pid) for pid in (process.process.pid, *children(process.process.pid))
            ]
            time.sleep(2)
        console.print(
            f"first commit after {took:.1f} s, {sum(used):.1f} s of CPU time; load {os.getloadavg()[0]:.1f}"
        )


@part
def idle(_: Database, __: Database, arguments: Namespace) -> None:
    """Measure what a worker and beat take of a core while nothing comes, on the embedded servers."""
    with _embedded() as env:
        folder = Path(env["VAR_DIR"])
        worker = CeleryProcess(folder / "worker.log", "worker", "-c", "2", env=env)
        beat = CeleryProcess(folder / "beat.log", "beat", env=env)
        with running(worker, beat):
            worker.wait_until_ready()
            time.sleep(15)
            pids = {"main": [worker.process.pid], "pool": children(worker.process.pid)}
            pids |= {"beat": [beat.process.pid]}
            before = {name: sum(map(seconds_of, those)) for name, those in pids.items()}
            time.sleep(arguments.idle)
            shares = {
                name: (sum(map(seconds_of, those)) - before[name]) / arguments.idle
                for name, those in pids.items()
            }
    each = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())
    console.print(f"idle: {100 * sum(shares.values()):.2f} % of a core ({each})")


@contextmanager
def _embedded() -> Iterator[dict[str, str]]:
    """Yield the environment of the embedded servers, with a database that is migrated."""
    env = {"DATABASE_URL": "", "RABBITMQ_URL": "", "LOG_LEVEL": "INFO"}
    env["VAR_DIR"] = mkdtemp(prefix="bp-bench-")
    try:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"], check=True, env=os.environ | env
        )
        yield env
    finally:
        shutil.rmtree(env["VAR_DIR"], ignore_errors=True)
