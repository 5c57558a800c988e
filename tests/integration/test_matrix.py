"""What ``make matrix`` leaves behind: nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import matrix
from tests.servers import wait_until

pytestmark = pytest.mark.once

REFUSED = "import os; from tests import matrix; os.setuid(65534); matrix.main([])"


def namespaces_are_had() -> bool:
    """Return whether this machine lets us have namespaces: not every container does."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    tried = [*matrix.namespaces("--net"), "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


class TestARun:
    @pytest.mark.skipif(not namespaces_are_had(), reason="needs root and namespaces")
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_its_processes_and_mounts_go_with_it(self, tmp_path: Path, how: signal.Signals) -> None:
        folder, inside = tmp_path / "mounted", tmp_path / "inside"
        folder.mkdir()
        script = f"mount -t tmpfs tmpfs {folder}; setsid sleep 987 & touch {inside}; sleep 987"
        run = (
            "import signal, sys; from tests import matrix; "
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
            f"matrix.follow([*matrix.namespaces(), 'sh', '-euc', {script!r}], {{}})"
        )
        process = subprocess.Popen([sys.executable, "-c", run], start_new_session=True)
        wait_until(inside.exists, what="it runs")
        parent = psutil.Process(process.pid)

        def sleeping() -> int:
            return [each.name() for each in parent.children(recursive=True)].count("sleep")

        wait_until(lambda: sleeping() == 2, what="both processes are there")
        started = parent.children(recursive=True)

        process.send_signal(how)
        _, alive = psutil.wait_procs([process, *started], timeout=120)

        for each in alive:
            each.kill()
        assert alive == []
        assert str(folder) not in Path("/proc/mounts").read_text()

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives up being root")
    def test_it_says_that_it_needs_root(self) -> None:
        said = subprocess.run(
            [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False
        )

        assert said.returncode == 1
        assert said.stderr.startswith("make matrix needs root")

    @pytest.mark.skipif(os.geteuid() != 0, reason="asks for root first")
    def test_it_says_which_program_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

        assert (
            matrix.obstacle() == "make matrix needs debootstrap: install the package debootstrap."
        )


class TestTheTable:
    def test_it_has_the_counts_of_both_runs(self) -> None:
        written = (
            "== PostgreSQL and RabbitMQ\n"
            "==== 2 failed, 1500 passed, 3 skipped, 1 error in 700.31s (0:11:40) ====\n"
            "12 passed, then nothing\n"
            "1200 passed, 300 deselected in 99.00s (0:01:39)\n"
            "5 deselected in 0.30s\n"
        )

        assert matrix.counts(written) == [
            "2 failed, 1500 passed, 1 error",
            "1200 passed",
            "5 deselected",
        ]
