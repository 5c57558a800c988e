"""Real processes for as long as a block runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from django.core.management import CommandError, call_command
from django.db import OperationalError

if TYPE_CHECKING:
    import psutil

START_SECONDS = 60
STOP_SECONDS = 60

Process = subprocess.Popen[bytes]


class WorkerFailed(Exception):
    """The worker did not start or stop in time, or died; the message ends with what it wrote."""


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


class CeleryProcess:
    """A worker of Celery with its pool, or beat: started, watched, killed, stopped, started again.

    It has a session of its own, as a process of ``running`` has. ``env`` is added to the environment.
    """

    def __init__(
        self,
        log_file: Path,
        *command: str,
        app: str = "booking_platform",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log_file = log_file
        self._command = (sys.executable, "-m", "celery", "-A", app, *command)
        self._env = env or {}
        self._begin = 0  # of what this life has written
        self.process: Process

    def start(self) -> None:
        """Start the process; what it writes is added to the log file."""
        with self.log_file.open("ab") as output:
            self._begin = output.tell()
            self.process = subprocess.Popen(
                self._command,
                env=os.environ | self._env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when the worker says that it is ready.

        Raises:
            WorkerFailed: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while " ready." not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise WorkerFailed(f"The worker did not start:\n{self.log[-3000:]}")
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What the process has written since it was started last."""
        return self.log_file.read_bytes()[self._begin :].decode(errors="replace")

    def pool(self) -> "list[psutil.Process]":
        """Return the processes of the pool; a worker has no other children."""
        import psutil  # only where requirements-dev.txt is installed

        children: list[psutil.Process] = psutil.Process(self.process.pid).children()
        return children

    def kill(self) -> None:
        """End the process and its pool at once, as a power failure would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Tell the worker to finish what it does, and return its exit status.

        Raises:
            WorkerFailed: it has not ended in time; it is killed then.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise WorkerFailed(f"The worker did not stop:\n{self.log[-3000:]}") from None
        finally:
            self.kill()


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
