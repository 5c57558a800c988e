"""What must be true after a run: each booking reserved once, and seats that add up."""

from collections.abc import Iterable, Iterator

from bench.broker import waiting
from bench.contenders.contender import Contender, Ground
from bench.database import Connection, number
from bench.workloads import Load

ADD_UP = (
    "SELECT count(*) FROM tours WHERE capacity - available_seats <> (SELECT coalesce(sum(seats), 0)"
    " FROM reservations WHERE tour_id = tours.id AND state = 'reserved')"
)


class WrongResult(Exception):
    """A run has lost events, or done something twice: its speed means nothing."""


def check(contender: Contender, ground: Ground, load: Load) -> None:
    """Check what a run has left behind.

    Raises:
        WrongResult: something is missing, or was done twice; the message names all of it.
    """
    findings = list(left_in_queues(ground, contender.queues(load)))
    if contender.keeps_ledger:
        findings += ledger(ground.connection, load, counts_repeats=contender.counts_repeats)
    else:
        changed = contender.changed(ground, load)
        findings += compared("seats taken, with those of events given up", changed, load.change)
    raise_if_any(findings)


def raise_if_any(findings: Iterable[str]) -> None:
    """Raise an error that names all findings, if there are any.

    Raises:
        WrongResult: there are.
    """
    if found := list(findings):
        raise WrongResult("; ".join(found))


def left_in_queues(ground: Ground, queues: Iterable[str]) -> Iterator[str]:
    """Yield a finding for each queue that still has messages."""
    for queue in queues:
        yield from compared(f"messages left in {queue}", waiting(ground.rabbitmq_url, queue), 0)


def ledger(connection: Connection, load: Load, *, counts_repeats: bool) -> Iterator[str]:
    """Yield a finding for each number of the database that is not what the load must come to."""
    expected = {
        "bookings reserved": (
            "SELECT count(DISTINCT booking_id) FROM reservations WHERE state = 'reserved'",
            load.reserved,
        ),
        "reservations": (
            "SELECT count(*) FROM reservations WHERE state = 'reserved'",
            load.reserved,
        ),
        "seats reserved": (
            "SELECT sum(seats) FROM reservations WHERE state = 'reserved'",
            load.reserved,
        ),
        "seats of tours": ("SELECT sum(reserved_seats) FROM tours", load.reserved),
        "tours whose seats do not add up": (ADD_UP, 0),
        "processed events": ("SELECT count(*) FROM processed_events", load.distinct),
        "bookings rejected": (
            "SELECT count(*) FROM processed_events WHERE outcome = 'rejected'",
            load.rejected,
        ),
        "dead letters": ("SELECT count(*) FROM dead_letters", 0),
    }
    if counts_repeats:
        expected["duplicates"] = ("SELECT sum(repeats) FROM processed_events", load.duplicates)
    for what, (query, wanted) in expected.items():
        yield from compared(what, number(connection, query), wanted)


def compared(what: str, found: int, wanted: int) -> Iterator[str]:
    """Yield a finding if a number is not what it must be."""
    if found != wanted:
        yield f"{what}: {found:,} instead of {wanted:,}"
