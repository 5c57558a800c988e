"""Beat's schedule, on a machine whose clock is set back while it runs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from celery.beat import PersistentScheduler

from booking_platform.messaging import sweeps
from booking_platform.messaging.beat import Scheduler
from booking_platform.messaging.rules import SWEEPS
from tests.platform import Platform

DAYS = timedelta(days=40)


@pytest.fixture(params=[Scheduler, PersistentScheduler], ids=["ours", "Celery's"])
def scheduler(request: pytest.FixtureRequest, tmp_path: Path, platform: Platform) -> Iterator[Any]:
    """A running schedule of the sweeps, each of which has been sent once."""
    scheduler = request.param(app=current_app, schedule_filename=str(tmp_path / "schedule"))
    scheduler.update_from_dict(sweeps.beat_entries())
    for entry in scheduler.schedule.values():
        entry.last_run_at -= timedelta(minutes=2)
    while scheduler.tick() == 0:
        pass
    yield scheduler
    scheduler.close()


def set_back(scheduler: Any) -> None:
    """Make the times in the schedule those of a clock that was ahead until now."""
    for entry in scheduler.schedule.values():
        entry.last_run_at += DAYS
    heap = scheduler._heap
    heap[:] = [event._replace(time=event.time + DAYS.total_seconds()) for event in heap]


def longest_wait(scheduler: Any) -> float:
    """Return in how many seconds the last of the sweeps is due."""
    sweeps = [entry for entry in scheduler.schedule.values() if entry.task in SWEEPS]
    return max(float(entry.is_due().next) for entry in sweeps)


def planned(scheduler: Any) -> list[float]:
    """Return in how many seconds Celery looks at each entry next."""
    return [event.time - scheduler._when(event.entry, 0) for event in scheduler._heap]


class TestAClockThatIsSetBack:
    def test_every_sweep_is_sent_within_its_interval(self, scheduler: Any) -> None:
        assert longest_wait(scheduler) <= 60
        set_back(scheduler)
        scheduler.tick()
        if type(scheduler) is PersistentScheduler:  # the negative control
            assert longest_wait(scheduler) > timedelta(days=39).total_seconds()
        else:
            assert longest_wait(scheduler) <= 60
            assert max(planned(scheduler)) <= 24 * 3600  # the cleanup is daily
