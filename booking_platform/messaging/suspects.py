"""Messages that may end their worker, and how often each was begun.

A delivery count proves nothing: neighbours in a group, restarts and outages raise it too. So before a
redelivered message is begun, that is committed. An event is poison when it was begun a number of
times and none of the beginnings came to an end.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Self, TypeVar
from uuid import uuid4

from django.conf import settings
from django.db import Error, connection
from django.db.models import QuerySet

from booking_platform.messaging import clock, outages
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import Suspect
from booking_platform.messaging.rules import LostRace

PATIENCE_MS = 250  # for a lock: a worker killed while it waits has not died of the message

T = TypeVar("T")


class Trial:
    """Redelivered messages on their way through a worker, whose beginning is on record.

    Each worker that begins one leaves a mark of its own: the same message may be with two of them,
    where the broker lost the connection of the first.
    """

    def __init__(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        self._queue = queue
        self._fingerprints = sorted({_fingerprint(delivery) for delivery in deliveries})
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
        except (Error, LostRace):
            self.withdraw()
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
        yield Portion([delivery], trial, poison=wait_out(trial.begun_too_often))


def _fingerprint(delivery: Delivery) -> str:
    return sha256(delivery.digest.encode() or delivery.body).hexdigest()
