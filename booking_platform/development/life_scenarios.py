"""The demo's scenarios of what becomes of a booking after its creation."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from django.db.models import QuerySet

from booking_platform.development.mail_server import MailServer
from booking_platform.development.scenario import (
    RUN,
    Scenario,
    cancelled,
    changed,
    created,
    new_tour,
    publish,
    wait_for,
)
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from catalog.models import Reservation, Tour
from notifications.models import CancellationEmail
from payments.models import Refund

PAID = 15_000  # cents, for three seats


def life_scenarios(stripe: Sandbox, mail: MailServer) -> Iterator[Scenario]:
    """Create tours and payments, and yield the scenarios."""
    yield _part_after_part(stripe, mail)
    yield _changed()
    yield _asked_again()
    yield _over()


def _part_after_part(stripe: Sandbox, mail: MailServer) -> Scenario:
    tour = new_tour("Chartres", capacity=10)
    payment = stripe.payment(amount=PAID, currency="eur", metadata={"booking_id": f"{RUN}-n"})
    address = f"{RUN}-n@example.com"
    told: dict[str, Any] = {
        "paymentId": payment,
        "amount": "50.00",
        "currency": "eur",
        "userEmail": address,
    }
    steps = [
        cancelled(tour, "n", event=f"n-{left}-{telling}", seatsRemaining=left, **told)
        for left in (2, 1)
        for telling in range(2)  # each step is told twice, under two event ids
    ]

    def play() -> None:
        publish([created(tour, "n", seats=3, event="n-created")])
        publish(reversed(steps))

    def done() -> bool:
        refunds = Refund.objects.filter(booking_id=f"{RUN}-n", status="completed")
        mails = CancellationEmail.objects.filter(booking_id=f"{RUN}-n", state="sent")
        return (_outcomes("n"), refunds.count(), mails.count()) == (5, 2, 2)

    def refunded() -> list[int]:
        return [one["amount"] for one in stripe.refunds if one["payment_intent"] == payment]

    return Scenario(
        "one of three seats is cancelled, then another, in the wrong order and each told twice",
        play,
        done,
        [
            ("seats available", 9, lambda: _available(tour)),
            ("refunds at Stripe, in cents", [5000, 5000], refunded),
            ("mails at the server", 2, lambda: len(mail.received(address))),
        ],
    )


def _changed() -> Scenario:
    tour = new_tour("Fontainebleau", capacity=6)
    events = [
        created(tour, "o", seats=2, event="o-created"),
        changed(tour, "o", seats=5, revision=1, event="o-more"),
        changed(tour, "o", seats=7, revision=2, event="o-too-many"),
    ]

    def play() -> None:
        for number, event in enumerate(events, 1):
            publish([event])
            wait_for(partial(_heard, "o", number))

    return Scenario(
        "a booking of two seats is changed to five, and to seven on a tour with six",
        play,
        lambda: _outcomes("o") == len(events),
        [
            ("seats available", 1, lambda: _available(tour)),
            ("the last change", "change_rejected", lambda: _outcome("o-too-many")),
        ],
    )


def _asked_again() -> Scenario:
    tour = new_tour("Chantilly", capacity=2)

    def play() -> None:
        publish([created(tour, "p", seats=3, event="p-first")])
        wait_for(lambda: _outcomes("p") == 1)
        larger = Tour.objects.get(pk=tour)
        larger.capacity = 4
        larger.save()
        publish([created(tour, "p", seats=3, event="p-second")])

    return Scenario(
        "a rejected booking is asked for again when the tour has become larger",
        play,
        lambda: _outcomes("p") == 2,
        [
            ("at first", "rejected", lambda: _outcome("p-first")),
            ("then", "reserved", lambda: _outcome("p-second")),
            ("seats available", 1, lambda: _available(tour)),
        ],
    )


def _over() -> Scenario:
    tour = new_tour("Vincennes", capacity=5)

    def play() -> None:
        publish([created(tour, "q", seats=2, event="q-created")])
        wait_for(lambda: _outcomes("q") == 1)
        publish([cancelled(tour, "q", seats=2, event="q-cancelled")])
        wait_for(lambda: _outcomes("q") == 2)
        publish([created(tour, "q", seats=2, event="q-again")])

    def parked() -> list[str]:
        letters = DeadLetter.objects.filter(event_id=f"{RUN}-q-again")
        return list(letters.values_list("reason", flat=True))

    return Scenario(
        "a cancelled booking is created again under its old id",
        play,
        lambda: bool(parked()),
        [
            ("parked because", ["booking_over"], parked),
            ("seats available", 5, lambda: _available(tour)),
        ],
    )


# What the database says.


def _available(tour: int) -> int:
    row = Tour.objects.get(pk=tour)
    held = Reservation.objects.filter(tour=tour, state=Reservation.State.RESERVED)
    assert row.reserved_seats == sum(held.values_list("seats", flat=True))
    return row.available_seats


def _of_catalog(event: str) -> "QuerySet[ProcessedEvent]":
    return ProcessedEvent.objects.filter(
        event_id__startswith=f"{RUN}-{event}", consumer__startswith="tour-catalog."
    )


def _outcomes(booking: str) -> int:
    return _of_catalog(booking).count()


def _heard(booking: str, events: int) -> bool:
    return _outcomes(booking) == events


def _outcome(event: str) -> str:
    return _of_catalog(event).get().outcome
