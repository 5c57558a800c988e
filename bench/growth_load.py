"""Events published, a worker that commits them, and what that costs, by process."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import amqp
import psycopg
from kombu.utils.url import parse_url

from booking_platform.contract.examples import body, booking_created
from booking_platform.development.processes import CeleryProcess, running
from tests.servers import wait_until

IN_FLIGHT = 2000  # events published and not confirmed yet
WARM_UP = 2000  # events after whose commit a measurement begins
SECONDS = 900  # for what is waited for

_TICK = os.sysconf("SC_CLK_TCK")


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
        """How many events were processed so far, from the last id: no table is counted."""
        return self.one("SELECT max(id) FROM processed_events")

    @property
    def waiting(self) -> int:
        return self.one("SELECT count(*) FROM outbox WHERE published_at IS NULL")


class Measured(NamedTuple):
    events: int
    seconds: float
    cpu: Counter[str]  # nanoseconds of CPU time by kind of process

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def each(self, kind: str) -> float:
        """Return the microseconds of CPU time that an event has cost in these processes."""
        return self.cpu[kind] / 1000 / self.events


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


def purge() -> None:
    """Drop the events that wait, of a measurement that is over."""
    with connect() as connection:
        connection.channel().queue_purge("tour-catalog.booking-created")


def publish(count: int, *, first: int, tours: int, rate: float | None = None) -> None:
    """Publish creations of new bookings with confirms; with ``rate``, so many a second."""
    confirmed = 0

    def confirm(tag: int, _multiple: bool) -> None:
        nonlocal confirmed
        confirmed = max(confirmed, tag)

    with connect() as connection:
        channel: Any = connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(confirm)
        begun = time.monotonic()
        for number in range(count):
            if rate:
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            event = booking_created(1 + (number * 7919) % tours, f"BK-{first + number}")
            message = amqp.Message(body(event), delivery_mode=2)
            channel._basic_publish(message, "booking-events", "booking.created")
            while number - confirmed > IN_FLIGHT:
                connection.drain_events(timeout=60)
        while confirmed < count:
            connection.drain_events(timeout=60)


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
        wait_until(lambda: database.committed - before >= WARM_UP, seconds=60, what="a warm worker")
        at, begun, cpu = database.committed, time.monotonic(), cpu_of(process.process.pid, database)
        wait_until(
            lambda: database.committed - before >= events, seconds=SECONDS, what="all events"
        )
        seconds = time.monotonic() - begun
        cpu = cpu_of(process.process.pid, database) - cpu
        measured = Measured(database.committed - at, seconds, cpu)
        wait_until(lambda: database.waiting == 0, seconds=SECONDS, what="all announcements")
    there = database.one(f"SELECT count(*) FROM reservations WHERE id > {newest}")
    assert there == events, f"{events} events have made {there} reservations"
    return measured


def cpu_of(worker_pid: int, database: Database) -> Counter[str]:
    """Return the nanoseconds of CPU time that the worker and the database server have used."""
    pids = database.connection.execute("SELECT pid, backend_type FROM pg_stat_activity").fetchall()
    used: Counter[str] = Counter()
    for pid, kind in pids:
        if pid != database.connection.info.backend_pid:
            used["backends" if kind == "client backend" else "server"] += nanoseconds_of(pid)
    used["server"] += _reaped(_parent(pids[0][0]))
    used["main"] = nanoseconds_of(worker_pid)
    for pid in children(worker_pid):
        used["pool"] += nanoseconds_of(pid)
    return used


def seconds_of(pid: int) -> float:
    return nanoseconds_of(pid) / 1e9


def nanoseconds_of(pid: int) -> int:
    """Return the CPU time of all threads of a process."""
    used = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            used += int(file.read_text().split()[0])
        except OSError:  # the thread has ended
            continue
    return used


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_of(pid: int) -> int:
    """Return the kilobytes that a process has for itself alone.

    Its share of what it has in common with others (PSS) changes when those others end.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _reaped(pid: int) -> int:
    """Return the CPU time of those children of a process that have ended."""
    user, system = _stat(pid)[13:15]
    return (int(user) + int(system)) * 1_000_000_000 // _TICK


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name of the process (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
