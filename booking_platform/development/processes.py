"""Real processes for as long as a block runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from django.core.management import CommandError, call_command
from django.db import OperationalError

START_SECONDS = 60
STOP_SECONDS = 30

Process = subprocess.Popen[bytes]


class WorkerFailed(Exception):
    """The worker did not start, or died; the message ends with what it wrote."""


@contextmanager
def running(*command: str, output: IO[bytes] | None = None) -> Iterator[Process]:
    """Run a Python command; stop it with TERM, and by force if that hangs.

    It has a session of its own: neither Ctrl-C nor TERM may reach a worker's pool processes past
    the worker, which lets them finish what they do.
    """
    process = subprocess.Popen(
        [sys.executable, *command], stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Worker:
    """A worker with two pool processes, which can be killed and started again."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._life = ExitStack()
        self.process: Process | None = None

    def start(self) -> None:
        """Return when it is ready.

        Raises:
            WorkerFailed: it did not get there.
        """
        command = ("-m", "celery", "-A", "booking_platform", "worker", "--concurrency", "2")
        hostname = ("--hostname", f"demo-{os.getpid()}@%h")
        output = self._life.enter_context(self.log.open("ab"))
        begin = output.tell()
        self.process = self._life.enter_context(running(*command, *hostname, output=output))
        deadline = time.monotonic() + START_SECONDS
        while " ready." not in (written := self.written(begin)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise WorkerFailed(f"The worker did not start:\n{written[-3000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and its pool at once, as a power failure would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.stop()

    def stop(self) -> None:
        """Have it finish what it does, and end."""
        self._life.close()

    def written(self, begin: int = 0) -> str:
        return self.log.read_bytes()[begin:].decode(errors="replace")


def migrate() -> None:
    """Bring the database up to date.

    Raises:
        CommandError: it can't be reached.
    """
    try:
        call_command("migrate", verbosity=0)
    except OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise CommandError(
            f"The database can't be reached: {reason}. Create it, start it or correct DATABASE_URL."
        ) from None


def run_together(commands: Sequence[Sequence[str]]) -> None:
    """Run commands until one of them ends or a signal asks to stop; then stop them all."""
    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        processes = [stack.enter_context(running(*command)) for command in commands]
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
