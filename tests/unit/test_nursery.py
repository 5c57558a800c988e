"""The process that forks what tests start: each fork is like one that was started."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.nursery import LIBRARIES, Forked
from tests.servers import PATIENCE

Run = Callable[..., Forked]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that forks a process for a statement, which may write to the file ``output``."""

    def run(statement: str, **env: str) -> Forked:
        with (tmp_path / "output").open("wb") as output:
            options = ("-n1", "-r1", f"import os, sys; {statement}")
            return Forked("timeit", *options, env=env, output=output)

    return run


class TestAFork:
    def test_it_has_the_environment_that_is_given_and_no_other(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOT_GIVEN", "1")
        assert run("print(sorted(os.environ))", GIVEN="1").wait(PATIENCE) == 0
        assert (tmp_path / "output").read_text().startswith("['GIVEN']\n")

    def test_all_that_it_writes_comes_to_its_output(self, run: Run, tmp_path: Path) -> None:
        process = run("os.write(2, b'error, '); os.write(1, b'word'); os._exit(0)")
        process.wait(PATIENCE)
        assert (tmp_path / "output").read_text() == "error, word"

    def test_it_has_a_session_of_its_own(self, run: Run, tmp_path: Path) -> None:
        process = run("print(os.getsid(0), os.getpid())")
        process.wait(PATIENCE)
        assert (tmp_path / "output").read_text().startswith(f"{process.pid} {process.pid}\n")

    def test_each_has_random_numbers_of_its_own(self, run: Run, tmp_path: Path) -> None:
        numbers = set()
        for _ in range(3):
            run("import random; print(random.random())").wait(PATIENCE)
            numbers.add((tmp_path / "output").read_text().splitlines()[0])
        assert len(numbers) == 3

    def test_it_inherits_nothing_that_is_open(self, run: Run, tmp_path: Path) -> None:
        held = run("sys.stdin.read(); import time; time.sleep(600)")
        run("print(sorted(os.listdir('/proc/self/fd')))").wait(PATIENCE)
        # 3 is the folder itself, while it is read.
        assert (tmp_path / "output").read_text().startswith("['0', '1', '2', '3']\n")
        held.send_signal(SIGKILL)
        held.wait(PATIENCE)


class TestItsEnd:
    def test_its_status_is_told(self, run: Run) -> None:
        assert run("os._exit(7)").wait(PATIENCE) == 7

    def test_so_is_the_signal_that_ended_it(self, run: Run) -> None:
        process = run("import time; time.sleep(600)")
        assert process.poll() is None
        process.send_signal(SIGKILL)
        assert process.wait(PATIENCE) == process.poll() == -SIGKILL
        process.send_signal(SIGKILL)  # to nobody

    def test_who_waits_for_too_long_is_told(self, run: Run) -> None:
        process = run("import time; time.sleep(600)")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.send_signal(SIGKILL)
        process.wait(PATIENCE)


def test_the_libraries_bring_nothing_of_ours_and_read_no_settings() -> None:
    look = (
        f"import importlib, sys; [importlib.import_module(name) for name in {LIBRARIES}];"
        "from django.conf import settings; print(settings.configured, *sys.modules)"
    )
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    configured, *modules = done.stdout.split()
    ours = {"booking_platform", "catalog", "payments", "notifications", "tests"}
    of_the_environment = {"prometheus_client", "opentelemetry"}  # read it when they are imported
    assert configured == "False"
    assert not {name.partition(".")[0] for name in modules} & (ours | of_the_environment)
