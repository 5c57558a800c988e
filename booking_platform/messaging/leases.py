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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import Error, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from booking_platform.contract.announcing import Announced
from booking_platform.contract.trace_context import PARENT_LENGTH
from booking_platform.messaging import (
    attempt_log,
    bound,
    clock,
    metrics,
    outages,
    outbox,
    topology,
    tracing,
)
from booking_platform.messaging.attempt_log import DECIDED, Said
from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.telling import safely

log = structlog.get_logger(__name__)

OVERTAKEN = "another worker has taken it since"
UNFINISHED = Said("Its worker did not finish it: it died, or took longer than its lease")


class LeaseLost(Exception):
    """The lease has ended or is another's: what this attempt learnt is not to be written."""


class Leased(models.Model):
    """The columns of a row that is worked on under leases."""

    # Which rows no other worker may take up when their lease has ended, since the call may have
    # been made. The sweep concludes for them.
    not_again: ClassVar[Q] = Q(pk__in=())

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
    trace = models.CharField(
        max_length=PARENT_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="W3C traceparent of the event that asked for it.",
    )
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    settlement = models.TextField(
        blank=True, default="", db_default="", help_text="Why a person closed the matter."
    )
    announced = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How many announcements were made of it."
    )

    # Until when this process may start calls, by ``clock.ticks``; not stored.
    held_until: float | None = None

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

    def announces(self, columns: Mapping[str, Any]) -> Sequence[Announced]:
        """Return what is to be announced when these columns of the row are stored.

        The row is as the database has it, and locked. ``updated_at`` is among the columns.
        """
        return ()

    @property
    def ids(self) -> dict[str, object]:
        """What each log line of an attempt at it is to name."""
        return {"what": self._meta.db_table, "pk": self.pk}

    def unstored(self, error: Exception) -> "Conclusion":
        """Return the conclusion to store when the database rejects the one of the attempt."""
        return Conclusion(
            {"last_error": f"what it came to can't be stored: {type(error).__name__}"}
        )

    @property
    def settled(self) -> bool:
        """Whether a person has closed the matter."""
        return self.settled_at is not None

    def close(self, *, by: str, why: str, **columns: Any) -> bool:
        """Store that a person closed the matter; return false as ``decide`` does."""
        return self.decide(settled_at=clock.now(), settled_by=by, settlement=why, **columns)

    def decide(self, **columns: Any) -> bool:
        """Store a person's decision, unless the row changed since it was read or is under lease.

        Return whether it was stored. The lease token is removed, so that a worker that still waits
        for an answer can't undo the decision.
        """
        as_read = type(self)._default_manager.filter(pk=self.pk, updated_at=self.updated_at)
        return store(at_rest(as_read), {**columns, "lease_token": None, "lease_until": None})


R = TypeVar("R", bound=Leased)


@dataclass(frozen=True)
class Conclusion:
    """What an attempt came to: columns to write, and whether it is to be made again.

    ``pause`` says after which time; without it the pause grows with the attempts. ``tell`` is called
    when the columns are stored, to log and count what the attempt came to. What it raises changes
    nothing of that. ``said`` is kept for people who ask later.
    """

    columns: dict[str, Any] = field(default_factory=dict)
    again: bool = False
    pause: timedelta | None = None
    tell: Callable[[], object] = lambda: None
    said: Said | None = None


def task_queue(model: type[models.Model]) -> str:
    """Return the task queue whose workers attempt the rows of a model."""
    return str(topology.route(f"{model._meta.app_label}.sweep")["queue"])


def due(rows: models.QuerySet[R], now: datetime) -> models.QuerySet[R]:
    """Return the rows whose time has come, and those whose lease has ended unfinished."""
    return rows.filter(
        Q(lease_until__lte=now) | Q(lease_until__isnull=True, next_attempt_at__lte=now)
    )


def mark_due(rows: models.QuerySet[R]) -> int:
    """Schedule the rows for the next sweep, after the attempt under way if there is one."""
    return rows.update(next_attempt_at=clock.now())


def take_up(rows: models.QuerySet[R], attempt: Callable[[R], Conclusion]) -> None:
    """Take the first due row under lease, and carry on with it."""
    row = outages.wait_out(partial(_take, rows), what=rows.model._meta.db_table)
    if row is not None:
        carry_on(row, attempt)


def carry_on(row: R, attempt: Callable[[R], Conclusion]) -> None:
    """Let ``attempt`` call the world outside for a row under lease, and store its conclusion.

    ``attempt`` calls ``still_held`` before each call that it makes, and ``write`` to commit what
    must be known before a call.
    """
    begun = clock.ticks()
    with bound.row(row.ids):
        _carry_on(row, attempt)
    seconds = clock.ticks() - begun
    safely(lambda: metrics.ATTEMPT_SECONDS.observe([seconds], task_queue(type(row))))


def _carry_on(row: R, attempt: Callable[[R], Conclusion]) -> None:
    name = row._meta.db_table
    seconds_left(row)  # counts from here on
    try:
        with tracing.attempt(row._meta.label, row.trace, row.attempts) as told:
            conclusion = attempt(row)
            told.conclude(again=conclusion.again)
        try:
            outages.wait_out(partial(_finish, row, conclusion), what=name)
        except Error as error:
            log.exception("What an attempt came to can't be stored", what=name, pk=row.pk)
            outages.wait_out(partial(_finish, row, row.unstored(error)), what=name)
        else:
            safely(conclusion.tell)
    except LeaseLost as lost:
        log.warning(
            "Lease lost: what this attempt learnt is left to the next",
            what=name,
            pk=row.pk,
            attempt=row.attempts,
            why=str(lost),
        )


