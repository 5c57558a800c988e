"""The promises of the catalog: a tour's numbers are those of its ledger, and of its history."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from booking_platform.messaging.paging import in_spans
from booking_platform.operations.audits import Finding, audits
from catalog.models import Reservation, SeatChange, Tour, seats_left

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
        f"catalog.tour {tour.pk}",
        f"Tour {tour.pk} {'; it '.join(wrong)}.",
        "Find out who has written to the database past the platform. Then run "
        f"`python manage.py recount_seats {tour.pk}`, which counts the reservations anew.",
    )


@audits(
    "seat-history",
    "The last change in the history of each tour's seats left the numbers that it has.",
)
def seat_history() -> Iterator[Finding]:
    """Yield the tours that have other numbers than their newest change left.

    A tour whose seats have not changed since its history is kept has none, and is no finding.
    """
    changes = SeatChange.objects.filter(tour_id=OuterRef("pk"))
    as_it_is = changes.filter(
        version=OuterRef("newest"),
        capacity=OuterRef("capacity"),
        reserved=OuterRef("reserved_seats"),
        unledgered=OuterRef("unledgered_seats"),
    )
    newest = Subquery(changes.order_by("-version").values("version")[:1])
    for span in in_spans(Tour.objects.all(), TOURS):
        known = span.order_by("pk").annotate(newest=newest).filter(newest__isnull=False)
        for tour in known.filter(~Exists(as_it_is)):
            yield Finding(
                f"catalog.tour {tour.pk}",
                f"Tour {tour.pk} has other seats than the last change in its history left "
                f"(version {tour.newest}): {tour.explain_seats()}.",
                "Find out who has written to the database past the platform; during an upgrade a worker of "
                f"an older version may have. Then run `python manage.py recount_seats {tour.pk}`, which "
                "announces the numbers, too.",
            )
