"""The demo's scenarios of announcements: what a booking system hears of its bookings."""

from collections.abc import Iterator

from booking_platform.development.listener import Listener, listening
from booking_platform.development.scenario import (
    Scenario,
    created,
    new_tour,
    publish,
    publish_at_once,
)
from booking_platform.messaging import broker
from catalog.models import Tour

HOT = 1000  # bookings
FEW = 250  # announcements of the tour's numbers, at most


def announcement_scenarios() -> Iterator[Scenario]:
    """Yield the scenarios, with somebody who listens to what is announced."""
    with listening(broker.connection_to_publish) as listener:
        yield _heard(listener)
        yield _hot_tour(listener)


def _heard(listener: Listener) -> Scenario:
    tour = new_tour("Orsay at dawn", capacity=1)
    bodies = [created(tour, "r1", seats=1), created(tour, "r2", seats=1)]

    def rejected() -> list[str]:
        said = (each for each in listener.known("SeatsRejected") if each["tourId"] == tour)
        return [each["reason"] for each in said]

    def heard() -> bool:
        listener.hear()
        return len(rejected()) == 1 and _available(listener, tour) == [0]

    return Scenario(
        "two bookings of the last seat, and the booking system listens",
        lambda: publish(bodies),
        heard,
        [
            ("heard of the one without a seat", ["not_enough_seats"], rejected),
            ("heard of the tour: seats available", [0], lambda: _available(listener, tour)),
        ],
    )


def _hot_tour(listener: Listener) -> Scenario:
    tour = new_tour("Mont Saint-Michel", capacity=HOT)
    bodies = [created(tour, f"s{number}") for number in range(HOT)]

    def reserved() -> int:
        said = listener.known("SeatsReserved")
        return len({each["bookingId"] for each in said if each["tourId"] == tour})

    def heard() -> bool:
        listener.hear()
        return reserved() == HOT and _available(listener, tour)[-1:] == [0]

    return Scenario(
        f"{HOT:,} bookings of one tour: each is heard of, and its numbers a few times",
        lambda: publish_at_once(bodies),
        heard,
        [
            ("heard of bookings with seats", HOT, reserved),
            ("the last number heard is the tour's", True, lambda: _is_last(listener, tour)),
            (
                f"its numbers were heard at most {FEW} times",
                True,
                lambda: len(_available(listener, tour)) <= FEW,
            ),
        ],
    )


def _available(listener: Listener, tour: int) -> list[int]:
    """Return the numbers of available seats that were heard of a tour, after the one it began with."""
    said = listener.known("TourAvailabilityChanged")
    return [each["available"] for each in said if each["tourId"] == tour and each["version"]]


def _is_last(listener: Listener, tour: int) -> bool:
    return _available(listener, tour)[-1:] == [Tour.objects.get(pk=tour).available_seats]
