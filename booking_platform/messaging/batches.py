"""Many rows deleted or changed while events go on: some at a time, with rests, and in turns.

To delete a row costs the database about as much as an event does. What must be done some time in the
night therefore takes a part of one process only. Its pauses also let the worker's processes, which share
few cores, come to their events.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import models

from booking_platform.messaging import clock

BATCH = 1000  # rows a statement: no lock is held for long
SHARE = 0.2  # of the time in which batches are worked on; the rest are pauses

T = TypeVar("T")


class Turn:
    """A span of time after which no new batch is begun."""

    def __init__(self, seconds: float) -> None:
        self._until = clock.ticks() + seconds
        self.unfinished = False  # whether something was left to the next turn

    @property
    def over(self) -> bool:
        return clock.ticks() >= self._until


_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)


@contextmanager
def turn(seconds: float) -> Iterator[Turn]:
    """End all batches of a block after so many seconds; what is left then makes the turn ``unfinished``."""
    token = _turn.set(Turn(seconds))
    try:
        yield _turn.get()  # type: ignore[misc]  # set above
    finally:
        _turn.reset(token)


def batches(rows: "models.QuerySet[Any]", *, by: str) -> Iterator[list[Any]]:
    """Yield the primary keys of the rows, in the order of a column, at most ``BATCH`` at a time.

    The caller deletes each batch, or changes it so that ``rows`` has it no more. An index must have the
    order: each batch is looked for where the last one ended, so that the entries of what was deleted, which
    stay in the index for some time, are not passed again and again.
    """
    keys = rows.order_by(by).values_list("pk", by)
    rest = keys

    def read() -> Sequence[tuple[Any, Any]]:
        nonlocal rest
        page = list(rest[:BATCH])
        if page:
            rest = keys.filter(**{f"{by}__gte": page[-1][1]})
        return page

    for page in paced(read):
        yield [pk for pk, _ in page]


def paced(read: Callable[[], Sequence[T]]) -> Iterator[Sequence[T]]:
    """Yield what ``read`` finds, with a pause after each time, until it finds nothing or the turn is over."""
    current = _turn.get()
    while True:
        if current and current.over:
            current.unfinished = True
            return
        begun = clock.ticks()
        found = read()
        if not found:
            return
        yield found
        time.sleep((clock.ticks() - begun) * (1 / SHARE - 1))
