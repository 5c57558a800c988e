"""Processes that count into files: what ends one that maps them into memory, and what forking does."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

from tests.telemetry import counted_in, full_disk

ROOT = Path(__file__).parents[2]

COUNTING = """
import os, resource, sys
import prometheus_client
from django.conf import settings
from pathlib import Path
settings.configure(METRICS_DIR=Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
if sys.argv[1] == "ours":
    from booking_platform.messaging import metric_files
    metric_files.install()
counter = prometheus_client.Counter("counted_total", "", ["kind"])
counter.labels("a").inc()
"""


def python(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which may be killed for it."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", COUNTING + textwrap.dedent(code), *arguments],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


CUT_SHORT = """
    for name in os.listdir(settings.METRICS_DIR):
        os.truncate(settings.METRICS_DIR / name, 0)
    counter.labels("a").inc()
    counter.labels("b").inc()
    print("alive")
"""
TOO_LARGE = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for number in range(100):
        counter.labels(str(number)).inc()
    print("alive")
"""
FORKED = """
    if os.fork() == 0:
        counter.labels("a").inc(2)
        os._exit(0)
    os.wait()
    counter.labels("a").inc(4)
"""


class TestProcesses:
    def test_a_file_that_is_cut_short_ends_no_process(self, tmp_path: Path) -> None:
        done = python(CUT_SHORT, "ours", folder=tmp_path / "metrics")
        assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

    def test_negative_control_it_ends_one_that_maps_it_into_memory(self, tmp_path: Path) -> None:
        done = python(CUT_SHORT, "theirs", folder=tmp_path / "metrics")
        assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")

    def test_a_file_that_may_not_grow_ends_no_process(self, tmp_path: Path) -> None:
        """As on a full disk, but without one: the kernel writes a part, and then nothing."""
        done = python(TOO_LARGE, "ours", folder=tmp_path / "metrics")
        assert (done.returncode, done.stdout[-6:]) == (0, "alive\n"), done.stderr
        assert "Metrics can't be written" in done.stdout + done.stderr
        assert (
            counted_in(tmp_path / "metrics")[("a",)] == 1.0
        )  # what was written before can be read

    def test_a_full_disk_ends_no_process(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            folder = full_disk(stack, tmp_path / "disk")
            done = python("print('alive')", "ours", folder=folder)
            control = python("print('alive')", "theirs", folder=folder)
        assert (done.returncode, done.stdout[-6:]) == (0, "alive\n"), done.stderr
        assert control.returncode == -signal.SIGBUS

    def test_a_forked_process_has_a_file_of_its_own(self, tmp_path: Path) -> None:
        done = python(FORKED, "ours", folder=tmp_path / "metrics")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "metrics").glob("*.db"))) == 2
        assert counted_in(tmp_path / "metrics") == {("a",): 7.0}
