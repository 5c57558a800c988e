"""Durable attempts at a call to the world outside.

What a foreign system must do for us is a row first, committed with the event that asks for it. From
then on the database owns it: no message has to come again, and a crash at any line costs a delay.

::

    due ──── take ────► leased ──── finish ────► done, or due again after a pause
     ▲                    │
     └── the lease ends ──┘  (its holder died, or still waits for an answer)

An attempt takes a row under a lease and commits that before it calls. Calls are made outside any
transaction, and none starts after the lease has ended; but one may outlive it, so another attempt
may run beside it. Each lease therefore has a token of its own, and what a holder writes is fenced
by it (M. Kleppmann, "How to do distributed locking", 2016): whoever was overtaken writes nothing.
That the foreign system does nothing twice must rest on something it knows, such as an idempotency
key; the lease only keeps attempts apart as a rule.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import structlog
from celery import Task
from django.conf import settings
from django.db import Error, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.outages import persevere

log = structlog.get_logger(__name__)

SWEPT_AT_ONCE = 1000  # attempts asked for by one sweep; the next one finds the rest
LEAST_EXPIRY = 10.0  # seconds that an asked-for attempt may wait for a free worker


class LeaseLost(Exception):
    """The lease has ended or is another's: what this attempt learnt is not to be written."""


class Leased(models.Model):
    """The columns of a row that is worked on under leases."""

    attempts = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How often a worker took it up."
    )
    lease_token = models.UUIDField(
        null=True, blank=True, help_text="Fences what the holder of the last lease may write."
    )
    lease_until = models.DateTimeField(
        null=True, blank=True, help_text="Until when a worker has it; past: that worker is gone."
    )
    next_attempt_at = models.DateTimeField(
        null=True, blank=True, help_text="When it is taken up next; empty: not by itself."
    )
    last_error = models.TextField(
        blank=True, default="", db_default="", help_text="Why the last attempt did not finish it."
    )
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    settlement = models.TextField(
        blank=True, default="", db_default="", help_text="Why a person closed the matter."
    )

    class Meta:
        abstract = True
        indexes = (
            models.Index(
                fields=("next_attempt_at",),
                condition=Q(next_attempt_at__isnull=False),
                name="%(class)s_next_attempt",
            ),
            models.Index(
                fields=("lease_until",),
                condition=Q(lease_until__isnull=False),
                name="%(class)s_lease",
            ),
        )

    def unstored(self, error: Exception) -> "Conclusion":
        """Give what becomes of the row where the database refuses what an attempt came to."""
        raise NotImplementedError

    @property
    def settled(self) -> bool:
        """Whether a person has closed the matter."""
        return self.settled_at is not None

    def close(self, *, by: str, why: str, **columns: Any) -> bool:
        """Write that a person closed the matter; false as for ``decide``."""
        return self.decide(settled_at=timezone.now(), settled_by=by, settlement=why, **columns)

    def decide(self, **columns: Any) -> bool:
        """Write a person's decision, unless the row changed since it was read or is under lease.

        Without a lease token, a worker that still waits for an answer can't undo it.
        """
        as_read = type(self)._default_manager.filter(pk=self.pk, updated_at=self.updated_at)
        columns |= {"lease_token": None, "lease_until": None, "updated_at": timezone.now()}
        return at_rest(as_read).update(**columns) == 1


R = TypeVar("R", bound=Leased)


@dataclass(frozen=True)
class Conclusion:
    """What an attempt came to: columns to write, and whether it is to be made again."""

    columns: dict[str, Any] = field(default_factory=dict)
    again: bool = False


def due(rows: models.QuerySet[R], now: datetime) -> models.QuerySet[R]:
    """Give the rows whose time has come, and those whose lease has ended unfinished."""
    return rows.filter(
        Q(lease_until__lte=now) | Q(lease_until__isnull=True, next_attempt_at__lte=now)
    )


def abandoned(rows: models.QuerySet[R], now: datetime) -> models.QuerySet[R]:
    """Give the rows whose lease has ended unfinished: their holder is gone, or late."""
    return rows.filter(lease_until__lte=now)


def mark_due(rows: models.QuerySet[R]) -> int:
    """Have the rows taken up by the next sweep, after the attempt under way if there is one."""
    return rows.update(next_attempt_at=timezone.now())


