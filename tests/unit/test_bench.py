"""The benchmarks' own arithmetic: what would be wrong without anybody seeing it."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection

from bench.checks import WrongResult, ledger, raise_if_any
from bench.cpu import MAIN, POOL, Meter
from bench.figures import lines
from bench.outside import once_each
from bench.runs import Run
from bench.workloads import CREATED, Load
from booking_platform.messaging import inbox
from booking_platform.messaging.rules import CONSUMERS
from catalog.models import Reservation, Tour
from tests.events import created, deliveries
from tests.factories import TourFactory

SECONDS = 0.3  # of CPU time that each part of the program below uses

BURNING = f"""
import os, sys, threading, time

def burn():
    end = time.thread_time() + {SECONDS}
    while time.thread_time() < end:
        pass

print("ready", flush=True)
sys.stdin.readline()
burn()
thread = threading.Thread(target=burn)
thread.start()
thread.join()
for _ in range(3):
    if os.fork() == 0:
        burn()
        os._exit(0)
    os.wait()
print("done", flush=True)
sys.stdin.readline()
"""


def run(contender: str, seconds: float, **over: Any) -> Run:
    given = Run("spread", contender, 1, "events", 100, 100, seconds, {MAIN: seconds / 10})
    return replace(given, **over)


@pytest.mark.once
class TestAMeter:
    def test_it_counts_threads_and_children_that_have_ended(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", BURNING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdout.readline()  # to start Python costs CPU time, too
            meter = Meter(database="", postmaster=None, broker=None, roots=[process.pid])
            before = meter.read()
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            after = meter.read()
            process.communicate("\n")

        assert after[MAIN] - before[MAIN] == pytest.approx(2 * SECONDS, abs=0.1)
        assert after[POOL] - before[POOL] == pytest.approx(3 * SECONDS, abs=0.15)

    def test_a_child_is_not_counted_again_when_it_has_ended(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", BURNING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        meter = Meter(database="", postmaster=None, broker=None, roots=[os.getpid()])
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        meter.read()
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        alive = meter.read()[POOL]
        child.communicate("\n")

        assert meter.read()[POOL] == pytest.approx(alive, abs=0.1)

    def test_a_server_that_cannot_be_seen_has_no_figure(self) -> None:
        meter = Meter(database="", postmaster=None, broker=None, roots=[os.getpid()])

        assert meter.read().keys() == {MAIN, POOL}


@pytest.mark.once
class TestLines:
    def test_they_have_the_median_the_least_and_the_most(self) -> None:
        [line] = lines([run("platform", seconds) for seconds in (1, 10, 2)])

        assert (line.rate, line.least, line.most, line.runs) == (50, 10, 100, 3)
        assert line.cost == {MAIN: 2000.0}

    def test_the_ratio_is_to_the_lesson_on_the_same_workload(self) -> None:
        runs = [run("platform", 1), run("lesson", 4), run("platform", 1, workload="hot")]

        assert [line.ratio for line in lines(runs)] == [4, 1, None]


@pytest.mark.once
class TestOnceEach:
    @pytest.mark.parametrize(
        ("found", "finding"),
        [
            ({"a": 1}, "mails missing: 1, such as b"),
            ({"a": 1, "b": 2}, "mails done twice: 1, such as b"),
            ({"a": 1, "b": 1, "c": 1}, "mails unknown: 1, such as c"),
        ],
    )
    def test_it_finds_what_was_not(self, found: dict[str, int], finding: str) -> None:
        assert list(once_each("mails", found, ["a", "b"])) == [finding]

    def test_it_finds_nothing_where_all_was(self) -> None:
        assert list(once_each("mails", {"a": 1, "b": 1}, ["a", "b"])) == []


@pytest.mark.django_db
class TestTheCheckOfTheLedger:
    @pytest.fixture
    def load(self) -> Load:
        """A booking, a duplicate of it, and one for which there is no seat; all of it processed."""
        tours = [TourFactory.create(capacity=9), TourFactory.create(capacity=0)]
        [first, second] = [created(tour.pk, f"BK-{tour.pk}") for tour in tours]
        events = [first, first, second]
        consumer = CONSUMERS["tour-catalog.booking-created"]
        inbox.process(consumer, deliveries(*events))
        return Load(CREATED, events, held=0, reserved=1, rejected=1, duplicates=1)

    def findings(self, load: Load) -> list[str]:
        connection.ensure_connection()
        raw: Any = connection.connection
        return list(ledger(raw, load, counts_repeats=True))

    def test_it_finds_nothing_wrong_with_what_is_right(self, load: Load) -> None:
        assert self.findings(load) == []

    def test_it_finds_a_lost_booking(self, load: Load) -> None:
        Reservation.objects.filter(state="reserved").delete()

        assert "reservations: 0 instead of 1" in self.findings(load)
        assert "tours whose seats do not add up: 1 instead of 0" in self.findings(load)

    def test_it_finds_seats_that_were_taken_twice(self, load: Load) -> None:
        Tour.objects.filter(capacity=9).update(available_seats=7, reserved_seats=2)

        assert "seats of tours: 2 instead of 1" in self.findings(load)

    def test_it_finds_duplicates_that_did_not_come(self, load: Load) -> None:
        findings = self.findings(replace(load, duplicates=2))

        assert "duplicates: 1 instead of 2" in findings

    def test_what_it_finds_ends_the_run(self) -> None:
        with pytest.raises(WrongResult, match="one; another"):
            raise_if_any(["one", "another"])
