"""Figures by minute, for the dashboard: it never counts a large table while somebody waits for the page.

Outcomes are counted from the processed events, by beat, when their minute is over. Duplicates and lock
conflicts leave no row, so each process of a worker adds to them what it has counted itself.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Max, Sum
from django.db.models.functions import TruncHour

from booking_platform.messaging import clock
from booking_platform.messaging.batches import batches
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.retention import part_of_cleanup
from booking_platform.messaging.rows import alone, stored
from booking_platform.messaging.tallies import Counted
from booking_platform.operations.models import Tally

OUTCOMES = "outcomes"  # the kind of what is counted by beat; by consumer and outcome
EVERY_SECONDS = 60.0
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LATE = timedelta(minutes=2)  # after its minute an event may be committed, and still be counted
REACH = timedelta(days=1)  # further back nothing is counted that was not counted in time
RUN_SECONDS = 20.0  # after which a run leaves the rest to the next one
KEPT = timedelta(days=8)

By = tuple[str, datetime, str, str]  # kind, hour, subject, word


def minute_of(moment: datetime) -> datetime:
    """Return the beginning of the minute."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour, in UTC: no hour comes twice there."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def add(counts: Mapping[Counted, int]) -> None:
    """Add to the tallies of this minute."""
    minute = stored(minute_of(clock.now()))
    rows = [[kind, minute, subject, "", n] for (kind, subject), n in sorted(counts.items())]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tallies (kind, minute, subject, word, count) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (minute, kind, subject, word) DO UPDATE "
            "SET count = tallies.count + excluded.count",
            rows,
        )


def count_outcomes() -> int:
    """Count the outcomes of the minutes that are over; return how many minutes.

    A minute counts as over after ``LATE``. One run at a time counts, for ``RUN_SECONDS`` at most: the next
    goes on from there. To count a minute once more changes nothing.
    """
    now, deadline, counted = clock.now(), clock.ticks() + RUN_SECONDS, 0
    last = minute_of(now - LATE) - MINUTE
    furthest = minute_of(now - REACH)
    minute = max(counted_until() or furthest, furthest)
    while minute <= last and clock.ticks() < deadline:
        minute = min(last, _next_with_events(minute) or last)
        if not _count(minute):
            break  # another run does
        minute, counted = minute + MINUTE, counted + 1
    return counted


def counted_until() -> datetime | None:
    """Return up to when outcomes are counted; None if they never were."""
    newest: datetime | None = Tally.objects.filter(kind=OUTCOMES).aggregate(at=Max("minute"))["at"]
    return newest + MINUTE if newest else None


def by_hour(since: datetime) -> dict[By, int]:
    """Return the sums of all tallies since a moment."""
    rows = Tally.objects.filter(minute__gte=since).exclude(subject="").order_by()
    hours = rows.annotate(hour=TruncHour("minute", tzinfo=UTC))
    sums = hours.values_list("kind", "hour", "subject", "word").annotate(Sum("count"))
    return {(kind, hour_of(hour), subject, word): n for kind, hour, subject, word, n in sums}


def outcomes_since(moment: datetime, most: int) -> tuple[dict[By, int], bool]:
    """Return the outcomes since a moment by hour, counted now, and whether these are all.

    At most so many events are looked at, the newest.
    """
    events = ProcessedEvent.objects.filter(processed_at__gte=moment).order_by("-processed_at")
    hours = events.annotate(hour=TruncHour("processed_at", tzinfo=UTC))
    newest = hours.values_list("hour", "consumer", "outcome")[:most]
    sql, parameters = newest.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT hour, consumer, outcome, count(*) "
            f"FROM ({sql}) AS newest GROUP BY hour, consumer, outcome",
            parameters,
        )
        rows = cursor.fetchall()
    counts = {(OUTCOMES, _read(hour), consumer, word): n for hour, consumer, word, n in rows}
    return counts, sum(counts.values()) < most


def _read(hour: datetime | str) -> datetime:
    """Return an hour as the database has it: SQLite as text."""
    read = datetime.fromisoformat(hour) if isinstance(hour, str) else hour
    return read.replace(tzinfo=UTC) if read.tzinfo is None else hour_of(read)


@part_of_cleanup
def forget() -> int:
    """Delete old tallies; return how many."""
    old = Tally.objects.filter(minute__lt=clock.now() - KEPT)
    deleted = 0
    for pks in batches(old, by="minute"):
        deleted += Tally.objects.filter(pk__in=pks).delete()[0]
    return deleted


def _next_with_events(minute: datetime) -> datetime | None:
    events = ProcessedEvent.objects.filter(processed_at__gte=minute).order_by("processed_at")
    first = events.values_list("processed_at", flat=True).first()
    return minute_of(first) if first else None


def _count(minute: datetime) -> bool:
    """Store the outcomes of a minute, with the mark that it is counted; return false if others do."""
    with transaction.atomic(durable=True):
        if not alone("tallies"):
            return False
        events = ProcessedEvent.objects.filter(
            processed_at__gte=minute, processed_at__lt=minute + MINUTE
        )
        counts = events.order_by().values_list("consumer", "outcome").annotate(Count("pk"))
        rows = [(consumer, outcome, count) for consumer, outcome, count in counts]
        Tally.objects.bulk_create(
            [
                Tally(kind=OUTCOMES, minute=minute, subject=subject, word=word, count=count)
                for subject, word, count in [*rows, ("", "", 0)]
            ],
            update_conflicts=True,
            unique_fields=("minute", "kind", "subject", "word"),
            update_fields=("count",),
        )
    return True
