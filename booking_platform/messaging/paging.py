"""All rows of a table, some in one query: nothing stays open in between, and memory stays bounded."""

from collections.abc import Iterator
from typing import Any, TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


def in_pages(rows: "models.QuerySet[Any, tuple[Any, ...]]", size: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that are there now, in the order of their keys, ``size`` in one query.

    The key is the first column. Memory stays bounded behind a pooler too, where a cursor on the
    server does not outlast a transaction, and nothing stays open while the caller is busy.
    """
    ordered = rows.order_by("pk")
    newest = rows.aggregate(newest=models.Max("pk"))["newest"]
    page = list(ordered[:size])
    while page:
        yield from page
        page = list(ordered.filter(pk__gt=page[-1][0], pk__lte=newest)[:size])


def in_spans(rows: "models.QuerySet[M]", size: int) -> "Iterator[models.QuerySet[M]]":
    """Yield the rows that are there now as one query for each ``size`` of them, in the order of their keys.

    Each query has bounds of the key, so that what a caller filters or joins in it costs no more, however
    few rows are found. Nothing stays open in between.
    """
    keys = rows.order_by("pk").values_list("pk", flat=True)
    newest = rows.aggregate(newest=models.Max("pk"))["newest"]
    last = None
    while newest is not None and last != newest:
        rest = (
            keys.filter(pk__lte=newest)
            if last is None
            else keys.filter(pk__lte=newest, pk__gt=last)
        )
        end = rest[size - 1 : size].first() or rest.last()
        if end is None:  # deleted meanwhile
            return
        after = rows.filter(pk__lte=end)
        yield after if last is None else after.filter(pk__gt=last)
        last = end
