"""Many rows deleted or changed while events go on: some at a time, with pauses.

To delete a row costs the database about as much as an event does. What must be done some time in the
night therefore takes a part of one process only.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from django.db import models

from booking_platform.messaging import clock

BATCH = 1000  # rows a statement: no lock is held for long
SHARE = 0.2  # of the time in which batches are worked on; the rest are pauses

T = TypeVar("T")


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
    """Yield what ``read`` finds, with a pause after each time, until it finds nothing."""
    begun = clock.ticks()
    while found := read():
        yield found
        time.sleep((clock.ticks() - begun) * (1 / SHARE - 1))
        begun = clock.ticks()
