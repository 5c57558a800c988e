"""The thread of a worker's process that stores what the process has counted.

It begins with the first task, and never in the main process of a pool that forks: a fork copies locks
that threads hold. Its connection to the database is closed again each time, since there is seldom anything
to store.
"""

import os
import threading
from collections.abc import Callable

import structlog
from django.db import Error, connection

from booking_platform.messaging.tallies import TALLIES, Tallies
from booking_platform.operations import tallies

log = structlog.get_logger(__name__)

EVERY_SECONDS = 10.0


class TallyWriter:
    """Stores what one process has counted, every some seconds and at its end."""

    def __init__(self, counted: Tallies, *, seconds: float = EVERY_SECONDS) -> None:
        self._counted, self._seconds = counted, seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._enabled = False
        self._pid = 0  # of the process in which the thread is
        self._failing = False

    def enable(self) -> None:
        """Allow this process to store what it counts: it is one of a worker."""
        self._enabled = True

    def begin(self) -> None:
        """Begin in this process, if it may, and if that has not been done."""
        if not self._enabled or self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tallies", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads: nothing is shown of what is counted here
            log.warning("Duplicates and lock conflicts are not stored: no thread", why=str(error))

    def end(self) -> None:
        """Store the rest, unless the database did not answer the last time."""
        self._stop.set()
        if self._pid == os.getpid() and not self._failing:
            self.store()

    def store(self) -> None:
        """Store what was counted. What the database does not take is stored later."""
        taken = self._counted.take()
        if not taken:
            return
        try:
            tallies.add(taken)
        except Exception as error:
            self._counted.give_back(taken)
            self._say(error)
        else:
            self._failing = False

    def _say(self, error: Exception) -> None:
        if not self._failing:
            log.warning("Duplicates and lock conflicts can't be stored now", why=repr(error)[:200])
        self._failing = True

    def _run(self) -> None:
        stop: Callable[[float], bool] = self._stop.wait
        while not stop(self._seconds):
            self.store()
            _close()


def _close() -> None:
    try:
        connection.close()  # that of this thread
    except Error as error:
        log.debug("A connection that was broken is closed", why=repr(error))


WRITER = TallyWriter(TALLIES)
