"""The life of a booking: what was said of its seats, and how many it holds after all of that.

Everything here is pure. A life is a set of steps, put into the order in which they happened, whatever
order they came in. What comes late therefore ends in the same seats as what came in time.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

MOST_STEPS = 200  # that are remembered of one booking; far more than any has

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """What a step says of the seats that a booking holds."""

    LESS = "less"  # a cancellation: so many seats fewer
    LEFT = "left"  # a cancellation: so many seats remain, or fewer
    TOTAL = "total"  # a change: so many seats from now on


class Step(NamedTuple):
    """One step of a booking's life, after its creation."""

    kind: Kind
    seats: int
    at: int  # microseconds since 1970, by the timestamp of the event
    revision: int | None = None
    released: int = 0  # of a cancellation: the seats that it says it gives back
    said: str = ""  # of LESS: the fingerprint of the payload

    def __str__(self) -> str:
        return f"{time_of(self):%Y-%m-%d %H:%M:%S} UTC: {self.words}"

    @property
    def words(self) -> str:
        """What it says, in words."""
        match self.kind:
            case Kind.LESS:
                words = f"{self.seats} cancelled"
            case Kind.LEFT:
                words = f"{self.released} cancelled, {self.seats} remain"
            case Kind.TOTAL:
                words = f"changed to {self.seats}"
        revision = "" if self.revision is None else f" (revision {self.revision})"
        return f"{words}{revision}"


class Life(NamedTuple):
    """What a booking has come to."""

    held: int  # seats
    over: Step | None = None  # the cancellation that has left it none
    too_late: tuple[Step, ...] = ()  # what happened after that, without effect


def live(booked: int, steps: Sequence[Step]) -> Life:
    """Return what a booking of so many seats has come to. A whole cancellation is final."""
    if not steps:
        return Life(booked)
    held, ordered = booked, in_order(steps)
    for number, step in enumerate(ordered):
        match step.kind:
            case Kind.LESS:
                held = max(0, held - step.seats)
            case Kind.LEFT:
                held = min(held, step.seats)
            case Kind.TOTAL:
                held = step.seats
        if not held:
            return Life(0, step, tuple(ordered[number + 1 :]))
    return Life(held)


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return steps in the order in which they happened.

    Changes follow each other by revision. A cancellation stands behind those changes that are not
    newer: by revision where it has one, else by the timestamps. Where nothing tells, it is the
    newer one: seats that somebody gave up are not brought back.
    """
    changes: list[Step] = []
    cancellations: list[Step] = []
    for step in steps:
        (changes if step.kind is Kind.TOTAL else cancellations).append(step)
    changes.sort(key=_revision)
    behind: list[list[Step]] = [[] for _ in range(len(changes) + 1)]
    for step in cancellations:
        behind[_changes_before(step, changes)].append(step)
    ordered = _among_themselves(behind[0])
    for change, followers in zip(changes, behind[1:], strict=True):
        ordered += [change, *_among_themselves(followers)]
    return ordered


def moment(of: datetime) -> int:
    """Return a time as steps have it."""
    return (of - _EPOCH) // timedelta(microseconds=1)


def time_of(step: Step) -> datetime:
    """Return when a step happened, by the timestamp of its event."""
    return _EPOCH + timedelta(microseconds=step.at)


def load(text: str) -> tuple[Step, ...]:
    """Return the steps that ``dump`` has written."""
    return _decoder.decode(text) if text else ()


def dump(steps: Sequence[Step]) -> str:
    """Return steps as a column holds them; empty where there are none."""
    return msgspec.json.encode(steps).decode() if steps else ""


_decoder = msgspec.json.Decoder(tuple[Step, ...])


def _changes_before(step: Step, changes: Sequence[Step]) -> int:
    """Return how many of the changes a cancellation stands behind: all up to the last not newer."""
    last = 0
    for number, change in enumerate(changes, 1):
        by_time = step.revision is None
        newer = change.at > step.at if by_time else _revision(change) > _revision(step)
        if not newer:
            last = number
    return last


def _among_themselves(cancellations: list[Step]) -> list[Step]:
    if all(step.revision is not None for step in cancellations):
        return sorted(
            cancellations, key=lambda step: (_revision(step), step.kind is Kind.LEFT, step)
        )
    # Of one moment, a number that remains has the last word.
    return sorted(
        cancellations, key=lambda step: (step.at, step.kind is Kind.LEFT, step.seats, step.said)
    )


def _revision(step: Step) -> int:
    assert step.revision is not None  # of a change, and of whoever is compared by it
    return step.revision
