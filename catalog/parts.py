"""What the catalog shows on the dashboard: bookings and cancellations by hour, seats by tour."""

from django.db.models import Case, Count, Q, Sum, When

from booking_platform.operations.dashboard import (
    Level,
    Look,
    Number,
    Panel,
    Row,
    list_url,
    number,
    page_url,
    shows,
)
from booking_platform.operations.outcomes import by_hour
from booking_platform.operations.parked import parked
from catalog.bookings import Outcome
from catalog.models import OVERBOOKED, Tour

TOURS = 10  # that are named

# Tours have no date, so what was sold out long ago would be named for ever if it came first.
INTEREST = Case(When(reserved_seats=0, then=2), When(available_seats=0, then=1), default=0)

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"

CHANGED = "tour-catalog.booking-changed"

parked(
    CREATED,
    one="event of a new booking, for its seats",
    many="events of new bookings, for their seats",
)
parked(
    CANCELLED,
    one="event of a cancellation, for its seats",
    many="events of cancellations, for their seats",
)
parked(CHANGED, one="event of a change, for its seats", many="events of changes, for their seats")


@shows("Bookings", "messaging.view_processedevent", place=10)
def bookings(look: Look) -> Panel:
    """Show what became of the bookings."""
    return by_hour(look, CREATED, good=[Outcome.RESERVED], attention=[Outcome.REJECTED])


@shows("Cancellations", "messaging.view_processedevent", place=20)
def cancellations(look: Look) -> Panel:
    """Show what became of the cancellations."""
    return by_hour(look, CANCELLED, good=[Outcome.RELEASED])


@shows("Seats", "catalog.view_tour", place=30)
def seats(_look: Look) -> Panel:
    """Show how many seats are sold and free, and the tours that are the fullest."""
    tours = Tour.objects.order_by().annotate(overbooked=OVERBOOKED)
    its = tours.aggregate(
        tours=Count("pk"),
        capacity=Sum("capacity"),
        free=Sum("available_seats"),
        full=Count("pk", filter=Q(available_seats=0)),
        overbooked_tours=Count("pk", filter=Q(overbooked__gt=0)),
    )
    nearly_full = tours.order_by("-overbooked", INTEREST, "available_seats", "-capacity", "-pk")
    return Panel(
        note="Overbooked tours first, then those with the fewest seats left, then the sold out.",
        numbers=[
            Number(
                label=number(its["tours"], "tour", "tours"), value=its["tours"], url=list_url(Tour)
            ),
            Number(
                label=number(its["free"], "seat free", "seats free"),
                value=its["free"] or 0,
                url=list_url(Tour, seats="free"),
            ),
            Number(
                label=number(its["full"], "tour sold out", "tours sold out"),
                value=its["full"],
                url=list_url(Tour, seats="sold-out"),
            ),
            Number(
                label=number(its["overbooked_tours"], "tour overbooked", "tours overbooked"),
                value=its["overbooked_tours"],
                url=list_url(Tour, seats="overbooked"),
                level="bad" if its["overbooked_tours"] else "",
            ),
        ],
        nothing="There are no tours yet.",
        columns=("tour", "sold", "free", "of"),
        rows=[_row(tour) for tour in nearly_full[:TOURS]],
    )


def _row(tour: Tour) -> Row:
    sold = tour.seats.sold
    level: Level = (
        "bad" if tour.overbooked_seats else "attention" if not tour.available_seats else ""
    )
    return Row(
        name=tour.name,
        url=page_url(tour),
        cells=(sold, tour.available_seats, tour.capacity),
        share=min(100, round(100 * sold / tour.capacity)) if tour.capacity else 100,
        level=level,
    )
