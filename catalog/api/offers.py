"""What a web shop is told of the tours, read with one query."""

from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import BigIntegerField, QuerySet
from django.db.models.functions import Coalesce

from catalog.models import Tour

# A tour of which nothing has been announced yet, such as one that was made just now, shows its own.
CAPACITY = Coalesce("announced__capacity", "capacity", output_field=BigIntegerField())
AVAILABLE = Coalesce("announced__available", "available_seats", output_field=BigIntegerField())
VERSION = Coalesce("announced__version", "optimistic_lock_version")


class Offer(NamedTuple):
    """A tour as the public sees it."""

    id: int
    name: str
    price: Decimal
    capacity: int
    available: int
    version: int


def offer(tour_id: int) -> Offer | None:
    """Return the offer of one tour; none where there is no such tour."""
    return next((Offer(*row) for row in _rows().filter(pk=tour_id)), None)


def page(*, after: int, limit: int, seats: int) -> list[Offer]:
    """Return the first offers after an id, in the order of their ids, with so many seats or more free.

    The work does not grow with the number of tours before them, and none are counted.
    """
    rows = _rows().filter(pk__gt=after).order_by("pk")
    if seats:
        rows = rows.alias(free=AVAILABLE).filter(free__gte=seats)
    return [Offer(*row) for row in rows[:limit]]


def _rows() -> QuerySet[Tour, tuple[Any, ...]]:
    return Tour.objects.order_by().values_list("pk", "name", "price", CAPACITY, AVAILABLE, VERSION)
