"""The files of metrics: what one process writes, another reads, whatever happens to files and folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from booking_platform.messaging import metric_files
from booking_platform.messaging.metric_files import MetricFile
from booking_platform.messaging.metrics import Counter
from tests.telemetry import counted_in, full_disk, look_again, metrics_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with metrics_in(tmp_path / "metrics"):
        yield tmp_path / "metrics"


@pytest.fixture
def counted() -> Iterator[Counter]:
    """A counter of this test alone."""
    counter = Counter("counted_total", "What the test counts.", ["kind"])
    yield counter
    prometheus_client.REGISTRY.unregister(counter._metric)
    for file in metric_files.FILES.values():
        for key in [key for key in file._values if "counted_total" in key]:
            del file._values[key]


class TestWhatIsWritten:
    def test_it_is_what_prometheus_reads(self, folder: Path, counted: Counter) -> None:
        counted.labels("a").inc()
        counted.labels("b").inc(2.5)
        counted.labels("a").inc()
        assert counted_in(folder) == {("a",): 2.0, ("b",): 2.5}

    def test_a_label_may_be_anything(self, folder: Path, counted: Counter) -> None:
        for label in ("", "🎫" * 100, "\n\"'\\", "\ud800", None, 7):
            counted.labels(label).inc()
        assert sum(counted_in(folder).values()) == 6

    @given(
        st.lists(
            st.tuples(st.sampled_from("chg"), st.text(max_size=9), st.integers(0, 9)), max_size=20
        )
    )
    def test_it_is_what_prometheus_clients_own_files_hold(
        self, tmp_path_factory: pytest.TempPathFactory, counts: list[tuple[str, str, int]]
    ) -> None:
        pages = []
        for own in (True, False):
            with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
                folder = tmp_path_factory.mktemp("metrics")
                patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
                patch.setattr(metric_files, "FILES", {})
                stack.enter_context(metrics_in(folder))
                patch.setattr(values, "ValueClass", _theirs() if own else metric_files.Value)
                pages.append(_page(folder, counts))
        assert pages[0] == pages[1]

    def test_what_an_earlier_process_of_the_same_id_counted_stays(
        self, folder: Path, counted: Counter
    ) -> None:
        """A counter that falls looks like a restart; in a container each life has the same ids."""
        counted.labels("a").inc(3)
        counted.labels("b").inc(4)
        for file in metric_files.FILES.values():
            file.begin_anew()
        counted.labels("a").inc()
        counted.labels("c").inc()
        assert counted_in(folder) == {("a",): 4.0, ("b",): 4.0, ("c",): 1.0}


def _theirs() -> Any:
    return values.MultiProcessValue()  # type: ignore[no-untyped-call]


def _page(folder: Path, counts: list[tuple[str, str, int]]) -> bytes:
    registry = CollectorRegistry()
    one = prometheus_client.Counter("c", "", ["label"], registry=registry)
    two = prometheus_client.Histogram("h", "", ["label"], registry=registry, buckets=(1, 5))
    three = prometheus_client.Gauge("g", "", ["label"], registry=registry, multiprocess_mode="max")
    for kind, label, amount in counts:
        if kind == "c":
            one.labels(label).inc(amount)
        elif kind == "h":
            two.labels(label).observe(amount)
        else:
            three.labels(label).set(amount)
    shown = CollectorRegistry()
    MultiProcessCollector(shown, str(folder))  # type: ignore[no-untyped-call]
    return b"\n".join(sorted(generate_latest(shown).splitlines()))


class TestWhatHappensToFiles:
    """Nothing is lost but by the death of the process: memory has the numbers."""

    @pytest.mark.parametrize("what", ["removed", "folder removed", "cut short", "moved"])
    def test_what_is_gone_is_made_again(self, folder: Path, counted: Counter, what: str) -> None:
        counted.labels("a").inc()
        [file] = folder.glob("counter_*.db")
        if what == "removed":
            file.unlink()
        elif what == "folder removed":
            shutil.rmtree(folder)
        elif what == "cut short":
            os.truncate(file, 3)
        else:
            folder.rename(folder.with_name("elsewhere"))
        look_again()
        counted.labels("b").inc()
        assert counted_in(folder) == {("a",): 1.0, ("b",): 1.0}

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"garbage" * 99, b"\xff" * 64])
    def test_a_file_of_garbage_is_written_anew(
        self, folder: Path, counted: Counter, content: bytes
    ) -> None:
        folder.mkdir()
        for file in metric_files.FILES.values():
            file.begin_anew()
        (folder / f"counter_{os.getpid()}.db").write_bytes(content)
        counted.labels("a").inc()
        assert counted_in(folder) == {("a",): 1.0}

    def test_what_was_counted_while_it_could_not_be_written_is_there_afterwards(
        self, folder: Path, counted: Counter, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder.touch()  # a file in its place
        with caplog.at_level("INFO"):
            for _ in range(100):
                look_again()
                counted.labels("a").inc()
            folder.unlink()
            for _ in range(100):
                look_again()
                counted.labels("a").inc()
        assert counted_in(folder) == {("a",): 200.0}
        assert caplog.text.count("Metrics can't be written to their file") == 1
        assert caplog.text.count("Metrics are written to their file again") == 1

    def test_a_full_disk_is_said_once_and_what_was_counted_is_there_afterwards(
        self, tmp_path: Path, counted: Counter, caplog: pytest.LogCaptureFixture
    ) -> None:
        with ExitStack() as stack, caplog.at_level("INFO"):
            folder = full_disk(stack, tmp_path / "disk")
            stack.enter_context(metrics_in(folder))
            for _ in range(100):
                look_again()
                counted.labels("a").inc()
            (folder / "full").unlink()
            look_again()
            counted.labels("a").inc()
            assert counted_in(folder) == {("a",): 101.0}
        assert caplog.text.count("Metrics can't be written to their file") == 1

    def test_the_file_is_looked_at_by_itself(
        self, folder: Path, counted: Counter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]
        monkeypatch.setattr(MetricFile, "clock", lambda _: now[0])
        look_again()
        counted.labels("a").inc()
        shutil.rmtree(folder)
        counted.labels("a").inc()
        assert not folder.exists()
        now[0] += metric_files.LOOK_SECONDS
        counted.labels("a").inc()
        assert counted_in(folder) == {("a",): 3.0}


class TestCounters:
    def test_a_bug_in_counting_is_said_once(
        self, folder: Path, counted: Counter, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO"):
            for _ in range(3):
                counted.labels("a", "too many").inc()
            counted.labels("a").inc(-1)
            for _ in range(3):
                counted.labels("a").inc()
        assert caplog.text.count("Counting fails") == 1
        assert caplog.text.count("Counting works again") == 1
        assert counted_in(folder) == {("a",): 3.0}

    def test_the_time_limit_of_a_worker_gets_through(
        self, folder: Path, counted: Counter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object) -> None:
            raise SoftTimeLimitExceeded

        counted.labels("a").inc()
        monkeypatch.setattr(os, "pwrite", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            counted.labels("a").inc()


class TestTheReadersView:
    def test_no_moment_shows_half_of_an_entry(self, tmp_path: Path) -> None:
        """The length in the header is written last."""
        seen: list[int] = []
        write = metric_files._write_whole

        def watched(fd: int, content: bytes, position: int) -> None:
            write(fd, content, position)
            if file.path.exists():
                read: Any = MmapedDict.read_all_values_from_file(str(file.path))  # type: ignore[no-untyped-call]
                seen.append(len(list(read)))

        file = MetricFile("counter", tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metric_files, "_write_whole", watched)
            patch.setitem(metric_files.FILES, "counter", file)
            for number in range(3):
                metric_files.Value("counter", "c", "c_total", (), (), f"help {number}").inc(1)
        file.close()
        assert seen == sorted(seen)
        assert seen[-1] == 3
