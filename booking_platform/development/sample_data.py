"""A season of bookings with every kind of trouble in it: something to look at, and to learn the admin from.

The events go through the platform's own consumers, in this process and without a broker, to a Stripe
sandbox and a mail server that refuse some. What happened to each is then dated back, hour by hour.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F
from rich.progress import track

from booking_platform.contract import examples
from booking_platform.contract.examples import Json
from booking_platform.development.mail_server import RCPT, MailServer
from booking_platform.development.mail_server import running as mail_server
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.development.stripe_sandbox import running as stripe_sandbox
from booking_platform.messaging import clock, inbox
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import Attempt, DeadLetter, OutboxRow, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from catalog.models import Reservation, SeatChange, Tour
from notifications.models import CancellationEmail
from payments.models import Refund

GROUP = 200  # events a group, as a busy worker has
PRICE = 4_000  # cents a seat
# What happens in an hour of the day: few book at night.
BUSY = (1, 1, 1, 1, 1, 2, 3, 5, 8, 9, 9, 8, 7, 8, 9, 9, 8, 8, 9, 10, 9, 6, 4, 2)
DAY = timedelta(hours=len(BUSY))
# How many seats the tours have, for each 4,000 bookings: most have room, some are sold out.
ROOM = (1200, 900, 600, 400, 200, 120, 80, 50, 24, 12)
NAMES = (
    "Walk along the Seine", "Giverny in May", "Mont-Saint-Michel at low tide", "Versailles by bicycle",
    "Champagne cellars", "Chartres by night", "The castles of the Loire", "Honfleur and its harbour",
    "Lavender in Provence", "Kayaks at Étretat",
)  # fmt: skip
# When what was stored is said to have happened.
DATED: dict[type[models.Model], tuple[str, ...]] = {
    ProcessedEvent: ("processed_at",),
    DeadLetter: ("parked_at", "last_parked_at"),
    Attempt: ("first_at", "last_at"),
    Reservation: ("created_at", "updated_at"),
    Tour: ("created_at",),
    SeatChange: ("changed_at",),
    Refund: ("created_at", "first_sent_at", "updated_at"),
    CancellationEmail: ("created_at", "wanted_at", "sent_at", "updated_at"),
}

Event = tuple[str, bytes]  # a routing key, and what is published under it


def make(bookings: int, *, seed: int = 0) -> dict[str, int]:
    """Make so many bookings of the last day and their troubles; return how many rows of each kind there are.

    The tables may hold other rows already; they stay as they are.
    """
    with stripe_sandbox() as stripe, mail_server() as mail:
        settings.STRIPE_API_BASE = stripe.url
        settings.SMTP_HOST, settings.SMTP_PORT, settings.SMTP_SECURITY = (
            "127.0.0.1",
            mail.port,
            "none",
        )
        began = clock.now()
        season = Season(Random(seed), bookings, stripe, mail)
        _date_back(began, by=DAY)  # the tours were there before the first booking
        for age, share in track(
            list(_hours(bookings)), description="Hours of bookings", transient=True
        ):
            started = clock.now()
            _consume(season.hour(share))
            # Nobody listens: else they would be found late, and be sent to whoever comes next.
            OutboxRow.waiting().update(published_at=clock.now())
            _date_back(started, by=age)
        season.leave_trouble()
    return {str(model._meta.verbose_name_plural): model._default_manager.count() for model in DATED}


def _hours(bookings: int) -> Iterator[tuple[timedelta, int]]:
    """Return for each of the last 24 hours how long ago it was, and how many bookings came."""
    this_hour = clock.now().hour
    for ago in range(len(BUSY) - 1, -1, -1):
        share = bookings * BUSY[(this_hour - ago) % len(BUSY)] // sum(BUSY)
        yield timedelta(hours=ago), share


def _consume(events: list[Event]) -> None:
    """Apply the events with each consumer that is bound to them, in groups."""
    for consumer in CONSUMERS.values():
        own = [Delivery(body) for key, body in events if key == consumer.routing_key]
        for start in range(0, len(own), GROUP):
            inbox.process(consumer, own[start : start + GROUP])


def _date_back(started: datetime, *, by: timedelta) -> None:
    """Set the times of what was stored since ``started`` back by a span."""
    for model, columns in DATED.items():
        for column in columns:
            happened = model._default_manager.filter(**{f"{column}__gte": started})
            happened.update(**{column: F(column) - by})


class Season:
    """What customers, colleagues and foreign programs do, at random but the same for a seed."""

    def __init__(self, chance: Random, bookings: int, stripe: Sandbox, mail: MailServer) -> None:
        self._chance, self._stripe, self._mail = chance, stripe, mail
        self._tours = [
            Tour.objects.create(
                name=f"{name}, {day}", price="40.00", capacity=max(4, room * bookings // 4_000)
            )
            for day in ("Friday", "Saturday", "Sunday", "Monday")
            for name, room in zip(NAMES, ROOM, strict=True)
        ]
        self._prefix = f"{chance.getrandbits(32):08x}"
        self._booked = 0
        self._live: list[tuple[str, int, int, str]] = []  # bookings: id, tour, seats, payment
        self._troubles: dict[str, int] = defaultdict(int)
        newest = Tour.objects.order_by("-pk").values_list("pk", flat=True)[0]
        self._missing_tour = newest + 1  # nobody has created it yet

    def hour(self, bookings: int) -> list[Event]:
        """Return the events of an hour in which so many bookings are made."""
        events: list[Event] = []
        for _ in range(bookings):
            events += self._booking()
            if self._chance.random() < 0.12 and self._live:  # noqa: PLR2004
                events += self._cancellation()
        repeated = self._chance.sample(events, len(events) // 20)
        return events + repeated + self._nonsense()

    def leave_trouble(self) -> None:
        """Do what staff did last: less seats than are sold, for one tour."""
        tour = max(Tour.objects.filter(pk__in=[t.pk for t in self._tours]), key=_reserved)
        tour.capacity = max(1, tour.reserved_seats - 3)
        tour.save(update_fields=["capacity"])

    def _booking(self) -> list[Event]:
        self._booked += 1
        booking = f"{self._prefix}-{self._booked:05d}"
        seats = self._chance.choice((1, 1, 2, 2, 2, 3, 4))
        tour = self._chance.choice(self._tours).pk
        if self._chance.random() < 0.002:  # noqa: PLR2004
            tour = self._missing_tour
        self._live.append((booking, tour, seats, _payment(booking, seats)))
        return [_event(examples.booking_created(tour, booking, seats))]

    def _cancellation(self) -> list[Event]:
        booking, tour, seats, paid = self._live.pop(self._chance.randrange(len(self._live)))
        address = f"{booking}@example.com"
        said: dict[str, Any] = {
            "paymentId": paid,
            "amount": seats * PRICE / 100,
            "currency": "eur",
            "userEmail": address,
            "tourName": self._chance.choice(NAMES),
        }
        trouble = self._chance.choices(
            (None, *_CANCELLATIONS), weights=(915, *(each.weight for each in _CANCELLATIONS))
        )[0]
        if trouble is not None:
            trouble.happen(self, booking, said)
        if self._chance.random() < 0.03:  # noqa: PLR2004
            self._mail.fail(RCPT, "550 5.1.1 no such user here", to=address)
        if seats > 1 and self._chance.random() < 0.1:  # noqa: PLR2004
            left = seats - 1
            self._live.append((booking, tour, left, paid))
            said |= {"seatsRemaining": left, "amount": PRICE / 100}
            return [_event(examples.booking_cancelled(tour, booking, 1, **said))]
        return [_event(examples.booking_cancelled(tour, booking, seats, **said))]

    def _nonsense(self) -> list[Event]:
        """Return what foreign programs publish by mistake: no JSON, a field too few, an id used twice."""
        tour = self._chance.choice(self._tours).pk
        event = examples.booking_created(tour, f"{self._prefix}-{self._booked:05d}-x", 0)
        return [("booking.created", b'{"eventId": "cut-off", "payl'), _event(event)]


class _Trouble:
    """What can be wrong with a cancellation, and how often it is, in a thousand."""

    def __init__(self, weight: int, happen: Callable[[Season, str, dict[str, Any]], None]) -> None:
        self.weight, self.happen = weight, happen


def _misspell_currency(_: Season, __: str, said: dict[str, Any]) -> None:
    said["currency"] = "euo"


def _ask_for_too_much(_: Season, __: str, said: dict[str, Any]) -> None:
    said["amount"] *= 2


def _name_no_payment(_: Season, booking: str, said: dict[str, Any]) -> None:
    said["paymentId"] = f"pi_mistyped_{booking}"


def _lack_balance(season: Season, _: str, said: dict[str, Any]) -> None:
    season._stripe.fail("balance_insufficient", payment=said["paymentId"])


def _mistype_address(_: Season, __: str, said: dict[str, Any]) -> None:
    said["userEmail"] = "ann at example dot com"


_CANCELLATIONS = (
    _Trouble(20, _misspell_currency),
    _Trouble(20, _ask_for_too_much),
    _Trouble(15, _name_no_payment),
    _Trouble(15, _lack_balance),
    _Trouble(15, _mistype_address),
)


def _payment(booking: str, seats: int) -> str:
    """Return a name under which any sandbox has the payment: this one is gone when staff try again."""
    return f"pi_sandbox_{seats * PRICE}_eur_{booking.replace('-', '_')}"


def _event(event: Json) -> Event:
    key = "booking.created" if event["eventType"] == "BookingCreated" else "booking.cancelled"
    return key, examples.body(event)


def _reserved(tour: Tour) -> int:
    return tour.reserved_seats
