"""Messages that may end their worker, and how often each was begun.

A delivery count proves nothing: neighbours in a group, restarts and outages raise it too. So before a
redelivered message is begun, that is committed. An event is poison when it was begun a number of
times and none of the beginnings came to an end.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Self, TypeVar
from uuid import uuid4

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import Error, connection
from django.db.models import QuerySet

from booking_platform.messaging import clock, outages
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import Suspect
from booking_platform.messaging.rules import LostRace

# For a lock, and between two attempts at it: a worker that is killed while a message waits has not died
# of it, so that it is begun for a small part of that time only.
PATIENCE_MS, PAUSE_SECONDS = 100, 0.5
LOOKS = 4  # at the marks of others, before a message is called poison

T = TypeVar("T")


class Trial:
    """Redelivered messages on their way through a worker, whose beginning is on record.

    Each worker that begins one leaves a mark of its own: the same message may be with two of them,
    where the broker lost the connection of the first.
    """

    def __init__(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        self._queue = queue
        self._fingerprints = sorted({delivery.fingerprint for delivery in deliveries})
        self._holder = uuid4().hex
        self._on_record = False

    @property
    def suspected(self) -> bool:
        """Whether one of the messages was begun before and has not ended."""
        return self._marks().exists()

    def begin(self) -> Self:
        """Commit that the messages are begun, unless that is on record."""
        if not self._on_record:
            now = clock.now()
            marks = [
                Suspect(queue=self._queue, fingerprint=each, holder=self._holder, begun_at=now)
                for each in self._fingerprints
            ]
            Suspect.objects.bulk_create(marks, ignore_conflicts=True)
            self._on_record = True
        return self

    def begun_too_often(self) -> bool:
        """Return whether a message was begun more often than any may be, this time included."""
        return self._marks().count() > settings.EVENT_DELIVERY_LIMIT

    def attempt(self, work: Callable[[], T]) -> T:
        """Call ``work`` with the beginning on record; where it has to wait, it is not begun meanwhile."""
        self.begin()
        try:
            return work()
        except SoftTimeLimitExceeded as limit:
            if _waited_for_the_database(limit):
                self.withdraw()
            raise
        except LostRace:
            self.withdraw()
            raise
        except Error:
            self.withdraw()
            time.sleep(PAUSE_SECONDS)
            raise

    def withdraw(self) -> None:
        """Take the beginning back: the messages have to wait for the database or for others."""
        self._on_record = False
        try:
            self._marks().filter(holder=self._holder).delete()
        except Error:  # the database is away; this holder begins no second time in its books
            connection.close()

    def end(self) -> None:
        """Forget all beginnings, first thing in the transaction that settles the messages.

        A repeat of one in another process waits here: two that are alive work one after the other.
        """
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
        self._marks().delete()

    def _marks(self) -> QuerySet[Suspect]:
        return Suspect.objects.filter(queue=self._queue, fingerprint__in=self._fingerprints)


class Portion(NamedTuple):
    """What of a group is worked on at once."""

    deliveries: Sequence[Delivery]
    trial: Trial | None = None
    poison: bool = False  # begun so often that it must not be begun again


def portions(queue: str, deliveries: Sequence[Delivery]) -> Iterator[Portion]:
    """Divide a group so that what ends its process can be told from its neighbours.

    Messages that came before are on trial: all together or, where one of them was begun before,
    each alone.
    """
    if not deliveries[0].redelivered:
        yield Portion(deliveries)
        return
    together = Trial(queue, deliveries)
    wait_out = partial(outages.wait_out, consumer=queue, events=len(deliveries))
    if len(deliveries) > 1 and not wait_out(lambda: together.suspected):
        yield Portion(deliveries, wait_out(together.begin))
        return
    for delivery in deliveries:
        trial = wait_out(Trial(queue, [delivery]).begin)
        yield Portion([delivery], trial, poison=_is_poison(trial, wait_out))


def _is_poison(trial: Trial, wait_out: Callable[[Callable[[], bool]], bool]) -> bool:
    """Return whether a message was begun too often by workers that are gone.

    Those that are alive and wait take their beginnings back again and again.
    """
    for _ in range(LOOKS):
        if not wait_out(trial.begun_too_often):
            return False
        time.sleep(PAUSE_SECONDS / LOOKS)
    return True


def _waited_for_the_database(limit: SoftTimeLimitExceeded) -> bool:
    """Return whether a time limit came in the middle of a statement, rather than of our own code."""
    frames = traceback.walk_tb(limit.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("psycopg") for frame, _ in frames)
