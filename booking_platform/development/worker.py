"""A real worker process for as long as a block runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30


class WorkerFailed(Exception):
    """The worker did not start, or died; the message ends with what it wrote."""


@contextmanager
def running_worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker with two pool processes; stop it warmly, and by force if that hangs."""
    command = [sys.executable, "-m", "celery", "-A", "booking_platform", "worker"]
    options = ["--concurrency", "2", "--hostname", f"demo-{os.getpid()}@%h"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_ready(process, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while " ready." not in (written := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise WorkerFailed(f"The worker did not start:\n{written[-3000:]}")
        time.sleep(0.1)
