from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from booking_platform.contract.envelope import Event, Payload
from booking_platform.contract.events import BookingCancelled, BookingCreated
from booking_platform.messaging.rules import Refused
from catalog.seats import OTHER_TOUR, UNKNOWN_TOUR, Booking, Decision, Outcome, Seats, State, decide

TOUR = 1
PLENTY = 10_000  # seats; more than any example here asks for
NOW = datetime(2026, 11, 22, tzinfo=UTC)
_numbers = count()


def event(payload: Payload) -> Event:
    """Return an event with a new id, as a producer that repeats itself may."""
    return Event(f"e-{next(_numbers)}", type(payload).__name__, NOW, payload, "")


def created(booking: str | None, seats: int, tour: int = TOUR) -> Event:
    return event(BookingCreated(tour_id=tour, seats_booked=seats, booking_id=booking))


def cancelled(booking: str, seats: int, tour: int = TOUR) -> Event:
    return event(BookingCancelled(booking_id=booking, tour_id=tour, seats_released=seats))


def tour(capacity: int = 20, reserved: int = 0, unledgered: int = 0, tour_id: int = TOUR) -> Seats:
    return Seats(tour_id, 7, capacity, reserved, unledgered)


class Ledger:
    """The state that ``decide`` is given, and what must hold in it after every event."""

    def __init__(self, *tours: Seats, bookings: tuple[Booking, ...] = ()) -> None:
        self.tours = {seats.tour_id: seats for seats in tours}
        self.bookings = {booking.booking_id: booking for booking in bookings}
        self._sold_outside = sum(seats.unledgered for seats in tours) + self._waiting()

    @property
    def tour(self) -> Seats:
        return self.tours[TOUR]

    @property
    def states(self) -> dict[str, str]:
        return {name: str(booking.state) for name, booking in self.bookings.items()}

    def take(self, event: Event) -> Decision:
        """Decide one event, and check what must hold whatever it was."""
        [decision], self.tours, self.bookings = decide(self.tours, self.bookings, [event])
        if isinstance(event.payload, BookingCreated) and event.payload.booking_id is None:
            self._sold_outside += event.payload.seats_booked * (
                decision.outcome == Outcome.RESERVED
            )
        for seats in self.tours.values():
            own = [
                booking for booking in self.bookings.values() if booking.tour_id == seats.tour_id
            ]
            assert seats.reserved == sum(b.seats for b in own if b.state == State.RESERVED)
            assert seats.available == max(
                0, seats.capacity - seats.reserved - max(0, seats.unledgered)
            )
            assert 0 <= seats.available <= seats.capacity
        assert sum(seats.unledgered for seats in self.tours.values()) == (
            self._sold_outside - self._waiting()
        )
        return decision

    def take_all(self, events: Iterable[Event]) -> "Ledger":
        for each in events:
            self.take(each)
        return self

    def _waiting(self) -> int:
        """Count the seats of cancellations whose creation has not come."""
        return sum(b.seats for b in self.bookings.values() if b.state == State.CANCELLED)


def known(state: State, seats: int = 3, tour_id: int = TOUR) -> Booking:
    return Booking("BK-1", tour_id, seats, state)


SETTLED = [State.REJECTED, State.RELEASED]