def new_lease() -> dict[str, Any]:
    """Return the columns of a first lease, which starts now: a new row belongs to its creator."""
    until = clock.now() + timedelta(seconds=settings.LEASE_SECONDS)
    return {
        "lease_token": uuid4(),
        "lease_until": until,
        "next_attempt_at": None,
        "attempts": 1,
    }


def still_held(row: Leased) -> None:
    """Check that a call may start now.

    Raises:
        LeaseLost: the lease has ended.
    """
    if seconds_left(row) <= 0:
        raise LeaseLost(f"it ended at {row.lease_until}, before the call")


def seconds_left(row: Leased) -> float:
    """Return for how long this process may still start calls; 0 or less: no more.

    The end of the lease is translated once into a clock that nobody sets, and counted on that.
    """
    if row.lease_until is None:
        return 0.0
    if row.held_until is None:
        left = (row.lease_until - clock.now()).total_seconds()
        row.held_until = clock.ticks() + left
    return row.held_until - clock.ticks()


def begin_anew(row: R, **columns: Any) -> None:
    """Commit that the lease starts anew, with what must be known before a call.

    Raises:
        LeaseLost: the lease has ended, or another worker has taken the row since.
    """
    still_held(row)
    held_until = clock.ticks() + settings.LEASE_SECONDS
    until = clock.now() + timedelta(seconds=settings.LEASE_SECONDS)
    write(row, lease_until=until, **columns)
    row.lease_until, row.held_until = until, held_until


def write(row: R, **columns: Any) -> None:
    """Commit what must be known before a call. Nothing is announced of it.

    Raises:
        LeaseLost: another worker has taken the row since; nothing is written.
    """
    if not _held(row).update(updated_at=clock.now(), **columns):
        raise LeaseLost(OVERTAKEN)


def store(
    rows: models.QuerySet[R], columns: Mapping[str, Any], *, said: Said | None = None
) -> bool:
    """Store columns of the only row, and what is announced of that; return false if there is none.

    The row is read anew under a lock: what is announced is what has changed, whatever the caller knew.
    """
    columns = {"updated_at": clock.now(), **columns}
    with transaction.atomic():
        row = rows.select_for_update().first()
        if row is None:
            return False
        announced = _announced(row, columns)
        if announced:
            columns["announced"] = row.announced + len(announced)
        if not rows.filter(pk=row.pk).update(**columns):
            return False
        outbox.store(announced, trace=row.trace)
        if said is not None or announced:
            keys = [each.routing_key for each in announced]
            at = columns["updated_at"]
            attempt_log.note(row, row.attempts, said or DECIDED, at, announced=keys)
    return True


def at_rest(rows: models.QuerySet[R]) -> models.QuerySet[R]:
    """Return the rows that no worker has under lease: a person may change them."""
    return rows.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=clock.now()))


def conclude_lost(model: type[R], lost: Callable[[R, datetime], Conclusion]) -> int:
    """Conclude for the rows of ``model.not_again`` whose lease has ended; return how many.

    The token of the lease stays, so that a worker that is only late can still store what it learns.
    """
    now = clock.now()
    rows = model._default_manager.filter(model.not_again, lease_until__lte=now)
    concluded = 0
    for row in rows:
        conclusion = lost(row, now)
        columns = {"lease_until": None, "updated_at": now, **conclusion.columns}
        if conclusion.again:
            columns["next_attempt_at"] = now
        its = rows.filter(pk=row.pk, lease_token=row.lease_token)
        if store(its, columns, said=conclusion.said):
            safely(conclusion.tell)
            concluded += 1
    return concluded


def _take(rows: models.QuerySet[R]) -> R | None:
    now = clock.now()
    with transaction.atomic(durable=True):
        # What another worker is just taking is skipped; SQLite has one writer at a time anyway.
        ready = due(rows.exclude(rows.model.not_again), now)
        row = ready.select_for_update(skip_locked=True).first()
        if row is None:
            return None
        if row.lease_until is not None:
            attempt_log.note(row, row.attempts, UNFINISHED, now)
        lease = {**new_lease(), "attempts": F("attempts") + 1, "updated_at": now}
        type(row)._default_manager.filter(pk=row.pk).update(**lease)
        row.refresh_from_db()
    return row


def _finish(row: Leased, conclusion: Conclusion) -> None:
    """End the lease; a row that was marked due meanwhile stays due."""
    ended: dict[str, Any] = {"lease_until": None, **conclusion.columns}
    if conclusion.again:
        later = clock.now() + (_usual_pause(row) if conclusion.pause is None else conclusion.pause)
        ended["next_attempt_at"] = Coalesce(F("next_attempt_at"), later)
    if not store(_held(row), ended, said=conclusion.said):
        raise LeaseLost(OVERTAKEN)


def _held(row: R) -> models.QuerySet[R]:
    return type(row)._default_manager.filter(pk=row.pk, lease_token=row.lease_token)


def _announced(row: Leased, columns: Mapping[str, Any]) -> Sequence[Announced]:
    """Return what a row announces; a bug there must not keep from being stored what is so."""
    try:
        return row.announces(columns)
    except Exception:
        log.exception("A bug: this is not announced", what=row._meta.db_table, pk=row.pk)
        return ()


def _usual_pause(row: Leased) -> timedelta:
    pauses = Backoff(settings.RETRY_BASE_SECONDS, settings.RETRY_MAX_SECONDS)
    return timedelta(seconds=pauses.pause(row.attempts))
