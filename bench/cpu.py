"""CPU time by kind of process, read from ``/proc`` from outside: nothing that is measured takes part.

The kernel counts the time of a task in nanoseconds (``schedstat``). What ended is in the count too: the
threads of a process by its own total, and its children by what it has waited for (``stat``, in ticks of
10 ms; PostgreSQL's postmaster waits for all its children).
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

TICKS = os.sysconf("SC_CLK_TCK")  # a second

POSTGRESQL, BACKGROUND, RABBITMQ, MAIN, POOL = KINDS = (
    "postgresql",  # sessions of the benchmark's database, with those that have ended
    "postgresql background",  # the server's own processes: WAL writer, checkpointer, …
    "rabbitmq",  # the whole broker, with all its virtual hosts
    "main",  # the processes that the benchmark has started
    "pool",  # their children
)
OTHERS = "sessions of other databases"

_BACKGROUND = (
    "checkpointer", "background writer", "walwriter", "autovacuum", "logical replication",
    "archiver", "walsender", "stats collector", "logger",
)  # fmt: skip


class Process(NamedTuple):
    """A process as ``/proc/<pid>/stat`` shows it; times in seconds."""

    pid: int
    parent: int
    started: int  # in ticks since the machine's start: tells it from a later one under its id
    own: float  # with the threads that have ended
    children: float  # those that it has waited for

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.started


def processes() -> dict[int, Process]:
    """Return all processes of the machine, by id."""
    return {found.pid: found for found in _found()}


def seconds_of(pid: int) -> float:
    """Return the CPU time of one process in seconds, as exactly as the kernel tells it.

    Raises:
        OSError: it has ended.
    """
    return seconds(_process(pid))


def _found() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                yield _process(int(name))


def _process(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = (sum(map(int, fields[at : at + 2])) / TICKS for at in (11, 13))
    return Process(pid, int(fields[1]), int(fields[19]), own, children)


def seconds(process: Process) -> float:
    """Return the CPU time of a process in seconds, as exactly as the kernel tells it.

    The tasks tell it to the nanosecond; the process's own total is rounded down, but has the threads
    that have ended.
    """
    total = 0
    with suppress(OSError):  # it has ended meanwhile
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with suppress(OSError):  # only this one has
                schedstat = Path(f"/proc/{process.pid}/task/{task}/schedstat").read_text()
                total += int(schedstat.split()[0])
    return max(total / 1e9, process.own)


def listener(port: int) -> int | None:
    """Return the process that listens on a port of this machine, if there is one that we may see."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return int(connection.pid) if connection.pid else None
    return None


class Meter:
    """The CPU time that kinds of processes have used since this was made."""

    def __init__(
        self,
        *,
        database: str,
        postmaster: int | None,
        broker: int | None,
        roots: Sequence[int],
        observer: int | None = None,
    ) -> None:
        """``observer`` is the session that looks at the database for the benchmark: it is left out."""
        self._database, self._observer = database, observer
        self._postmaster, self._broker, self._roots = postmaster, broker, set(roots)
        self._unseen = {POSTGRESQL, BACKGROUND} if postmaster is None else set[str]()
        if broker is None:
            self._unseen.add(RABBITMQ)
        self._seen: dict[tuple[int, int], tuple[str, float]] = {}
        self._gone: dict[str, float] = defaultdict(
            float
        )  # of processes that have ended, as last seen
        self._waited_for_before: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """Return seconds of CPU time by kind; only differences of two answers mean anything.

        A server on another machine, or one that this user may not look at, has none.

        A session of another database that began and ended between two calls counts for ours: call this
        every second where others use the server.
        """
        now = self._members()
        for key in self._seen.keys() - now.keys():
            kind, last = self._seen[key]
            self._gone[kind] += last
        self._seen = {key: (kind, used) for key, (kind, used, _) in now.items()}
        totals = defaultdict(float, self._gone)
        waited_for: dict[str, float] = defaultdict(float)
        for kind, used, children in now.values():
            totals[kind] += used
            waited_for[_kind_of_children(kind)] += children
        for kind, children in waited_for.items():
            began = self._waited_for_before.setdefault(kind, children)
            known = sum(self._gone[each] for each in _family(kind))
            totals[kind] += max(0.0, children - began - known)
        return {kind: totals[kind] for kind in KINDS if kind not in self._unseen}

    def _members(self) -> dict[tuple[int, int], tuple[str, float, float]]:
        """Return the processes that count: kind, own time, and that of children which have ended."""
        everything = processes()
        kinds = {pid: kind for pid in everything if (kind := self._kind(pid, everything))}
        return {
            process.key: (kinds[pid], seconds(process), process.children)
            for pid, process in everything.items()
            if pid in kinds
        }

    def _kind(self, pid: int, everything: dict[int, Process]) -> str:
        named: dict[int | None, str] = {
            self._postmaster: BACKGROUND,
            self._broker: RABBITMQ,
            self._observer: OTHERS,
            **dict.fromkeys(self._roots, MAIN),
        }
        if pid in named:
            return named[pid]
        parent = everything[pid].parent
        if parent == self._postmaster:
            return self._kind_of_session(pid)
        while parent in everything:
            if parent in self._roots:
                return POOL
            parent = everything[parent].parent
        return ""

    def _kind_of_session(self, pid: int) -> str:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return OTHERS
        if any(f": {name}" in title for name in _BACKGROUND):
            return BACKGROUND
        return POSTGRESQL if self._database in title.split() else OTHERS


def _kind_of_children(kind: str) -> str:
    """Return the kind of the children that processes of a kind have waited for."""
    return {BACKGROUND: POSTGRESQL, MAIN: POOL}.get(kind, kind)


def _family(kind: str) -> tuple[str, ...]:
    """Return the kinds of processes whose time goes to the same parents, when they end."""
    if kind == POSTGRESQL:
        return (POSTGRESQL, BACKGROUND, OTHERS)
    return (kind,)
