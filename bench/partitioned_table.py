"""Whether ``processed_events`` gains by being partitioned: claims and cleanup, against the plain table.

``python -m tests.servers python -m bench.partitioned_table --rows 2000000``. The unique key of event and
consumer must hold for the whole table, and PostgreSQL asks that it has the partition key in it: so the
partitions are by the hash of the event id. Both tables are filled alike, then worked on in turns.
``docs/scaling.md`` reads the figures.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from psycopg.abc import Query
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

from bench.cpu import seconds_of
from bench.database import database

PLAIN, HASHED = "processed_events", "processed_events_hashed"
COLUMNS = (
    "event_id, consumer, event_type, aggregate_id, fingerprint, outcome, occurred_at, processed_at"
)
GROUP = 200  # events of a claim
CLEANUP = 1000  # rows of a DELETE, as in retention.py
FILL = 100_000  # rows of a statement
DAYS = 30


class Cost(NamedTuple):
    """What a row costs: microseconds of the server's CPU time and of the clock, bytes of WAL."""

    cpu: float
    clock: float
    wal: float


class Session:
    """A session, and the process of the server that works for it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.run = connection.execute
        self._pid = connection.info.backend_pid

    def one(self, query: Query) -> Any:
        """Return the only value that a query finds."""
        row = self.run(query).fetchone()
        assert row is not None
        return row[0]

    def cost(self, work: Callable[[], int]) -> Cost:
        """Return what ``work`` costs for each row, of which it returns the number."""
        wal, cpu, begun = self._wal(), seconds_of(self._pid), time.monotonic()
        rows = work()
        clock = time.monotonic() - begun
        used = seconds_of(self._pid) - cpu
        return Cost(1e6 * used / rows, 1e6 * clock / rows, (self._wal() - wal) / rows)

    def _wal(self) -> int:
        return int(self.one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


def make_hashed(session: Session, partitions: int) -> None:
    """Create the partitioned table, with the columns, keys and indexes of the plain one."""
    table = Identifier(HASHED)
    session.run(
        SQL("CREATE TABLE {} (LIKE processed_events INCLUDING DEFAULTS) PARTITION BY HASH (event_id)")
        .format(table)
    )  # fmt: skip
    for number in range(partitions):
        part = SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES WITH (MODULUS {}, REMAINDER {})")
        session.run(part.format(Identifier(f"{HASHED}_{number}"), table, partitions, number))
    session.run(SQL("CREATE SEQUENCE hashed_ids; ALTER TABLE {0} ALTER id SET DEFAULT nextval('hashed_ids');"
        "ALTER TABLE {0} ADD PRIMARY KEY (id, event_id), ADD UNIQUE (event_id, consumer)").format(table))  # fmt: skip
    for column in ("event_type", "aggregate_id", "processed_at"):
        session.run(SQL("CREATE INDEX ON {} ({})").format(table, Identifier(column)))


def fill(session: Session, table: str, rows: int) -> None:
    """Insert rows as old as up to the retention, in the order of their time."""
    query = SQL(
        "INSERT INTO {} (" + COLUMNS + ") SELECT gen_random_uuid(), 'tour-catalog.booking-created',"
        " 'BookingCreated', 'B' || n, md5(n::text) || md5(n::text), 'reserved', t, t FROM"
        " (SELECT n, now() - make_interval(secs => {}::float * (1 - n::float / {})) t"
        " FROM generate_series({}::bigint, {}) n) made"
    )
    for first in range(1, rows + 1, FILL):
        last = min(rows, first + FILL - 1)
        session.run(query.format(Identifier(table), DAYS * 86_400, rows, first, last))
    session.run(SQL("VACUUM ANALYZE {}").format(Identifier(table)))


def claim(session: Session, table: str, groups: int) -> int:
    """Claim groups of new events, a transaction each; return how many events."""
    query = (
        SQL(
            "WITH given AS (SELECT * FROM json_to_recordset(%s::json) AS given(event_id text,"
            " consumer text, event_type text, aggregate_id text, fingerprint text, outcome text,"
            " occurred_at timestamptz, processed_at timestamptz)) INSERT INTO {} (" + COLUMNS + ")"
            " SELECT " + COLUMNS + " FROM given ON CONFLICT DO NOTHING RETURNING event_id"
        )
        .format(Identifier(table))
    )  # fmt: skip
    now = session.one("SELECT now()").isoformat()
    same = {
        "consumer": "tour-catalog.booking-created", "event_type": "BookingCreated", "outcome": "reserved",
        "fingerprint": uuid4().hex * 2, "occurred_at": now, "processed_at": now,
    }  # fmt: skip
    for _ in range(groups):
        ids = sorted(str(uuid4()) for _ in range(GROUP))
        found = [same | {"event_id": each, "aggregate_id": each} for each in ids]
        assert len(session.run(query, [json.dumps(found)]).fetchall()) == GROUP
    return groups * GROUP


def clean_up(session: Session, table: str, batches: int) -> int:
    """Delete the oldest rows by their keys, as ``retention.py`` does; return how many."""
    oldest = SQL("SELECT id FROM {} ORDER BY processed_at LIMIT {}")
    delete = SQL("DELETE FROM {} WHERE id IN ({})")
    for _ in range(batches):
        rows = session.run(oldest.format(Identifier(table), CLEANUP)).fetchall()
        keys = SQL(", ").join(key for (key,) in rows)
        assert session.run(delete.format(Identifier(table), keys)).rowcount == CLEANUP
    return batches * CLEANUP


def size(session: Session, table: str) -> float:
    """Return the gigabytes of a table with its indexes and partitions."""
    query = SQL(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE oid = {0}::regclass"
        " OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = {0}::regclass)"
    )
    return float(session.one(query.format(table))) / 1e9


def measure(session: Session, rows: int, rounds: int) -> None:
    """Print what claims and cleanup cost in both tables."""
    table = Table("rows", "work", "table", "CPU µs a row", "µs a row", "WAL bytes a row", "GB")
    for each in (PLAIN, HASHED):
        fill(session, each, rows)
    session.run("CHECKPOINT")
    for work, times in ((claim, 50), (clean_up, 10)):
        for _ in range(rounds):
            for each in (PLAIN, HASHED):
                cost = session.cost(partial(work, session, each, times))
                cells = [f"{rows:,}", work.__name__, each, *(f"{value:.1f}" for value in cost)]
                table.add_row(*cells, f"{size(session, each):.2f}")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.partitioned_table")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of each table")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left running
    with database(os.environ["TEST_DATABASE_URL"]) as connection:
        session = Session(connection)
        make_hashed(session, asked.partitions)
        measure(session, asked.rows, asked.rounds)


if __name__ == "__main__":
    main()
