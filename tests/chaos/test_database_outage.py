"""A database that goes away: workers wait in place, and nothing is parked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.events import created
from tests.platform import Platform
from tests.servers import FORGETFUL, PostgreSQL, can_start_postgresql

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not can_start_postgresql(), reason="needs PostgreSQL's own binaries"),
]

EVENTS = 3000
LATE = 100  # of them: they come in the outage, however quick the worker was
OUTAGE_SECONDS = 8


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    server = PostgreSQL(**FORGETFUL)
    try:
        yield server
    finally:
        server.remove()


def ask(server: PostgreSQL, question: str) -> int:
    with psycopg.connect(server.url(), connect_timeout=60) as connection:
        row = connection.execute(question).fetchone()
        assert row is not None
        return int(row[0])


def set_up(platform: Platform, server: PostgreSQL) -> None:
    """Have the workers use this database, which gets one tour."""
    platform.environment["DATABASE_URL"] = server.url()
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        env=os.environ | platform.environment,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    insert = (
        "INSERT INTO tours (id, name, description, price, capacity, available_seats,"
        " reserved_seats, unledgered_seats, optimistic_lock_version, created_at, updated_at)"
        " VALUES (1, 'Outage', '', 1, 100000, 100000, 0, 0, 0, now(), now()) RETURNING 1"
    )
    ask(server, insert)


class TestOutage:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
    def test_workers_wait_and_everything_is_done_after(
        self, platform: Platform, server: PostgreSQL, how: signal.Signals
    ) -> None:
        set_up(platform, server)
        worker = platform.start()
        platform.publish(created(1, f"B{n}") for n in range(EVENTS - LATE))
        count = "SELECT count(*) FROM reservations"
        platform.wait_for(lambda: ask(server, count) > 200, "some events are done")

        server.stop(how)
        platform.publish(created(1, f"B{n}") for n in range(EVENTS - LATE, EVENTS))
        platform.wait_for(lambda: "waiting in place" in worker.log, "the worker notices")
        time.sleep(OUTAGE_SECONDS)
        assert worker.process.poll() is None
        server.start()

        platform.wait_for(lambda: ask(server, count) == EVENTS, "all events are done", 300)
        assert ask(server, "SELECT reserved_seats FROM tours") == EVENTS
        assert ask(server, "SELECT count(*) FROM dead_letters") == 0

    def test_workers_that_are_killed_meanwhile_harm_no_event(
        self, platform: Platform, server: PostgreSQL
    ) -> None:
        set_up(platform, server)
        platform.publish(created(1, f"B{n}") for n in range(EVENTS))
        server.stop()
        for _ in range(4):
            worker = platform.start("-c", "2", "-Q", "catalog", EVENT_DELIVERY_LIMIT="2")
            platform.wait_for(lambda log=worker: "waiting in place" in log.log, "it waits")
            worker.kill()
        server.start()
        platform.start("-c", "2", EVENT_DELIVERY_LIMIT="2")

        count = "SELECT count(*) FROM reservations"
        platform.wait_for(lambda: ask(server, count) == EVENTS, "all events are done", 300)
        assert ask(server, "SELECT count(*) FROM dead_letters") == 0
