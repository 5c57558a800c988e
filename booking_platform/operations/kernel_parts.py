"""What the kernel shows on the dashboard: late work, announcements, workers, queues, the audit."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db.models import Count, Min
from django.utils.timezone import localtime

from booking_platform.messaging import heartbeats, outbox, topology
from booking_platform.messaging.broker import Depth
from booking_platform.messaging.leases import Leased
from booking_platform.messaging.models import (
    DeadLetter,
    Heartbeat,
    OutboxRow,
    ProcessedEvent,
)
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tallies import CONFLICTS, DUPLICATES
from booking_platform.operations.audits import overdue_of
from booking_platform.operations.broker_depths import BROKER
from booking_platform.operations.dashboard import (
    Level,
    Look,
    Number,
    Panel,
    Row,
    Waiting,
    age,
    list_url,
    number,
    page_url,
    shows,
    stamp,
    waits,
)
from booking_platform.operations.kernel_audits import leased_models
from booking_platform.operations.models import AuditRun, BulkJob, Tally

AUDIT_MISSING = timedelta(hours=26)  # it is made once a day


# What waits for a person.


def _overdue(model: type[Leased], _look: Look) -> Iterator[Waiting]:
    """Yield the rows of a model that no worker takes up."""
    rows = overdue_of(model._default_manager.all()).order_by()
    its = rows.aggregate(count=Count("pk"), lease=Min("lease_until"), due=Min("next_attempt_at"))
    if its["count"]:
        queue = topology.route(f"{model._meta.app_label}.sweep")["queue"]
        meta = model._meta
        yield Waiting(
            what=number(
                its["count"],
                f"{meta.verbose_name} is overdue",
                f"{meta.verbose_name_plural} are overdue",
            ),
            count=its["count"],
            since=min(moment for moment in (its["lease"], its["due"]) if moment),
            meaning=f"No worker takes up what is due: is one running with --queues {queue}, and beat?",
            url=list_url(model, due="overdue"),
        )


def _permission_to_view(model: type[Leased]) -> str:
    if model is BulkJob:  # whoever may see dead letters may see what is done about them
        return "messaging.view_deadletter"
    return f"{model._meta.app_label}.view_{model._meta.model_name}"


for _model in leased_models():
    _title = f"Overdue {_model._meta.verbose_name_plural}"
    waits(_title, _permission_to_view(_model), place=40)(partial(_overdue, _model))


@waits("Announcements", "messaging.view_outboxrow", place=50)
def late_announcements(look: Look) -> Iterator[Waiting]:
    """Yield the announcements that have not been published for too long."""
    late = OutboxRow.waiting().filter(created_at__lt=look.now - settings.AUDIT_LATE)
    its = late.aggregate(count=Count("pk"), since=Min("created_at"))
    if its["count"]:
        yield Waiting(
            what=number(
                its["count"],
                "group of announcements is not published",
                "groups of announcements are not published",
            ),
            count=its["count"],
            since=its["since"],
            meaning="Others do not hear what happened: `manage.py relay_outbox` says what holds it up.",
            url=list_url(OutboxRow, published="late"),
        )


@waits("Audit", "operations.view_auditrun", place=60)
def audit(look: Look) -> Iterator[Waiting]:
    """Yield what the newest audit has found, and that there is none."""
    run = AuditRun.newest()
    if run is None or look.now - run.finished_at > AUDIT_MISSING:
        yield Waiting(
            what="daily audit is missing"
            if run
            else "daily audit is missing: there has been none yet",
            count=1,
            since=run.finished_at if run else None,
            meaning="Beat has the promises audited once a day, in a worker of the queue maintenance; "
            "`manage.py audit` does it now.",
            url=list_url(AuditRun),
        )
    if run and run.found:
        yield Waiting(
            what=number(run.found, "finding of the newest audit", "findings of the newest audit"),
            count=run.found,
            since=run.finished_at,
            meaning="A promise of the platform is broken; each finding says how to mend it.",
            url=page_url(run),
        )
    if run and (incomplete := run.incomplete):
        yield Waiting(
            what=number(
                len(incomplete),
                "audit could not look at all there is",
                "audits could not look at all there is",
            ),
            count=len(incomplete),
            since=run.finished_at,
            meaning="The newest run says why.",
            url=page_url(run),
        )


@waits("Workers", "messaging.view_heartbeat", place=70)
def queues_without_worker(look: Look) -> Iterator[Waiting]:
    """Yield the task queues that no worker serves."""
    oldest = look.now - heartbeats.longest_silence()
    seen = heartbeats.last_seen()
    silent = {queue: at for queue, at in seen.items() if at is None or at < oldest}
    if silent:
        known = [at for at in silent.values() if at]
        yield Waiting(
            what=number(
                len(silent),
                "task queue is served by no worker: ",
                "task queues are served by no worker: ",
            )
            + ", ".join(sorted(silent)),
            count=len(silent),
            since=min(known, default=None),
            meaning="Their work waits: is a worker running with these in --queues, and beat?",
            url=list_url(Heartbeat),
        )


# How the platform does.


@shows("Without effect", "messaging.view_processedevent", place=60)
def without_effect(look: Look) -> Panel:
    """Show how often a repeat was recognised, and how often a write lost its race."""
    since = stamp(look.since)
    rows = []
    for kind, one, many in (
        (DUPLICATES, "duplicate suppressed", "duplicates suppressed"),
        (CONFLICTS, "lock conflict", "lock conflicts"),
    ):
        by_subject: dict[str, int] = {}
        for (its_kind, _, subject, _), count in look.counts.by.items():
            if its_kind == kind:
                by_subject[subject] = by_subject.get(subject, 0) + count
        rows.append((kind, number(sum(by_subject.values()), one, many), by_subject))
    return Panel(
        note="Both are harmless: a repeat has no effect, and a write that lost its race was done again. "
        "A worker that is killed may not have told of its last seconds.",
        numbers=[
            Number(
                label=what,
                value=sum(by_subject.values()),
                url=list_url(Tally, kind=kind, minute__gte=since),
            )
            for kind, what, by_subject in rows
        ],
        nothing="No repeat came, and no write lost its race.",
        columns=("where", "what", "how often"),
        rows=[
            Row(
                name=subject,
                url=list_url(Tally, kind=kind, subject=subject, minute__gte=since),
                cells=(what, count),
            )
            for kind, what, by_subject in rows
            for subject, count in sorted(by_subject.items())
        ],
    )


@shows("Queues", "messaging.view_heartbeat", place=35)
def queues(look: Look) -> Panel:
    """Show what waits in each queue, and who takes it, as the broker says."""
    return Panel(
        note="As the broker says now. What workers hold already is not among it.",
        nothing="The broker has none of the queues.",
        columns=("queue", "waiting", "consumers"),
        rows=[_queue(look, name, depth) for name, depth in BROKER.depths().items()],
    )


def _queue(look: Look, name: str, depth: Depth | None) -> Row:
    url = _behind(look, name)
    if depth is None:
        return Row(name=name, url=url, cells=("no such queue", "-"), level="bad")
    level: Level = "bad" if depth.consumers == 0 else ""
    consumers = "not known" if depth.consumers is None else depth.consumers
    return Row(name=name, url=url, cells=(depth.waiting, consumers), level=level)


def _behind(look: Look, queue: str) -> str:
    """Return the address of the list that is nearest to a queue."""
    if queue in CONSUMERS:
        return list_url(ProcessedEvent, consumer=queue, processed_at__gte=stamp(look.since))
    if queue in topology.task_queues():
        return list_url(Heartbeat, queue=queue)
    return list_url(DeadLetter)


@shows("Announcements", "messaging.view_outboxrow", place=80)
def announcements(_look: Look) -> Panel:
    """Show what waits in the outbox."""
    rows = OutboxRow.waiting().count()
    backlog = outbox.backlog()
    late = backlog.oldest_seconds > settings.AUDIT_LATE.total_seconds()
    waiting = list_url(OutboxRow, published="waiting")
    return Panel(
        numbers=[
            Number(
                label=number(rows, "group that waits", "groups that wait"),
                value=rows,
                url=waiting,
                level="bad" if late else "",
            ),
            Number(
                label=number(backlog.announcements, "announcement waits", "announcements wait"),
                value=backlog.announcements,
                url=waiting,
            ),
            Number(
                label="that the oldest waits",
                value=f"{backlog.oldest_seconds:,.0f} s",
                url=waiting,
            ),
        ],
    )


@shows("Workers", "messaging.view_heartbeat", place=70)
def workers(look: Look) -> Panel:
    """Show which workers were seen, and on which queues."""
    oldest = look.now - heartbeats.longest_silence()
    seen: dict[str, dict[str, datetime]] = {}
    for worker, queue, at in Heartbeat.objects.filter(seen_at__gte=oldest).values_list(
        "worker", "queue", "seen_at"
    ):
        seen.setdefault(worker, {})[queue] = at
    return Panel(
        numbers=[_newest_event(look)],
        note="Of several workers of a queue the one that is free answers: not each is seen each time.",
        nothing="No worker was seen lately.",
        columns=("worker", "queues", "last seen"),
        rows=[
            Row(
                name=worker,
                url=list_url(Heartbeat, worker=worker),
                cells=(", ".join(sorted(its)), f"{localtime(max(its.values())):%H:%M:%S %Z}"),
            )
            for worker, its in sorted(seen.items())
        ],
    )


def _newest_event(look: Look) -> Number:
    """Return how long ago the newest event was applied: whether anything flows at all."""
    times = ProcessedEvent.objects.order_by("-processed_at").values_list("processed_at", flat=True)
    newest = times.first()
    ago = f"{age(newest, look.now)} ago" if newest else "never"
    return Number(label="the newest event was applied", value=ago, url=list_url(ProcessedEvent))