class TestACreation:
    """The rows of the table in docs: created (b, n)."""

    @pytest.mark.parametrize("seats", [1, 10], ids=["some", "the last"])
    def test_it_takes_seats_that_are_available(self, seats: int) -> None:
        ledger = Ledger(tour(20, unledgered=10))

        decision = ledger.take(first := created("BK-1", seats))

        assert decision == (Outcome.RESERVED, tour(20, 0, 10), tour(20, seats, 10))
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, seats, State.RESERVED, None, first.event_id, "")
        }

    @pytest.mark.parametrize("start", [tour(20, unledgered=18), tour(2), tour(0)])
    def test_it_is_rejected_where_too_few_are_available(self, start: Seats) -> None:
        ledger = Ledger(start)

        decision = ledger.take(first := created("BK-1", 3))

        assert decision == (Outcome.REJECTED, start, start)
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, 3, State.REJECTED, None, first.event_id, "")
        }

    @pytest.mark.parametrize("seats", [3, 5], ids=["same seats", "other seats"])
    @pytest.mark.parametrize("unledgered", [0, 10])
    def test_it_nets_to_zero_with_a_cancellation_that_came_first(
        self, unledgered: int, seats: int
    ) -> None:
        ledger = Ledger(tour(20, unledgered=unledgered))
        early = cancelled("BK-1", 3)
        ledger.take(early)

        decision = ledger.take(late := created("BK-1", seats))

        assert decision.outcome == Outcome.RELEASED
        assert ledger.tour == tour(20, unledgered=unledgered)
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, 3, State.RELEASED, 3, late.event_id, early.event_id)
        }

    @pytest.mark.parametrize("state", [State.RESERVED, *SETTLED])
    @pytest.mark.parametrize("seats", [3, 5], ids=["same seats", "other seats"])
    def test_it_changes_nothing_about_a_booking_that_was_created_before(
        self, state: State, seats: int
    ) -> None:
        booking = known(state)
        start = tour(20, reserved=3 if state == State.RESERVED else 0)
        ledger = Ledger(start, bookings=(booking,))

        assert ledger.take(created("BK-1", seats)) == (Outcome.UNCHANGED, start, start)
        assert ledger.bookings == {"BK-1": booking}


class TestACreationWithoutABooking:
    @pytest.mark.parametrize(
        ("start", "unledgered"),
        [
            (tour(20, unledgered=10), 20),
            (tour(10), 10),
            (tour(20, unledgered=-4), 6),
            (tour(0, unledgered=-10), 0),
        ],
        ids=["takes the last", "takes all", "takes what is not owed", "takes none"],
    )
    def test_it_counts_outside_the_ledger_where_what_it_takes_is_there(
        self, start: Seats, unledgered: int
    ) -> None:
        ledger = Ledger(start)

        decision = ledger.take(created(None, 10))

        assert decision == (Outcome.RESERVED, start, start._replace(unledgered=unledgered))
        assert not ledger.bookings

    @pytest.mark.parametrize(
        "start", [tour(20, unledgered=11), tour(9), tour(5, unledgered=-4)], ids=["11", "9", "-4"]
    )
    def test_it_is_rejected_where_that_is_not_there(self, start: Seats) -> None:
        ledger = Ledger(start)

        assert ledger.take(created(None, 10)) == (Outcome.REJECTED, start, start)
        assert not ledger.bookings


class TestACancellation:
    """The rows of the table in docs: cancelled (b, n)."""

    @pytest.mark.parametrize("seats", [3, 2, 5], ids=["same", "fewer", "more"])
    def test_it_releases_the_seats_that_were_reserved_whatever_it_says(self, seats: int) -> None:
        ledger = Ledger(tour(20, reserved=3), bookings=(known(State.RESERVED),))

        decision = ledger.take(event := cancelled("BK-1", seats))

        assert decision == (Outcome.RELEASED, tour(20, reserved=3), tour(20))
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, 3, State.RELEASED, seats, "", event.event_id)
        }

    def test_it_gives_back_seats_sold_outside_the_ledger(self) -> None:
        """The lesson's own test: from 10 to 12."""
        ledger = Ledger(tour(20, unledgered=10))
        assert ledger.tour.available == 10

        decision = ledger.take(event := cancelled("BK-1", 2))

        assert decision.outcome == Outcome.CANCELLED
        assert ledger.tour == tour(20, unledgered=8)
        assert ledger.tour.available == 12
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, 2, State.CANCELLED, 2, "", event.event_id)
        }

    def test_it_waits_below_zero_for_its_creation(self) -> None:
        ledger = Ledger(tour(20))

        ledger.take(cancelled("BK-1", 2))

        assert ledger.tour == tour(20, unledgered=-2)
        assert ledger.tour.available == 20

    @pytest.mark.parametrize("state", [*SETTLED, State.CANCELLED])
    @pytest.mark.parametrize("seats", [3, 5], ids=["same seats", "other seats"])
    def test_it_changes_nothing_about_a_booking_that_holds_no_seats(
        self, state: State, seats: int
    ) -> None:
        start, booking = tour(20, unledgered=4), known(state)
        ledger = Ledger(start, bookings=(booking,))

        assert ledger.take(cancelled("BK-1", seats)) == (Outcome.UNCHANGED, start, start)
        assert ledger.bookings == {"BK-1": booking}

    def test_it_reduces_what_is_overbooked_before_it_frees_a_seat(self) -> None:
        bookings = [Booking(f"BK-{seats}", TOUR, seats, State.RESERVED) for seats in (2, 3)]
        ledger = Ledger(tour(2, reserved=5), bookings=tuple(bookings))

        numbers = [ledger.take(cancelled(f"BK-{n}", n)).after for n in (2, 3)]

        assert [each and each.available for each in numbers] == [0, 2]


