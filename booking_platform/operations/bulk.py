"""Decisions about many dead letters, carried out by a worker: letter by letter, each counted once.

A job is a row under a lease, as a refund is. A worker takes it for some seconds, so that the other tasks of
its queue are not held up, and asks for itself again. A letter is sent first; that it is closed, what the
history says of it, and the position of the job are one transaction, fenced by the lease: whoever was
overtaken changes nothing. After a crash a letter may be sent twice, under one event id, without effect.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import Error, transaction
from django.db.models import F, Max
from kombu import Producer

from booking_platform.messaging import broker, clock, dead_letters, leases, outages
from booking_platform.messaging.arrivals import worded
from booking_platform.messaging.dead_letters import NotReplayable
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.retention import part_of_cleanup
from booking_platform.operations.models import BulkJob
from booking_platform.operations.records import exact, visible
from booking_platform.operations.rights import lacking
from booking_platform.operations.selecting import Selection

log = structlog.get_logger(__name__)

SLICE_SECONDS = 10.0  # of work at a time; the queue has other tasks
PAGE = 20  # letters between two looks at whether it is to stop
KEPT_FAILURES = 50
KEPT = timedelta(days=90)  # jobs are remembered for
OVERTAKEN = "it came again meanwhile, or somebody else closed it"
EDITED = "a person has edited it, and what was made of it may have been sent: look at it"
RIGHTS = {
    BulkJob.Kind.REPLAY: "messaging.replay_deadletter",
    BulkJob.Kind.DISCARD: "messaging.discard_deadletter",
}

Kind = BulkJob.Kind


def make(selection: Selection, kind: Kind, *, user: Any, why: str, newest: int) -> BulkJob:
    """Store a job about the letters of a selection that are there now, none newer than ``newest``.

    A worker takes it at once, or with the next sweep.
    """
    letters = selection.letters().filter(pk__lte=newest)
    return BulkJob.objects.create(
        kind=kind,
        selection=selection.as_json(),
        newest=newest,
        user=user,
        made_by=user.get_username(),
        made_at=clock.now(),
        why=why,
        total=letters.count(),
        next_attempt_at=clock.now(),
    )


def newest_letter() -> int:
    """Return the key of the newest dead letter: what is parked later is in no job made now."""
    return DeadLetter.objects.aggregate(newest=Max("pk"))["newest"] or 0


def attempt(job: BulkJob) -> Conclusion:
    """Carry out a part of a job, under its lease."""
    until = clock.ticks() + min(SLICE_SECONDS, settings.LEASE_SECONDS / 2)
    try:
        with _producer(job) as producer:
            for letter in _rest(job):
                leases.still_held(job)
                _carry_out(job, letter, producer)
                if clock.ticks() >= until:
                    return Conclusion({"last_error": ""}, again=True, pause=timedelta())
    except broker.UNREACHABLE as error:
        problem = f"The broker did not take a message ({type(error).__name__}: {error})"
        log.warning("A bulk job waits for the broker", job=job.pk, error=str(error))
        pause = timedelta(seconds=settings.SWEEP_SECONDS)
        return Conclusion({"last_error": visible(problem)[:500]}, again=True, pause=pause)
    log.info("Bulk job finished", job=job.pk, done=job.done, failed=job.failed)
    return Conclusion({"finished_at": clock.now(), "next_attempt_at": None, "last_error": ""})


@contextmanager
def _producer(job: BulkJob) -> Iterator[Producer | None]:
    """Open the one producer of a part of a job; to discard needs none."""
    with broker.producer() if job.kind == Kind.REPLAY else nullcontext() as producer:
        yield producer


def _rest(job: BulkJob) -> Iterator[DeadLetter]:
    """Yield the letters that are left, until the job is to stop."""
    letters = Selection.stored(job.selection).letters()
    letters = letters.filter(pk__lte=job.newest, parked_at__lte=job.made_at).order_by("pk")
    while not _is_stopped(job):
        page = list(letters.filter(pk__gt=job.position).values_list("pk", flat=True)[:PAGE])
        if not page:
            return
        whole = DeadLetter.objects.all()  # one at a time: a body may be large
        for pk in page:
            found = whole if job.kind == Kind.REPLAY else whole.defer("body", "edited_body")
            if letter := found.filter(pk=pk).first():
                yield letter
        job.position = page[-1]


def _is_stopped(job: BulkJob) -> bool:
    """Return whether somebody has stopped it, or whoever made it may not do so any more."""
    if BulkJob.objects.filter(pk=job.pk).exclude(stopped_by="").exists():
        return True
    user = job.user
    if user is not None and user.is_active and user.has_perm(RIGHTS[Kind(job.kind)]):
        return False
    why = f"{job.made_by} is gone, or may not {job.kind} dead letters any more"
    leases.write(job, stopped_because=why)
    return True


def _carry_out(job: BulkJob, letter: DeadLetter, producer: Producer | None) -> None:
    """Decide about one letter, and count it.

    Raises:
        LeaseLost: another worker has the job; the letter stays open.
        django.db.Error: the database is away.
    """
    try:
        problem = _obstacle(job, letter) or _send(letter, producer)
        with transaction.atomic():
            problem = problem or _close(job, letter)
            _count(job, letter, problem)
    except (LeaseLost, SoftTimeLimitExceeded, *broker.UNREACHABLE):
        raise
    except Exception as error:  # a bug about one letter must not hold up the others
        if isinstance(error, Error) and outages.passes(error):
            raise
        log.exception("A bug: a bulk job leaves a letter as it is", job=job.pk, letter=letter.pk)
        _count(job, letter, f"a bug: {worded(error)}")


def _obstacle(job: BulkJob, letter: DeadLetter) -> str:
    """Return why a job may not decide about a letter; empty if it may."""
    assert job.user is not None  # asked before
    if problem := lacking(job.user, dead_letters.consumers_of(letter)):
        return problem
    return EDITED if job.kind == Kind.DISCARD and letter.edit_begun else ""


def _send(letter: DeadLetter, producer: Producer | None) -> str:
    """Send a letter to its queue if there is a producer; return why that can't be, or nothing."""
    if producer is None:  # to discard needs none
        return ""
    try:
        dead_letters.send(letter, producer=producer)
    except NotReplayable as error:
        return str(error).removeprefix(f"{letter}: ")  # it is named beside it
    return ""


