"""What changes as the platform's tables grow and as its processes run for long.

``python -m tests.servers python -m bench.growth [size] [cleanup] [memory] [start] [idle]`` runs the parts
that are named, or all of them, on a PostgreSQL of its own (``--set`` names its settings). ``size`` and
``cleanup`` fill a database first, which takes half an hour and 13 GB of disk for ten million events. ``--on``
names a server to use instead, whose databases ``growth_empty`` and ``growth_full`` are used as they are, and
stay.
"""

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory

import django
import psycopg
from kombu import Connection

from bench.growth_load import Database
from bench.growth_parts import PARTS, console
from bench.growth_rows import fill
from booking_platform.messaging.broker import declare
from tests.servers import PostgreSQL

NEED_FULL_TABLES = {"size", "cleanup"}

# A tenth of the memory of a small server for PostgreSQL, and checkpoints as far apart as it is usual there.
SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "4GB", "track_commit_timestamp": "on"}


def server(arguments: Namespace, cleanup: ExitStack) -> str:
    """Return the URL of the server, without a database."""
    if arguments.on:
        return str(arguments.on).rstrip("/")
    own = PostgreSQL(**SETTINGS | dict(each.split("=", 1) for each in arguments.set))
    cleanup.callback(own.remove)
    return own.url().rsplit("/", 1)[0]


def database(base: str, name: str) -> tuple[Database, bool]:
    """Return a database, migrated, and whether it was created for it."""
    with psycopg.connect(f"{base}/postgres", autocommit=True) as admin:
        found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not found:
            admin.execute(f"CREATE DATABASE {name}")
    url = f"{base}/{name}"
    if not found:
        env = os.environ | {"DATABASE_URL": url}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True, env=env)
    return Database(name, url, psycopg.connect(url, autocommit=True)), not found


@contextmanager
def databases(arguments: Namespace) -> Iterator[tuple[Database, Database]]:
    """Set up an empty and a full database, and the environment of the worker.

    Where no part needs the full one, it is the empty one.
    """
    names = {"growth_empty": 0}
    if NEED_FULL_TABLES.intersection(arguments.parts):
        names["growth_full"] = arguments.events
    with ExitStack() as cleanup:
        base = server(arguments, cleanup)
        os.environ |= {
            "DATABASE_URL": f"{base}/growth_empty",
            "RABBITMQ_URL": os.environ["TEST_RABBITMQ_URL"],
            "VAR_DIR": cleanup.enter_context(TemporaryDirectory(prefix="bp-bench-")),
            "LOG_LEVEL": "WARNING",
        }
        pair = []
        for name, events in names.items():
            each, new = database(base, name)
            cleanup.callback(each.connection.close)
            if new:
                for line in fill(each.connection, events=events, tours=arguments.tours):
                    console.print(f"{name}: {line}")
            pair.append(each)
        django.setup()  # registers the consumers
        with Connection(os.environ["RABBITMQ_URL"]) as broker:
            declare(broker)
        yield pair[0], pair[-1]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; without any, all of them")
    parser.add_argument("--events", type=int, default=10_000_000, help="in the full tables")
    parser.add_argument("--tours", type=int, default=20_000)
    parser.add_argument("--load", type=int, default=20_000, help="events of each measurement")
    parser.add_argument("--turns", type=int, default=3, help="of size and start")
    parser.add_argument("--keep", type=int, default=27, help="days that the first cleanup keeps")
    parser.add_argument(
        "--run", type=int, default=1_000_000, help="events of the part about memory"
    )
    parser.add_argument("--idle", type=int, default=60, help="seconds of the part about idleness")
    parser.add_argument("--longest", type=int, default=1800, help="seconds for a cleanup")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--on", help="URL of a server, without a database")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}")
    arguments.parts = arguments.parts or list(PARTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left running
    with databases(arguments) as (empty, full):
        for part in arguments.parts:
            PARTS[part](empty, full, arguments)


if __name__ == "__main__":
    main()
