"""Real processes for as long as a block runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from django.core.management import CommandError, call_command
from django.db import OperationalError

START_SECONDS = 120  # on a machine that has much else to do
STOP_SECONDS = 120


class ProcessFailed(Exception):
    """A process did not start or stop in time, or died; the message ends with what it wrote."""


class PythonProcess:
    """A Python command, which can be watched, killed, stopped, and started again.

    It has a session of its own: neither Ctrl-C nor TERM may reach the pool processes of a worker
    past the worker, which lets them finish what they do. ``env`` is added to the environment.
    """

    def __init__(
        self, *command: str, log_file: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.log_file = log_file
        self._command = (sys.executable, *command)
        self._env = env or {}
        self._begin = 0  # of what this life has written
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the process; what it writes is added to the log file, if there is one."""
        with ExitStack() as stack:
            output = stack.enter_context(self.log_file.open("ab")) if self.log_file else None
            self._begin = output.tell() if output else 0
            self.process = self._begun(os.environ | self._env, output)

    def _begun(self, env: Mapping[str, str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command, env=env, stdout=output, stderr=output, start_new_session=True
        )

    @property
    def log(self) -> str:
        """What the process has written since it was started last."""
        written = self.log_file.read_bytes() if self.log_file else b""
        return written[self._begin :].decode(errors="replace")

    def kill(self) -> None:
        """End the process and its children at once, as a power failure would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask the process to finish what it does, and return its exit status.

        Raises:
            ProcessFailed: it has not ended in time; it is killed then.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self._command} did not stop:\n{self.log[-3000:]}") from None
        finally:
            self.kill()


class CeleryProcess(PythonProcess):
    """A worker of Celery with its pool, or beat."""

    def __init__(
        self,
        log_file: Path,
        *command: str,
        app: str = "booking_platform",
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("-m", "celery", "-A", app, *command, log_file=log_file, env=env)

    def wait_until_ready(self) -> None:
        """Return when the worker says that it is ready.

        Raises:
            ProcessFailed: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while " ready." not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailed(f"The worker did not start:\n{self.log[-3000:]}")
            time.sleep(0.05)


@contextmanager
def running(*processes: PythonProcess) -> Iterator[None]:
    """Run processes for as long as a block runs."""
    with ExitStack() as stack:
        for process in processes:
            process.start()
            stack.callback(process.stop)
        yield


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


def run_together(processes: Sequence[PythonProcess]) -> None:
    """Run processes until one of them ends or a signal asks to stop; then stop them all."""
    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, signal.default_int_handler)
    with suppress(KeyboardInterrupt), running(*processes):
        while all(each.process.poll() is None for each in processes):
            time.sleep(0.2)
