"""Events published, a worker that commits them, and what that costs, by process."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from bench import broker
from bench.broker import Outgoing
from bench.contenders.contender import message
from bench.contenders.platform import CREATED_QUEUE, EXCHANGE
from bench.cpu import Meter, listener
from bench.runs import watch
from bench.workloads import CREATED
from booking_platform.contract.examples import Json, body, booking_created
from booking_platform.development.processes import CeleryProcess, running
from tests.servers import wait_until

WARM_UP = 2000  # events after whose commit a measurement begins
SECONDS = 900  # for what is waited for


class Database(NamedTuple):
    """A database of the benchmark, and a connection that watches it."""

    name: str
    url: str
    connection: psycopg.Connection

    def one(self, sql: str) -> int:
        row = self.connection.execute(sql).fetchone()
        return int(row[0] or 0) if row else 0

    @property
    def committed(self) -> int:
        """How many events were processed so far, from the last id: no table is counted.

        A lost race uses up ids, too. There is none while two groups have no tour in common.
        """
        return self.one("SELECT max(id) FROM processed_events")

    @property
    def waiting(self) -> int:
        return self.one("SELECT count(*) FROM outbox WHERE published_at IS NULL")


class Measured(NamedTuple):
    events: int
    seconds: float
    cpu: dict[str, float]  # seconds of CPU time by kind of process

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def each(self, kind: str) -> float:
        """Return the microseconds of CPU time that an event has cost in these processes."""
        return 1e6 * self.cpu[kind] / self.events


def purge() -> None:
    """Drop the events that wait, of a measurement that is over."""
    broker.purge(os.environ["RABBITMQ_URL"], [CREATED_QUEUE])


def publish(count: int, *, first: int, tours: int, rate: float | None = None) -> None:
    """Publish creations of new bookings; with ``rate``, so many a second."""
    messages = (
        Outgoing(EXCHANGE, CREATED, message(body(_event(number, first, tours))))
        for number in range(count)
    )
    broker.publish(os.environ["RABBITMQ_URL"], messages, pause=1 / rate if rate else 0.0)


def _event(number: int, first: int, tours: int) -> Json:
    return booking_created(1 + (number * 7919) % tours, f"BK-{first + number}")


class Load:
    """Events that come for as long as a block runs: at a rate, or as many as a worker can take."""

    AHEAD = 20_000  # events that wait in the queue, where there is no rate
    AT_ONCE = 2_000

    def __init__(
        self, database: Database, *, first: int, tours: int, rate: float | None = None
    ) -> None:
        self.before = database.committed
        self._url, self._first, self._tours, self._rate = database.url, first, tours, rate
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        published, at_once = 0, int(self._rate or self.AT_ONCE)
        with psycopg.connect(self._url, autocommit=True) as connection:
            database = Database("", self._url, connection)
            while not self._stop.is_set():
                if (
                    self._rate is None
                    and published - (database.committed - self.before) > self.AHEAD
                ):
                    self._stop.wait(0.05)
                    continue
                first = self._first + published
                publish(at_once, first=first, tours=self._tours, rate=self._rate)
                published += at_once


@contextmanager
def worker(database: Database, *, env: Mapping[str, str] | None = None) -> Iterator[CeleryProcess]:
    """Run a worker with two pool processes for as long as a block runs."""
    log = Path(os.environ["VAR_DIR"]) / f"worker-{uuid4().hex[:6]}.log"
    process = CeleryProcess(
        log, "worker", "-c", "2", env={"DATABASE_URL": database.url, **(env or {})}
    )
    with running(process):
        yield process


def measure(database: Database, *, events: int, first: int, tours: int) -> Measured:
    """Have events committed that wait in their queue; what they announce is published before this ends."""
    publish(events, first=first, tours=tours)
    database.connection.execute("CHECKPOINT")
    before = database.committed
    newest = database.one("SELECT max(id) FROM reservations")
    with worker(database) as process:
        seconds, done, cpu = watch(
            _meter(database, process.process.pid),
            [process],
            lambda: database.committed - before,
            events,
            begin=WARM_UP,
        )
        wait_until(lambda: database.waiting == 0, seconds=SECONDS, what="all announcements")
    there = database.one(f"SELECT count(*) FROM reservations WHERE id > {newest}")
    assert there == events, f"{events} events have made {there} reservations"
    used = database.committed - before
    assert used == events, f"{used} ids were used for {events} events: the rate is wrong"
    return Measured(done, seconds, cpu)


def _meter(database: Database, worker_pid: int) -> Meter:
    return Meter(
        database=database.name,
        postmaster=listener(urlsplit(database.url).port or 5432),
        broker=None,
        roots=[worker_pid],
        observer=database.connection.info.backend_pid,
    )


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_of(pid: int) -> int:
    """Return the kilobytes that a process has for itself alone.

    Its share of what it has in common with others (PSS) changes when those others end.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
