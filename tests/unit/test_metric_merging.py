"""The files of processes that are gone: merged without a number lost or counted twice."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import mmap_key

from booking_platform.messaging import metric_merging, metric_page
from booking_platform.messaging.metric_files import content_of
from booking_platform.messaging.metric_merging import MANY, NOBODY, merge


@pytest.fixture
def gone() -> list[int]:
    """Ids that processes had which are gone."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    return [done.pid, *range(largest + 1, largest + 2 * MANY)]


def write(folder: Path, kind: str, pid: int | str, **numbers: float) -> Path:
    keys = {
        mmap_key("m", "m_total", ["kind"], [name], "help"): (number, 0.0)
        for name, number in numbers.items()
    }
    path = folder / f"{kind}_{pid}.db"
    path.write_bytes(content_of(keys)[0])
    return path


def shown(folder: Path) -> "Counter[str]":
    lines = metric_page.page(folder).decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith("m_total")]
    return Counter({name: int(float(value)) for name, _, value in samples})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestMerging:
    def test_no_number_is_lost_or_counted_twice(self, tmp_path: Path, gone: list[int]) -> None:
        for number, pid in enumerate(gone):
            write(tmp_path, "counter", pid, a=1, b=number)
        write(tmp_path, "counter", os.getpid(), a=5)
        before = shown(tmp_path)
        for _ in range(2):
            merge(tmp_path)
            assert shown(tmp_path) == before
        assert names(tmp_path) == {f"counter_{NOBODY}.db", f"counter_{os.getpid()}.db"}

    def test_what_was_merged_before_stays(self, tmp_path: Path, gone: list[int]) -> None:
        for _ in range(3):
            for pid in gone:
                write(tmp_path, "counter", pid, a=1)
            merge(tmp_path)
        assert sum(shown(tmp_path).values()) == 3 * len(gone)

    def test_few_are_left_as_they_are(self, tmp_path: Path, gone: list[int]) -> None:
        for pid in gone[: MANY - 1]:
            write(tmp_path, "counter", pid, a=1)
        before = names(tmp_path)
        merge(tmp_path)
        assert names(tmp_path) == before

    def test_gauges_are_left_as_they_are(self, tmp_path: Path, gone: list[int]) -> None:
        for pid in gone:
            write(tmp_path, "gauge_all", pid, a=1)
        before = names(tmp_path)
        merge(tmp_path)
        assert names(tmp_path) == before

    @pytest.mark.parametrize("garbage", [b"", b"\xff" * 4096, content_of({"no JSON": (1, 0)})[0]])
    def test_what_can_not_be_read_stays(
        self, tmp_path: Path, gone: list[int], garbage: bytes
    ) -> None:
        for pid in gone[1:]:
            write(tmp_path, "counter", pid, a=1)
        bad = tmp_path / f"counter_{gone[0]}.db"
        bad.write_bytes(garbage)
        merge(tmp_path)
        assert bad.read_bytes() == garbage
        assert sum(shown(tmp_path).values()) == len(gone) - 1

    def test_where_the_merged_one_can_not_be_read_nothing_changes(
        self, tmp_path: Path, gone: list[int]
    ) -> None:
        for pid in gone:
            write(tmp_path, "counter", pid, a=1)
        (tmp_path / f"counter_{NOBODY}.db").write_bytes(b"\xff" * 64)
        before = names(tmp_path)
        merge(tmp_path)
        assert names(tmp_path) == before

    def test_where_it_can_not_be_written_nothing_changes(
        self, tmp_path: Path, gone: list[int]
    ) -> None:
        for pid in gone:
            write(tmp_path, "counter", pid, a=1)
        (tmp_path / f".counter_{NOBODY}.db.draft").mkdir()
        before = names(tmp_path)
        with pytest.raises(OSError):  # noqa: PT011  (whichever the system has for it)
            merge(tmp_path)
        assert names(tmp_path) == before

    @pytest.mark.parametrize("name", ["counter_x.db", "counter_-1.db", f"counter_{10**30}.db"])
    def test_a_file_of_no_process_is_none_that_is_gone(self, tmp_path: Path, name: str) -> None:
        assert not metric_merging._is_gone(tmp_path / name)
