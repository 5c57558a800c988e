"""The promise of the catalog: a tour's numbers are those of its ledger."""

from collections.abc import Iterator
from typing import Any

from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from booking_platform.messaging.rows import in_spans
from booking_platform.operations.audits import Finding, audits
from catalog.models import Reservation, Tour, seats_left

TOURS = 100  # a statement, which reads all their reservations


@audits("seats", "The seats of each tour are those of its reservations, and its numbers add up.")
def seats() -> Iterator[Finding]:
    """Yield the tours whose numbers are not those of their reservations.

    One statement reads a tour and its reservations, as they were at one moment: a group writes both in
    one transaction.
    """
    for span in in_spans(Tour.objects.all(), TOURS):
        for tour in _off(span):
            yield _finding(tour, tour.held)


def held_seats() -> Coalesce:
    """Return the SQL of the seats that the reservations of a tour hold."""
    its = Reservation.objects.filter(tour=OuterRef("pk"), state=Reservation.State.RESERVED)
    sums = its.order_by().values("tour").annotate(held=Sum("seats")).values("held")
    return Coalesce(Subquery(sums), Value(0))


def _off(tours: QuerySet[Tour]) -> QuerySet[Any]:
    with_held = tours.order_by("pk").annotate(held=held_seats())
    adds_up = Q(reserved_seats=F("held"), available_seats=seats_left(F("capacity")))
    return with_held.exclude(adds_up)


def _finding(tour: Tour, held: int) -> Finding:
    wrong, available = [], tour.seats.available
    if tour.reserved_seats != held:
        wrong.append(
            f"says that {tour.reserved_seats} seats are reserved, and its reservations hold {held}"
        )
    if tour.available_seats != available:
        wrong.append(
            f"says that {tour.available_seats} seats are available, and by its numbers {available} are"
        )
    return Finding(
        f"tour {tour.pk}",
        f"Tour {tour.pk} {'; it '.join(wrong)}.",
        "Find out who has written to the database past the platform. Then run "
        f"`python manage.py recount_seats {tour.pk}`, which counts the reservations anew.",
    )