class TestAnEventThatFitsNothing:
    @pytest.mark.parametrize("make", [created, cancelled])
    def test_an_unknown_tour_is_parked(self, make: Callable[..., Event]) -> None:
        ledger = Ledger(tour())

        [answer, *numbers] = ledger.take(make("BK-1", 1, tour=5))

        assert answer == Refused(UNKNOWN_TOUR, "payload.tourId is 5: there is no such tour")
        assert numbers == [None, None]
        assert (ledger.tours, ledger.bookings) == ({TOUR: tour()}, {})

    @pytest.mark.parametrize("make", [created, cancelled])
    @pytest.mark.parametrize("state", State)
    def test_a_booking_that_named_another_tour_is_parked(
        self, make: Callable[..., Event], state: State
    ) -> None:
        other = tour(tour_id=2, reserved=3 if state == State.RESERVED else 0)
        booking = known(state, tour_id=2)
        ledger = Ledger(tour(), other, bookings=(booking,))

        [answer, *numbers] = ledger.take(make("BK-1", 3))

        assert answer == Refused(OTHER_TOUR, "payload.tourId is 1: booking 'BK-1' was for tour 2")
        assert numbers == [None, None]
        assert ledger.tours == {TOUR: tour(), 2: other}
        assert ledger.bookings == {"BK-1": booking}

    def test_its_neighbours_are_decided(self) -> None:
        given = {TOUR: tour()}
        bookings: dict[str, Booking] = {}

        decisions, tours, _ = decide(
            given, bookings, [created("A", 1), created("B", 1, tour=5), created("C", 1)]
        )

        assert [each.outcome == Outcome.RESERVED for each in decisions] == [True, False, True]
        assert tours[TOUR].reserved == 2
        assert (given, bookings) == ({TOUR: tour()}, {})  # what it is given stays as it was


@dataclass(frozen=True)
class Trip:
    """A booking's whole life: what is said of it, in whatever order and however often."""

    name: str
    seats: int
    created: bool
    cancelled: bool
    seats_cancelled: int  # where it was created, the seats booked count, whatever this says

    def events(self, times: int) -> list[Event]:
        told = [created(self.name, self.seats)] * self.created
        told += [cancelled(self.name, self.seats_cancelled)] * self.cancelled
        return [event(each.payload) for each in told * times]


def model(unledgered: int, trips: list[Trip], anonymous: list[int]) -> tuple[Seats, dict[str, str]]:
    """Return the tour and the states at the end, with no shortage, without a look at any order."""
    held = sum(trip.seats for trip in trips if trip.created and not trip.cancelled)
    owed = sum(trip.seats_cancelled for trip in trips if trip.cancelled and not trip.created)
    states: dict[str, str] = {
        trip.name: (
            State.RELEASED if trip.created and trip.cancelled
            else State.RESERVED if trip.created
            else State.CANCELLED
        )
        for trip in trips
    }  # fmt: skip
    return tour(PLENTY, held, unledgered + sum(anonymous) - owed), states


