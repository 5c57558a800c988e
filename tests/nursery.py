"""A process that has imported the libraries, and forks what the tests would start: ``python -m tests.nursery``.

Most of what it takes to start a worker is to import Django, Celery and their kind: a second of CPU time,
some hundred times a run. Nothing of ours is imported here, since settings are read from the environment
as they are imported: each fork does that for itself, as a process of its own session.
"""

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import IO, Any

# What a worker or beat imports that is not ours, needs no settings, and reads nothing of the environment:
# prometheus_client looks there for the folder of the metrics.
LIBRARIES = (
    "asgiref.sync",
    "axes.apps",
    "babel.numbers",
    "celery.app.amqp",
    "celery.app.control",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.contrib.django.task",
    "celery.fixups.django",
    "celery.worker.components",
    "celery.worker.consumer",
    "dj_database_url",
    "django.contrib.admin.templatetags.admin_list",
    "django.contrib.auth.apps",
    "django.contrib.auth.password_validation",
    "django.contrib.postgres.fields",
    "django.contrib.sessions.middleware",
    "django.contrib.sites.shortcuts",
    "django.contrib.staticfiles.apps",
    "django.core.handlers.asgi",
    "django.core.mail.backends.smtp",
    "django.core.management",
    "django.core.management.commands.makemigrations",
    "django.core.management.commands.migrate",
    "django.db.backends.postgresql.psycopg_any",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.forms",
    "django.template.backends.django",
    "django.template.loaders.app_directories",
    "django.urls",
    "email_validator",
    "kombu.transport.filesystem",
    "kombu.transport.pyamqp",
    "msgspec",
    "psycopg",
    "requests",
    "stripe",
    "stripe._stripe_client",
    "structlog",
    "unfold.sections",
    "whitenoise.middleware",
    "yaml",
)
LONGEST_ORDER = 1_000_000  # bytes


class Forked:
    """A process of the nursery; has of ``subprocess.Popen`` what the tests use."""

    def __init__(self, module: str, *given: str, env: Mapping[str, str], output: IO[Any]) -> None:
        self._report, theirs = socket.socketpair()
        order = json.dumps({"module": module, "given": given, "env": dict(env)}).encode()
        with theirs:
            socket.send_fds(_nursery(), [order], [theirs.fileno(), output.fileno()])
        self._lines = self._report.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, or the number of the signal that has ended it, below 0.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        ended = self._ended(timeout)
        if ended is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return ended

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._report, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._report.close()
        return self.returncode


@cache
def _nursery() -> socket.socket:
    """Start the nursery of this process, and end it with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def main(orders: socket.socket) -> None:
    """Fork what is ordered until nobody is left to order anything."""
    for library in LIBRARIES:
        import_module(library)
    gc.freeze()
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        order = _serve(orders, selector)
    if order is not None:
        _become(**order)


def _serve(orders: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """Return, in a child, what it is to become; in the nursery, nothing when all is over."""
    while True:
        for ready, _ in selector.select():
            if ready.data is not None:
                pid, report = ready.data
                _tell(report, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(report)
                selector.unregister(ready.fileobj)
                os.close(ready.fd)
                continue
            said, [*files], _, _ = socket.recv_fds(orders, LONGEST_ORDER, 2)
            if not said:
                return None
            report, output = files
            if not (pid := os.fork()):
                _leave_home(selector, report, output)
                return json.loads(said)  # type: ignore[no-any-return]
            os.close(output)
            _tell(report, pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))


def _tell(report: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(report, b"%d\n" % number)


def _leave_home(selector: selectors.BaseSelector, report: int, output: int) -> None:
    """Close, in a child, what is the nursery's, and write to the output from now on."""
    for key in list(selector.get_map().values()):
        os.close(key.fd)
        if key.data is not None:
            os.close(key.data[1])
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(report)
    os.close(output)


def _become(module: str, given: Sequence[str], env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *given]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
