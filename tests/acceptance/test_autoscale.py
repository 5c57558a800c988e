"""A worker that may grow: ``--autoscale``."""

import os
from pathlib import Path

import pytest

from catalog.models import Tour
from tests.events import created
from tests.platform import Platform, Worker, assert_adds_up
from tests.servers import PATIENCE

FAULTY = "tests.faulty"


def processes(worker: Worker) -> int:
    return len(worker.pool())


class TestAutoscale:
    @pytest.mark.servers  # a group that is slow holds up all others on SQLite
    @pytest.mark.parametrize(("limits", "least"), [("4,1", 1), ("3", 0)])
    def test_the_pool_grows_under_load_and_shrinks_after(
        self, platform: Platform, tour: Tour, limits: str, least: int
    ) -> None:
        most = int(limits.split(",", maxsplit=1)[0])
        gate: Path = platform.folder / "gate"
        gate.touch()
        worker = platform.start(
            "--autoscale", limits, "-Q", "catalog",
            app=FAULTY, SLOW_WHILE=str(gate), AUTOSCALE_KEEPALIVE="1",
        )  # fmt: skip
        assert processes(worker) == least
        for number in range(1, most + 1):  # each is a group of its own
            platform.publish([created(tour.pk, f"slow-{number}")])
            platform.wait_for((platform.folder / "slow-started").exists, "the first runs")
            enough = max(number, least)
            platform.wait_for(
                lambda: processes(worker) == enough,  # noqa: B023
                f"{enough} processes are at work",
            )
        gate.unlink()
        platform.wait_for_processed(most)
        platform.wait_for(lambda: processes(worker) == least, f"{least} are left")
        platform.publish(created(tour.pk, f"B-{number}") for number in range(100))
        platform.wait_for_processed(most + 100)
        assert_adds_up(tour)
        assert tour.reserved_seats == most + 100

    def test_threads_can_not_and_the_worker_says_so(self, platform: Platform) -> None:
        worker = platform.start("-P", "threads", "--autoscale", "4,1", wait=False)
        assert worker.process.wait(PATIENCE) == os.EX_CONFIG
        assert "leave --autoscale out" in worker.log
