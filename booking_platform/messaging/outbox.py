"""The outbox: what the platform announces, stored in the transaction that made it true.

::

    transaction ── store ──► row ── relay ──► published, confirmed, marked ── cleanup ──► gone

A row holds all that one transaction announces, in its order. Relays publish rows in the order of their
ids, one relay at a time, and mark them when the broker has confirmed: one that dies in between leaves
them to be published again, under the same event ids. Transactions that speak of the same tour or
booking wait for each other at its row before they store here, so their ids are in their order, too.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec
import structlog
from django.db import connection, transaction
from django.db.models import Sum

from booking_platform.contract.announcing import Announced
from booking_platform.messaging import clock, metrics, tracing
from booking_platform.messaging.batches import batches
from booking_platform.messaging.models import OutboxRow
from booking_platform.messaging.publishing import Outgoing, Publisher
from booking_platform.messaging.retention import part_of_cleanup
from booking_platform.messaging.rows import alone, stored

log = structlog.get_logger(__name__)

ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 200_000  # and the rest of a row: what is published and confirmed in a moment
KEPT = timedelta(days=1)  # what is published, for those who look into what went out

_Stored = list[tuple[str, msgspec.Raw, str]]  # routing key, body, trace
_reader = msgspec.json.Decoder(_Stored)


class BrokerRefused(Exception):
    """The broker took a part of what was published, and refused a message after it."""


class Backlog(NamedTuple):
    """What waits to be published."""

    announcements: int
    oldest_seconds: float  # the age of the oldest; 0 where none waits


def store(announced: Iterable[Announced], *, trace: str = "") -> None:
    """Store announcements, in the transaction that makes them true. One trace may be told for all."""
    store_all([Outgoing(*each, trace) for each in announced])


def store_all(messages: Sequence[Outgoing]) -> None:
    """Store announcements, each with a trace of its own."""
    if not messages:
        return
    rows = [(each.routing_key, msgspec.Raw(each.body), each.trace) for each in messages]
    text = msgspec.json.encode(rows)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox (messages, announcements, size, created_at) VALUES (%s, %s, %s, %s)",
            [text.decode(), len(rows), len(text), stored(clock.now())],
        )


def relay(publisher: Publisher) -> int | None:
    """Publish the oldest that waits, as far as it fits into one go; return how many announcements.

    None is returned where another relay is at work.

    Raises:
        BrokerRefused: what comes before the refused message is marked, the rest waits.
        UNREACHABLE: the broker is away; all of it waits.
    """
    publisher.open()  # a broker that is away holds up no transaction
    with transaction.atomic(durable=True):
        if not alone("outbox"):
            return None
        waiting = _oldest()
        messages = [message for row in waiting for message in _read(row.messages)]
        if not messages:
            return 0
        with tracing.sending(messages):
            confirmed = publisher.publish(messages)
        marked = _mark(waiting, confirmed)
    metrics.ANNOUNCEMENTS.inc(confirmed)
    if publisher.late:
        publisher.close()  # what it may still answer is published again
        if not marked:
            raise TimeoutError("the broker confirms too slowly: not one row within a go")
    elif confirmed < len(messages):
        refused = messages[confirmed]
        raise BrokerRefused(
            f"the broker refused an announcement under {refused.routing_key!r}: a queue bound to it "
            "may be full, or has no majority of its nodes"
        )
    return confirmed


def waits() -> bool:
    """Return whether anything waits to be published."""
    return OutboxRow.waiting().exists()


def backlog() -> Backlog:
    """Return what waits to be published."""
    waiting = OutboxRow.waiting().aggregate(announcements=Sum("announcements"))
    return Backlog(waiting["announcements"] or 0, lag())


def lag() -> float:
    """Return for how many seconds the oldest that waits has waited."""
    since = OutboxRow.waiting().order_by("pk").values_list("created_at", flat=True).first()
    return max(0.0, (clock.now() - since).total_seconds()) if since else 0.0


@part_of_cleanup
def forget_published() -> int:
    """Delete rows that were published some time ago; return how many."""
    old = OutboxRow.objects.filter(published_at__lt=clock.now() - KEPT)
    deleted = 0
    for pks in batches(old, by="pk"):
        deleted += old.filter(pk__in=pks).delete()[0]
    log.info("Cleanup: published announcements deleted", rows=deleted)
    return deleted


def _oldest() -> list[OutboxRow]:
    """Return the oldest rows that wait, within the bounds of one go."""
    waiting = OutboxRow.waiting().order_by("pk")
    taken, room = [], BYTES_AT_ONCE
    for pk, size in waiting.values_list("pk", "size")[:ROWS_AT_ONCE]:
        taken.append(pk)
        room -= size
        if room < 0:
            break
    return list(OutboxRow.objects.filter(pk__in=taken).order_by("pk"))


def _read(text: str) -> list[Outgoing]:
    return [Outgoing(key, bytes(body), trace) for key, body, trace in _reader.decode(text)]


def _mark(waiting: Sequence[OutboxRow], confirmed: int) -> int:
    """Mark the rows of which all messages are among so many; return how many."""
    published = []
    for row in waiting:
        confirmed -= row.announcements
        if confirmed < 0:
            break
        published.append(row.pk)
    return OutboxRow.objects.filter(pk__in=published).update(published_at=clock.now())
