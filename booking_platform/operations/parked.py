"""The open dead letters on the dashboard, by queue and reason; what they mean is said by the app of the queue."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import Reason
from booking_platform.operations.dashboard import Look, Waiting, list_url, number, waits
from booking_platform.operations.letter_groups import groups
from booking_platform.operations.selecting import OTHER

LARGEST = 8  # lines that are named
PLACE = 30  # on the dashboard, where the app of the queue names no other
ADVICE = "These events have had no effect: replay or discard them."


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What it means for the business that events of a queue are parked."""

    one: str  # after its number: "cancellation whose refund was not asked for"
    many: str
    place: int = PLACE  # among all that waits: a lower one comes first


MEANINGS: dict[str, Meaning] = {}  # by queue


def parked(queue: str, *, one: str, many: str, place: int = PLACE) -> None:
    """Register what the dead letters of a queue are called on the dashboard, and how far up they stand."""
    MEANINGS[queue] = Meaning(one=one, many=many, place=place)


@dataclass
class Line:
    """Open dead letters of one queue and one reason."""

    queue: str  # or ``OTHER``
    reason: Reason
    oldest: datetime
    count: int = 0

    @property
    def meaning(self) -> Meaning:
        name = "another queue" if self.queue == OTHER else self.queue
        otherwise = Meaning(one=f"dead letter of {name}", many=f"dead letters of {name}")
        return MEANINGS.get(self.queue, otherwise)

    @property
    def order(self) -> tuple[object, ...]:
        return self.meaning.place, -self.count, self.queue, self.reason.code


def lines() -> list[Line]:
    """Return the open dead letters by queue and reason: what matters most first, then the largest."""
    found: dict[tuple[str, str], Line] = {}
    for group in groups():
        new = Line(group.queue, group.reason, group.oldest)
        line = found.setdefault((group.queue, group.reason.code), new)
        line.count += group.letters
        line.oldest = min(line.oldest, group.oldest)
    return sorted(found.values(), key=lambda line: line.order)


@waits("Dead letters", "messaging.view_deadletter", place=PLACE)
def dead_letters(_look: Look) -> Iterator[Waiting]:
    """Yield the first lines of open dead letters, and how many there are in all."""
    found = lines()
    for line in found[:LARGEST]:
        meaning = line.meaning
        yield Waiting(
            what=f"{number(line.count, meaning.one, meaning.many)}: {line.reason.meaning}",
            count=line.count,
            since=line.oldest,
            meaning=line.reason.advice or ADVICE,
            url=list_url(DeadLetter, reason=line.reason.code, queue=line.queue),
            place=meaning.place,
        )
    if rest := len(found[LARGEST:]):
        yield Waiting(
            what=f"dead letters in all, for {rest} more {number(rest, 'cause', 'causes')}",
            count=sum(line.count for line in found),
            since=min(line.oldest for line in found),
            meaning=ADVICE,
            url=list_url(DeadLetter),
        )