def attempt(rows: models.QuerySet[R], act: Callable[[R], Conclusion]) -> None:
    """Take the first due row, and carry on with it. Waits for a database that is away."""
    row = persevere(lambda _lock: _take(rows), consumer=rows.model._meta.db_table, events=1)
    if row is not None:
        carry_on(row, act)


def carry_on(row: R, act: Callable[[R], Conclusion]) -> None:
    """Let ``act`` call the world outside for a row under lease; write down what came of it.

    ``act`` calls ``still_held`` before each call it makes, and ``write`` for what must be committed
    before one.
    """
    name = row._meta.db_table
    try:
        conclusion = act(row)
        try:
            persevere(lambda _lock: _finish(row, conclusion), consumer=name, events=1)
        except Error as error:
            log.exception("What an attempt came to can't be stored", what=name, pk=row.pk)
            unstored = row.unstored(error)
            persevere(lambda _lock: _finish(row, unstored), consumer=name, events=1)
    except LeaseLost as lost:
        log.warning(
            "Lease lost: what this attempt learnt is left to the next",
            what=name,
            pk=row.pk,
            attempt=row.attempts,
            why=str(lost),
        )


def new_lease() -> dict[str, Any]:
    """Give the columns of a lease that starts now; a new row with them is its creator's."""
    until = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
    return {"lease_token": uuid4(), "lease_until": until, "next_attempt_at": None}


def still_held(row: Leased) -> None:
    """Make sure that a call may start now.

    Raises:
        LeaseLost: the lease has ended.
    """
    if row.lease_until is None or timezone.now() >= row.lease_until:
        raise LeaseLost(f"it ended at {row.lease_until}, before the call")


def write(row: R, **columns: Any) -> None:
    """Commit what must be known before a call, or what it has come to so far.

    Raises:
        LeaseLost: another worker has taken the row since; nothing is written.
    """
    held = type(row)._default_manager.filter(pk=row.pk, lease_token=row.lease_token)
    if not held.update(updated_at=timezone.now(), **columns):
        raise LeaseLost("another worker has taken it since")


def at_rest(rows: models.QuerySet[R]) -> models.QuerySet[R]:
    """Give the rows that no worker has under lease: a person may change them."""
    return rows.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=timezone.now()))


def sweep(model: type[Leased], attempt_task: "Task[Any, Any]") -> int:
    """Ask the workers for an attempt at each row that is due; give how many.

    Each takes its row just before its call. One that waits too long for a worker expires, since
    later sweeps ask again; one that finds its row not due any more does nothing.
    """
    now = timezone.now()
    rows = due(model._default_manager.all(), now)
    pks = rows.order_by(Coalesce("lease_until", "next_attempt_at")).values_list("pk", flat=True)
    asked = 0
    for pk in pks[:SWEPT_AT_ONCE]:
        expires = max(LEAST_EXPIRY, settings.SWEEP_SECONDS)
        attempt_task.apply_async((pk,), expires=expires)
        asked += 1
    if asked:
        log.info("Sweep: attempts asked for", what=model._meta.db_table, due=asked)
    return asked


def _take(rows: models.QuerySet[R]) -> R | None:
    now = timezone.now()
    with transaction.atomic(durable=True):
        # What another worker is just taking is skipped; SQLite has one writer at a time anyway.
        row = due(rows, now).select_for_update(skip_locked=True).first()
        if row is None:
            return None
        type(row)._default_manager.filter(pk=row.pk).update(
            attempts=F("attempts") + 1, updated_at=now, **new_lease()
        )
        row.refresh_from_db()
    return row


def _finish(row: Leased, conclusion: Conclusion) -> None:
    """End the lease; who marked the row due meanwhile keeps it due."""
    ended: dict[str, Any] = {"lease_until": None, **conclusion.columns}
    if conclusion.again:
        pause = Backoff(settings.RETRY_BASE_SECONDS, settings.RETRY_MAX_SECONDS).pause(row.attempts)
        later = timezone.now() + timedelta(seconds=pause)
        ended["next_attempt_at"] = Coalesce(F("next_attempt_at"), later)
    write(row, **ended)
