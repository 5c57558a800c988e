"""How long processed events and closed dead letters are remembered, and the nightly cleanup."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from django import db
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db.models import Exists, OuterRef, Q

from booking_platform.messaging import clock, metrics
from booking_platform.messaging.batches import batches
from booking_platform.messaging.models import DeadLetter, ProcessedEvent, Suspect

log = structlog.get_logger(__name__)

TASK = "messaging.cleanup"
LONGEST_RETRY = timedelta(days=1)  # no automatic attempt at anything goes on for longer
MARGIN = timedelta(hours=1)  # between an event's check for staleness and its claim

CLEANUP: list[Callable[[], object]] = []  # what the nightly cleanup does; the apps add their parts


def part_of_cleanup(forget: Callable[[], object]) -> Callable[[], object]:
    """Add a function to what the nightly cleanup does."""
    CLEANUP.append(forget)
    return forget


def clean_up(*, idle: bool = False) -> bool:
    """Delete what has outlived its retention; return false if that was put off.

    It is put off while ``doubt`` doubts the time. ``idle`` is a person's word that there were no
    events. A part that fails holds up no other; what it raised is raised at the end.
    """
    why = doubt()
    if why and not idle:
        log.error(
            f"Cleanup put off, nothing is deleted: {why}. If the platform was really idle, its next "
            "event lets the cleanup go on, or run `python manage.py cleanup --idle`. If not, the "
            "database's clock is wrong: correct it first"
        )
        return False
    failures: list[Exception] = []
    for forget in CLEANUP:
        try:
            forget()
        except Exception as error:
            log.exception("A part of the cleanup failed", part=getattr(forget, "__name__", "?"))
            failures.append(error)
            db.connection.close_if_unusable_or_obsolete()  # lost: the next part opens another
    if failures:
        raise failures[0]
    return True


class Cleaner:
    """The thread of a worker's process that does the nightly cleanup beside the work.

    The cleanup pauses for most of its time. As a task it would keep a process of the pool from the events
    all the while: with two processes, a third of the rate.
    """

    def __init__(self) -> None:
        self._enabled = False
        self._thread: threading.Thread | None = None

    def enable(self) -> None:
        """Allow this process to clean up by itself: it is one of a worker."""
        self._enabled = True

    def start(self) -> bool:
        """Begin unless it is under way; return false where this process has no thread for it.

        A worker that stops does not wait for it: what is left then, the next night's cleanup takes.
        """
        if not self._enabled:
            return False
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="cleanup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                log.warning("The cleanup has no thread of its own", why=str(error))
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        try:
            clean_up()
        except Exception:
            metrics.TASK_FAILURES.labels(TASK).inc()  # as if the task had failed
            log.exception("The cleanup failed")
        finally:
            with suppress(db.Error):  # broken: a new one is opened the next time
                db.connection.close()


CLEANER = Cleaner()


def doubt() -> str:
    """Return why the database's clock may be wrong; empty if events bear it out.

    Where no event is younger than the retention, each of them would be forgotten at once. Both the
    time at which an event was processed and the producer's own timestamp must be younger: a replay
    in a time that is wrong has only the first.
    """
    now = clock.now()
    cutoff = now - settings.PROCESSED_EVENTS_RETENTION
    events = ProcessedEvent.objects.order_by("-processed_at")
    newest = events.values_list("processed_at", flat=True).first()
    stamped = Q(occurred_at__isnull=True) | Q(occurred_at__gte=cutoff)
    if newest is None or events.filter(stamped, processed_at__gte=cutoff).exists():
        return ""
    return (
        f"by the database's clock ({now:%Y-%m-%d %H:%M} UTC) every processed event is older than "
        f"RETENTION_DAYS; the newest was processed on {newest:%Y-%m-%d %H:%M} UTC"
    )


@part_of_cleanup
def forget_processed_events() -> int:
    """Delete processed events older than the retention; return how many.

    A row goes only when a repeat of its event would be refused as stale. That depends on the
    timestamp of the event, which may be ahead of the time at which it was processed. A row also
    stays as long as a dead letter can be replayed for it, since a replay is applied however old.
    """
    now = clock.now()
    cutoff = now - settings.PROCESSED_EVENTS_RETENTION - MARGIN
    replayable = DeadLetter.objects.filter(
        Q(state=DeadLetter.State.PARKED) | Q(resolved_at__gt=now - settings.REPLAY_WINDOW),
    )
    replayed = replayable.filter(event_id=OuterRef("event_id"), queue=OuterRef("consumer"))
    edited = replayable.filter(edited_event_id=OuterRef("event_id"))  # where one may be sent again
    old = ProcessedEvent.objects.filter(
        ~Exists(replayed),
        ~Exists(edited),
        Q(occurred_at__isnull=True) | Q(occurred_at__lt=cutoff),
        processed_at__lt=cutoff,
    )
    deleted = 0
    for pks in batches(old, by="processed_at"):
        deleted += ProcessedEvent.objects.filter(pk__in=pks).delete()[0]
    metrics.PROCESSED_EVENTS_DELETED.inc(deleted)
    log.info("Cleanup: processed events deleted", deleted=deleted, older_than=cutoff.isoformat())
    return deleted


@part_of_cleanup
def forget_suspects() -> int:
    """Delete the marks of messages that never came back; return how many."""
    old = Suspect.objects.filter(begun_at__lt=clock.now() - settings.PROCESSED_EVENTS_RETENTION)
    return old.delete()[0]


@part_of_cleanup
def forget_dead_letters() -> int:
    """Remove what came from dead letters that were closed longer ago than their retention.

    What is known of each (its ids, the reason, who closed it and why) stays. Open ones are kept.
    """
    now = clock.now()
    old = DeadLetter.objects.filter(
        resolved_at__lt=now - settings.DEAD_LETTER_RETENTION, forgotten_at__isnull=True
    ).exclude(state=DeadLetter.State.PARKED)
    forgotten = 0
    for pks in batches(old, by="resolved_at"):
        # The detail may repeat a value of the body.
        removed: dict[str, Any] = {"body": b"", "edited_body": None, "detail": ""}
        forgotten += old.filter(pk__in=pks).update(forgotten_at=now, **removed)
    log.info("Cleanup: what came was removed from dead letters", forgotten=forgotten)
    return forgotten


@register
def retention_outlives_repeats(**_: Any) -> list[CheckMessage]:
    """Check that no event is forgotten while it may still be tried again or replayed."""
    retention = settings.PROCESSED_EVENTS_RETENTION
    needed = LONGEST_RETRY + settings.REPLAY_WINDOW
    if retention >= needed:
        return []
    return [
        Error(
            f"Processed events are kept for {retention.days} days, but a repeat can come for "
            f"{needed.days}: it would be applied twice.",
            hint="Raise RETENTION_DAYS or lower REPLAY_WINDOW_DAYS.",
            id="messaging.E001",
        )
    ]