def _close(job: BulkJob, letter: DeadLetter) -> str:
    """Close a letter and write its history; return why it stays open, or nothing."""
    if job.kind == Kind.DISCARD:
        closed = dead_letters.discard(letter, by=job.made_by, why=job.why)
    else:
        closed = letter.resolve(DeadLetter.State.REPLAYED, by=job.made_by, why=job.why)
    if not closed:
        return OVERTAKEN
    assert job.user_id is not None  # asked before
    done = "discarded" if job.kind == Kind.DISCARD else "replayed"
    because = f": {job.why}" if job.why else ""
    LogEntry.objects.create(
        user_id=job.user_id,
        content_type=ContentType.objects.get_for_model(DeadLetter),
        object_id=str(letter.pk),
        object_repr=str(letter)[:200],
        action_flag=CHANGE,
        change_message=f"{done} by job {job.pk}{because}",
    )
    return ""


def _count(job: BulkJob, letter: DeadLetter, problem: str) -> None:
    """Store how far the job has come.

    Raises:
        LeaseLost: another worker has it.
    """
    columns: dict[str, Any] = {"position": letter.pk}
    if problem:
        failure = {"letter": letter.pk, "event": exact(letter.event_id), "why": visible(problem)}
        job.failures = [*job.failures, failure][:KEPT_FAILURES]
        columns |= {"failed": F("failed") + 1, "failures": job.failures}
    else:
        columns["done"] = F("done") + 1
    leases.write(job, **columns)
    job.done, job.failed = job.done + (not problem), job.failed + bool(problem)


@part_of_cleanup
def forget_jobs() -> int:
    """Delete jobs that ended long ago; return how many."""
    return BulkJob.objects.filter(finished_at__lt=clock.now() - KEPT).delete()[0]
