"""The CPU time of PostgreSQL's sessions, as the benchmarks read it."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from bench.cpu import POSTGRESQL, Meter, listener
from tests.servers import PostgreSQL, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.once, pytest.mark.private_postgresql]

WORK = "SELECT count(*) FROM generate_series(1, 2000000) AS n WHERE n % 7 = 3"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = PostgreSQL(max_parallel_workers_per_gather="0", autovacuum="off")
    try:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE ours")
            connection.execute("CREATE DATABASE theirs")
        yield server.url("ours")
    finally:
        server.remove()


@pytest.fixture
def meter(url: str) -> Meter:
    postmaster = listener(urlsplit(url).port or 0)
    assert postmaster is not None
    return Meter(database="ours", postmaster=postmaster, broker=None, roots=[os.getpid()])


def work(url: str, meter: Meter | None = None) -> float:
    """Work in a session until the server has waited for its end; return what the meter said before that."""
    with psycopg.connect(url) as connection:
        session = connection.info.backend_pid
        connection.execute(WORK)
        alive = meter.read()[POSTGRESQL] if meter else 0.0
    wait_until(lambda: not psutil.pid_exists(session), what="the session has ended")
    return alive


class TestSessions:
    def test_one_that_has_ended_stays_in_the_sum_once(self, url: str, meter: Meter) -> None:
        before = meter.read()[POSTGRESQL]
        alive = work(url, meter) - before
        ended = meter.read()[POSTGRESQL] - before

        assert alive > 0.05
        assert ended == pytest.approx(alive, abs=0.03)

    def test_one_that_came_and_went_unseen_is_in_the_sum(self, url: str, meter: Meter) -> None:
        before = meter.read()[POSTGRESQL]
        work(url)

        assert meter.read()[POSTGRESQL] - before > 0.05

    def test_those_of_other_databases_are_not(self, url: str, meter: Meter) -> None:
        before = meter.read()[POSTGRESQL]
        alive = work(url.replace("/ours", "/theirs"), meter) - before
        ended = meter.read()[POSTGRESQL] - before

        assert alive < 0.03
        assert ended < 0.03
