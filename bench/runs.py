"""One run: events that wait in a queue, a contender that takes them, and what it cost."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from bench import broker, database
from bench.checks import check
from bench.contenders.contender import Contender, Ground
from bench.cpu import Meter, listener
from bench.workloads import Load, Workload
from booking_platform.development.processes import PythonProcess, running

FROM = 0.1  # of the events: what comes before is start-up
LONGEST_RUN = 300  # seconds
SHORTEST_LOOK = 0.02  # seconds between looks at the database
LOOKS_COST = 0.05  # of the time, at most, is spent on looking


@dataclass
class Run:
    """What one run came to; a figure that was not measured is none."""

    workload: str
    contender: str
    number: int
    unit: str  # of what is counted
    count: int  # published, or given
    measured: float  # of these, between the two moments
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)  # seconds by kind of process
    lost: int = 0
    ideal: float | None = None  # a second: what the world outside allows
    notes: dict[str, float] = field(default_factory=dict)
    load_begin: float = 0.0  # of the machine, over the last minute
    load_end: float = 0.0

    @property
    def rate(self) -> float:
        """Return how many were done in a second."""
        return self.measured / self.seconds

    def cost(self, kind: str) -> float | None:
        """Return microseconds of CPU time for each by a kind of process."""
        return 1e6 * self.cpu[kind] / self.measured if kind in self.cpu else None


class Stalled(Exception):
    """A contender has ended, or was not done in time."""


def measure(
    contender: Contender, workload: Workload, ground: Ground, *, count: int, number: int
) -> Run:
    """Have a contender work on a workload, check the result, and return what it cost.

    Raises:
        WrongResult: events were lost, or took effect twice.
        Stalled: it was not done in time.
    """
    database.empty(ground.connection)
    load = workload.make(ground.connection, count)
    contender.prepare(ground)
    messages = (contender.outgoing(load, event) for event in load.events)
    broker.publish(ground.rabbitmq_url, messages)
    ground.connection.execute("CHECKPOINT")
    processes = contender.processes(ground)
    begun = os.getloadavg()[0]
    with running(*processes):
        progress = partial(contender.changed, ground, load)
        measuring = meter(ground, [each.process.pid for each in processes])
        seconds, done, cpu = watch(measuring, processes, progress, load.change)
        wait_for_the_rest(contender, ground, load, processes)
    check(contender, ground, load)
    return Run(
        workload.name,
        contender.name,
        number,
        "events",
        count,
        done * count / load.change,
        seconds,
        cpu,
        lost=contender.lost(ground),
        load_begin=begun,
        load_end=os.getloadavg()[0],
    )


def meter(ground: Ground, pids: Sequence[int]) -> Meter:
    """Return a meter of the servers and of processes that were started."""
    at, rabbitmq = urlsplit(ground.database_url), urlsplit(ground.rabbitmq_url)
    return Meter(
        database=at.path.strip("/"),
        postmaster=listener(at.port or 5432),
        broker=listener(rabbitmq.port or 5672),
        roots=pids,
        observer=ground.connection.info.backend_pid,
    )


def watch(
    measuring: Meter,
    processes: Sequence[PythonProcess],
    progress: Callable[[], int],
    end: int,
    *,
    begin: int | None = None,
) -> tuple[float, int, dict[str, float]]:
    """Watch a number grow; return seconds, growth and CPU time by kind, from ``begin`` to its end.

    Without ``begin`` that is a tenth of ``end``.

    Raises:
        Stalled: a process has ended, or it was not there in time.
    """
    wait_for(measuring, processes, progress, int(end * FROM) if begin is None else begin)
    cpu, first, at = measuring.read(), progress(), time.monotonic()
    last, ended = wait_for(measuring, processes, progress, end)
    after = measuring.read()
    return ended - at, last - first, {kind: after[kind] - cpu[kind] for kind in cpu}


def wait_for(
    measuring: Meter, processes: Sequence[PythonProcess], progress: Callable[[], int], until: int
) -> tuple[int, float]:
    """Wait until a number has grown so far; return it, and when that was seen (``time.monotonic``).

    Raises:
        Stalled: a process has ended, or it was not there in time.
    """
    deadline = time.monotonic() + LONGEST_RUN
    read_at = time.monotonic()
    while True:
        asked = time.monotonic()
        found = progress()
        now = time.monotonic()
        if found >= until:
            return found, now
        _stop_if_stalled(processes, now > deadline, f"{found:,} of {until:,}")
        if now - read_at > 1:  # remembers processes that will have ended
            measuring.read()
            read_at = now
        time.sleep(max(SHORTEST_LOOK, (now - asked) / LOOKS_COST))


def wait_for_the_rest(
    contender: Contender, ground: Ground, load: Load, processes: Sequence[PythonProcess]
) -> None:
    """Wait until what changes no seat is done, too: duplicates, and bookings without seats."""
    deadline = time.monotonic() + LONGEST_RUN
    query = "SELECT count(*) + coalesce(sum(repeats), 0) FROM processed_events"
    wanted = load.distinct
    if contender.counts_repeats:
        wanted += load.duplicates
    while any(broker.waiting(ground.rabbitmq_url, queue) for queue in contender.queues(load)) or (
        contender.keeps_ledger and database.number(ground.connection, query) < wanted
    ):
        late = time.monotonic() > deadline
        _stop_if_stalled(processes, late, "what changes no seat is not done")
        time.sleep(0.1)


def _stop_if_stalled(processes: Sequence[PythonProcess], late: bool, what: str) -> None:
    ended = [each for each in processes if each.process.poll() is not None]
    if late or ended:
        logs = "\n".join(each.log[-3000:] for each in ended or processes)
        raise Stalled(f"{what}; {'a process has ended' if ended else 'too late'}:\n{logs}")
