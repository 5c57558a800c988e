"""Messages that may end their worker, and how often each was begun.

A delivery count proves nothing: neighbours in a group, restarts and outages raise it too. So before a
redelivered message is begun, that is committed. An event is poison when it was begun a number of
times and none of the beginnings came to an end.
"""

from hashlib import sha256
from uuid import uuid4

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F
from django.utils import timezone

from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import Suspect
from booking_platform.messaging.rows import stored

PATIENCE_MS = 250  # for a lock: a worker killed while it waits has not died of the message


class Trial:
    """One redelivered message on its way through a worker."""

    def __init__(self, queue: str, delivery: Delivery) -> None:
        content = delivery.digest.encode() or delivery.body
        self._key = {"queue": queue, "fingerprint": sha256(content).hexdigest()}
        self._holder = uuid4().hex

    def begin(self) -> bool:
        """Commit that the message is begun; return whether it still may be.

        A second call without ``withdraw`` between them counts once.
        """
        row = (*self._key.values(), self._holder, stored(timezone.now()))
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO suspects (queue, fingerprint, holder, begun_at, begun)"
                " VALUES (%s, %s, %s, %s, 1) ON CONFLICT (queue, fingerprint) DO UPDATE SET"
                " begun = suspects.begun"
                " + CASE WHEN suspects.holder = excluded.holder THEN 0 ELSE 1 END,"
                " holder = excluded.holder, begun_at = excluded.begun_at RETURNING begun",
                row,
            )
            (begun,) = cursor.fetchone()
        return int(begun) <= settings.EVENT_DELIVERY_LIMIT

    def withdraw(self) -> None:
        """Take the beginning back: the message has to wait for the database or for others."""
        mine = Suspect.objects.filter(**self._key, holder=self._holder)
        try:
            with transaction.atomic():
                mine.update(begun=F("begun") - 1, holder="")
        except Error:  # the database is away: the next `begin` of this trial counts no second time
            connection.close()

    def end(self) -> None:
        """Forget the beginnings, first thing in the transaction that settles the message.

        A repeat of it in another process waits here, so that two never count as two deaths.
        """
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
        Suspect.objects.filter(**self._key).delete()