History = tuple[list[Trip], list[int], list[Event]]
seat_numbers = st.integers(1, 6)
tellings = st.sampled_from([(True, False), (False, True), (True, True)])


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw bookings, seats sold without one, and their events in some order, with repeats."""
    trips = [
        Trip(f"BK-{number}", draw(seat_numbers), *told, draw(seat_numbers))
        for number, told in enumerate(draw(st.lists(tellings, max_size=5)))
    ]
    anonymous = draw(st.lists(seat_numbers, max_size=3))
    events = [each for trip in trips for each in trip.events(draw(st.integers(1, 3)))]
    events += [created(None, seats) for seats in anonymous]
    return trips, anonymous, draw(st.permutations(events))


class TestWithNoShortage:
    @given(histories(), st.integers(0, 20))
    @settings(deadline=None)
    def test_order_and_repetition_do_not_matter(self, history: History, unledgered: int) -> None:
        trips, anonymous, events = history

        ledger = Ledger(tour(PLENTY, unledgered=unledgered)).take_all(events)

        assert (ledger.tour, ledger.states) == model(unledgered, trips, anonymous)

    @pytest.mark.parametrize(("bookings", "times"), [(2, 2), (3, 1)])
    def test_every_order_of_a_few_bookings_ends_the_same(self, bookings: int, times: int) -> None:
        for told in product([(True, False), (False, True), (True, True)], repeat=bookings):
            trips = [Trip(f"BK-{n}", 2 + n, *each, 3) for n, each in enumerate(told)]
            payloads = [each.payload for trip in trips for each in trip.events(times)]
            for order in set(permutations(payloads)):
                ledger = Ledger(tour(PLENTY, unledgered=2)).take_all(map(event, order))
                assert (ledger.tour, ledger.states) == model(2, trips, [])

    @given(histories(), st.integers(0, 20))
    @settings(deadline=None)
    def test_a_group_is_decided_as_its_events_would_be_alone(
        self, history: History, unledgered: int
    ) -> None:
        *_, events = history
        together = Ledger(tour(9, unledgered=unledgered))
        alone = Ledger(tour(9, unledgered=unledgered))

        decisions, tours, bookings = decide(together.tours, together.bookings, events)

        assert decisions == [alone.take(each) for each in events]
        assert (tours, bookings) == (alone.tours, alone.bookings)


def overbooked(seats: Seats) -> int:
    return max(0, seats.reserved + max(0, seats.unledgered) - seats.capacity)


def check_shortage(ledger: Ledger, each: Event) -> None:
    """Take an event, and check that seats are given to whom they are there for, and no one else."""
    answer, before, after = ledger.take(each)
    assert before is not None
    assert after is not None
    payload = each.payload
    if answer in (Outcome.RESERVED, Outcome.REJECTED):
        takes = payload.seats_booked
        if payload.booking_id is None:  # it may use seats that were given back too early
            takes = max(0, before.unledgered + takes) - max(0, before.unledgered)
        assert (answer == Outcome.RESERVED) == (takes <= before.available)
        assert before.available - after.available == takes * (answer == Outcome.RESERVED)
    if answer in (Outcome.REJECTED, Outcome.UNCHANGED):
        assert after == before
    assert after.reserved <= after.capacity
    late = answer == Outcome.RELEASED and isinstance(payload, BookingCreated)
    assert overbooked(after) <= overbooked(before) or late


class TestWithAShortage:
    @given(histories(), st.integers(0, 12), st.integers(-6, 12))
    @settings(deadline=None)
    def test_no_seat_is_given_twice(self, history: History, capacity: int, unledgered: int) -> None:
        *_, events = history
        ledger = Ledger(tour(capacity, unledgered=unledgered))

        for each in events:
            check_shortage(ledger, each)

    @pytest.mark.parametrize("capacity", range(6))
    def test_every_order_of_a_few_bookings_gives_no_seat_twice(self, capacity: int) -> None:
        events = [created("A", 2), created("B", 3), cancelled("A", 2), cancelled("B", 3),
                  cancelled("C", 1), created(None, 2)]  # fmt: skip
        for order in permutations(events):
            ledger = Ledger(tour(capacity, unledgered=1))
            for each in order:
                check_shortage(ledger, each)
            assert ledger.states["C"] == State.CANCELLED

    def test_the_order_decides_who_gets_the_last_seat(self) -> None:
        events = {name: created(name, 2) for name in "ABC"}
        for order in permutations("ABC"):
            ledger = Ledger(tour(5)).take_all([events[name] for name in order])

            assert [ledger.states[name] for name in order] == ["reserved", "reserved", "rejected"]
            assert ledger.tour.available == 1

    def test_a_rejected_booking_gets_no_seat_that_comes_free_later(self) -> None:
        """Its customer was told; a repeat of the creation must not change the answer."""
        ledger = Ledger(tour(2)).take_all([created("A", 2), created("B", 2), cancelled("A", 2)])

        assert ledger.take(created("B", 2)).outcome == Outcome.UNCHANGED
        assert ledger.tour.available == 2
