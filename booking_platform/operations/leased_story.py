"""What the stories of leased rows share: their attempts, and how a person has closed them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from django.utils.timezone import localtime

from booking_platform.messaging import attempt_log
from booking_platform.messaging.attempt_log import DECIDED
from booking_platform.messaging.leases import Leased
from booking_platform.messaging.models import Attempt
from booking_platform.operations.records import visible
from booking_platform.operations.stories import (
    MOST,
    Asked,
    Chapter,
    Decision,
    Entry,
    Kind,
    Level,
    Link,
    named,
    seats,
    times,
)


def leased_chapter(
    asked: Asked,
    found: Sequence[Any],
    kind: Kind,
    *,
    calm: Collection[str],
    waits: Callable[[Any], bool],
) -> Chapter:
    """Return the chapter of the first ``MOST`` of these rows of a model, with all attempts at them.

    ``calm`` are the outcomes of attempts that are as they should be, ``waits`` returns whether a row waits
    for a person. The attempts are read in one query.
    """
    rows = list(found[:MOST])
    chapter = Chapter(records=rows, more=len(found) > MOST)
    if not rows:
        return chapter
    logged = list(attempt_log.of(type(rows[0]), [row.pk for row in rows])[: MOST + 1])
    chapter.more |= len(logged) > MOST
    by_row: dict[int, list[Attempt]] = {}
    for attempt in sorted(logged[:MOST], key=lambda attempt: attempt.pk):
        by_row.setdefault(attempt.row, []).append(attempt)
    for row in rows:
        its = by_row.get(row.pk, [])
        chapter.entries += _attempts(row, its, kind, calm, waits=waits(row))
        chapter.entries += _announced(asked, its)
        if row.settled:
            chapter.decisions.append(_closed(row))
    return chapter


def step(kept: int) -> str:
    """Return which part of a booking was cancelled, in words."""
    return (
        f"for a part of the booking, which keeps {seats(kept)}" if kept else "for the whole booking"
    )


def _attempts(
    row: Leased, logged: Sequence[Attempt], kind: Kind, calm: Collection[str], *, waits: bool
) -> Iterator[Entry]:
    links = (Link(row, named(row)),)
    logged = [attempt for attempt in logged if attempt.outcome != DECIDED.outcome]
    for attempt in logged:
        level = Level.NORMAL if attempt.outcome in calm else Level.ATTENTION
        if waits and attempt is logged[-1]:
            level = Level.PERSON
        yield Entry(attempt.first_at, kind, _came_to(attempt), level, _details(attempt), links)
    if row.attempts and not logged:
        why = visible(row.last_error) or "what came of it is not remembered here"
        what = f"By now it was attempted {times(row.attempts)}: {why}"
        yield Entry(row.updated_at, kind, what, Level.PERSON if waits else Level.NORMAL, (), links)


def _came_to(attempt: Attempt) -> str:
    number = f"Attempt {attempt.number}"
    if attempt.times > 1:
        number = f"{attempt.times} attempts in a row"
    answer = f" {visible(attempt.answer)}." if attempt.answer else ""
    return f"{number}: {attempt.outcome}.{answer.removesuffix('..')}"


def _details(attempt: Attempt) -> tuple[str, ...]:
    details = []
    if attempt.times > 1:
        details.append(f"The last of them at {localtime(attempt.last_at):%Y-%m-%d %H:%M:%S %Z}")
    if attempt.reference:
        details.append(f"Request id of the answer: {visible(attempt.reference)}")
    return tuple(details)


def _announced(asked: Asked, logged: Iterable[Attempt]) -> Iterator[Entry]:
    for attempt in logged:
        for key in attempt.announced.split():
            yield asked.announcement(attempt.first_at, key)


def _closed(row: Leased) -> Decision:
    assert row.settled_at is not None
    what = f"{visible(row.settled_by)} closed {named(row)}: {visible(row.settlement)}"
    entry = Entry(row.settled_at, Kind.STAFF, what, links=(Link(row, named(row)),))
    return Decision(row, row.settled_by, entry)
