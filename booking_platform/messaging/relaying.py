"""When the outbox is relayed: right after a commit, by a thread beside the work; by beat; by a command.

The thread lives in processes of workers only. What other processes store, such as a decision in the
admin, goes out with the next commit of a worker, or when beat asks for it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from django.conf import settings
from django.db import Error, connection

from booking_platform.messaging import metrics, outages, outbox
from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.broker import UNREACHABLE
from booking_platform.messaging.outbox import BrokerRefused
from booking_platform.messaging.publishing import Publisher

log = structlog.get_logger(__name__)

GATHERS = 0.1  # seconds between goes of a process: what was stored meanwhile goes out together
OTHERS_PAUSE = 0.05  # seconds between looks while another relay is at work
SHARE = 0.05  # of its time that the thread may use while the work beside it leaves no pause
LONGEST_LAG = 10.0  # seconds for which it then stays behind, at most
PAUSES = Backoff(1.0, 10.0)  # seconds after the broker or the database did not answer

REFUSED, AWAY, DATABASE, BUG = CAUSES = ("refused", "broker_away", "database_away", "bug")


def drain(publisher: Publisher, between: Callable[[float], object] = lambda _: None) -> int:
    """Publish until nothing waits; return how many announcements this relay has published.

    ``between`` is called after each go with the seconds that it took.

    Raises:
        BrokerRefused: the rest waits.
        UNREACHABLE: the broker is away, or does not answer.
        django.db.Error: the database is away.
    """
    total = 0
    while True:
        begun = time.monotonic()
        try:
            done = outbox.relay(publisher)
        except Exception as error:
            metrics.RELAY_FAILURES.labels(_cause(error)).inc()
            raise
        if done is None:  # another will publish it, unless it has looked already and dies
            time.sleep(OTHERS_PAUSE)
            if not outbox.waits():
                return total
        elif done:
            total += done
            between(time.monotonic() - begun)
        else:
            return total


def relay_now() -> int:
    """Publish until nothing waits, over a connection of its own; return how many announcements.

    Raises:
        As ``drain``.
    """
    publisher = Publisher()
    try:
        return drain(publisher)
    finally:
        publisher.close()


class Relay:
    """The thread of a worker's process that publishes what its transactions have stored."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._enabled = False
        self._busy_until = 0.0  # by time.monotonic: how long there is work that leaves no pause

    def enable(self) -> None:
        """Allow this process to relay by itself: it is one of a worker."""
        self._enabled = True

    def nudge(self, *, busy: bool = False) -> bool:
        """Wake the thread, which publishes what waits; return false where this process has none.

        ``busy`` says that there is more work than can be done.
        """
        if not self._enabled:
            return False
        if busy:
            self._busy_until = time.monotonic() + 1
        self._wanted.set()
        if self._thread is None or not self._thread.is_alive():
            # No process waits for it at its end: what is not published then, another relay takes.
            thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: what is committed stays so, and waits
                log.warning("Announcements wait in the outbox: no thread", why=str(error))
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        publisher, failures = Publisher(), 0
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                drain(publisher, self._give_way)
            except Exception as error:
                failures += 1
                _tell(error, failures)
                with suppress(Error):
                    connection.close()
                time.sleep(PAUSES.pause(failures))
                self._wanted.set()
            else:
                failures = 0
                time.sleep(GATHERS)

    def _give_way(self, took: float) -> None:
        """Leave the time to the work beside it while that is behind, unless this falls behind too far."""
        rest = min(took * (1 / SHARE - 1), self._busy_until - time.monotonic())
        if rest > 0 and outbox.lag() < LONGEST_LAG:
            time.sleep(rest)


RELAY = Relay()


def beat_entry() -> dict[str, object]:
    """Return the entry of Celery beat's schedule that has what waits relayed."""
    seconds = settings.RELAY_SECONDS
    return {"task": "messaging.relay", "schedule": seconds, "options": {"expiration": seconds + 10}}


def _cause(error: Exception) -> str:
    """Return what was in the way, in a word."""
    if isinstance(error, BrokerRefused):
        return REFUSED
    if isinstance(error, UNREACHABLE):
        return AWAY
    return DATABASE if isinstance(error, Error) and outages.passes(error) else BUG


def _tell(error: Exception, failures: int) -> None:
    line = "Announcements wait in the outbox: they can't be published now"
    if _cause(error) == BUG:
        log.error(line, exc_info=error)
    elif failures & (failures - 1) == 0:  # the first, second, fourth, …
        log.warning(line, why=str(error)[:200] or type(error).__name__, tries=failures)
