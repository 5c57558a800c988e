"""What one event does to the seats: the rows of the table in docs/seats.md."""

from collections.abc import Callable

import pytest
from msgspec.structs import astuple, replace

from booking_platform.contract.envelope import Event
from booking_platform.messaging.rules import AMBIGUOUS, DIFFERS, Reason, Refused
from catalog.bookings import (
    AWAITED,
    BOOKING_OVER,
    IMPLAUSIBLE,
    OTHER_TOUR,
    UNKNOWN_TOUR,
    Booking,
    Decision,
    Outcome,
    Seats,
    State,
)
from catalog.life import MOST_STEPS
from catalog.seats import decide
from tests.unit.lives import (
    EARLY,
    LATE,
    LATER,
    NOW,
    TOUR,
    Ledger,
    cancelled,
    changed,
    created,
    repeated,
    tour,
)


def known(state: State, seats: int = 3, tour_id: int = TOUR) -> Booking:
    """Return a reservation as an older version of the platform has written it."""
    return Booking("BK-1", tour_id, seats, state)


def reserved(seats: int = 3, capacity: int = 20) -> Ledger:
    return Ledger(tour(capacity)).take_all([created("BK-1", seats)])


def rejected(seats: int = 3) -> Ledger:
    """Return a booking that found too few seats, of which there are plenty now."""
    ledger = Ledger(tour(seats - 1)).take_all([created("BK-1", seats)])
    ledger.tours[TOUR] = tour(20)
    return ledger


def released(seats: int = 3) -> Ledger:
    return reserved(seats).take_all([cancelled("BK-1", seats, at=LATE)])


def is_parked(decision: Decision, reason: Reason) -> bool:
    answer, *rest = astuple(decision)
    return isinstance(answer, Refused) and answer.reason is reason and rest == [None, None, None]


def stays_as_it_is(ledger: Ledger, event: Event) -> Decision:
    tours, bookings = dict(ledger.tours), dict(ledger.bookings)
    decision = ledger.take(event)
    assert (ledger.tours, ledger.bookings) == (tours, bookings)
    return decision


class TestACreation:
    @pytest.mark.parametrize("seats", [1, 10], ids=["some", "the last"])
    def test_it_takes_seats_that_are_available(self, seats: int) -> None:
        ledger = Ledger(tour(20, unledgered=10))

        decision = ledger.take(first := created("BK-1", seats))

        assert astuple(decision)[:3] == (
            Outcome.RESERVED,
            tour(20, 0, 10),
            tour(20, seats, 10),
        )
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, seats, State.RESERVED, None, first.event_id, "", seats)
        }

    @pytest.mark.parametrize("start", [tour(20, unledgered=18), tour(2), tour(0)])
    def test_it_is_rejected_where_too_few_are_available(self, start: Seats) -> None:
        ledger = Ledger(start)

        decision = ledger.take(first := created("BK-1", 3))

        assert astuple(decision)[:3] == (
            Outcome.REJECTED,
            start,
            start,
        )
        assert ledger.bookings == {
            "BK-1": Booking("BK-1", TOUR, 3, State.REJECTED, None, first.event_id, "", 3)
        }

    @pytest.mark.parametrize("unledgered", [0, 10])
    @pytest.mark.parametrize(("seats", "left"), [(3, 0), (2, 0), (5, 2)])
    def test_with_a_cancellation_that_came_first_it_takes_what_that_leaves(
        self, unledgered: int, seats: int, left: int
    ) -> None:
        ledger = Ledger(tour(20, unledgered=unledgered)).take_all([cancelled("BK-1", 3)])

        decision = ledger.take(created("BK-1", seats))

        assert decision.outcome == (Outcome.RESERVED if left else Outcome.RELEASED)
        assert ledger.tour == tour(20, left, unledgered)
        assert ledger.held == {"BK-1": left}

    def test_what_a_named_step_leaves_is_reserved_whatever_was_given_back(self) -> None:
        ledger = Ledger(tour(20)).take_all([cancelled("BK-1", 1, seats_remaining=2)])

        assert ledger.take(created("BK-1", 5)).outcome == Outcome.RESERVED
        assert ledger.tour == tour(20, 2)

    def test_the_rest_is_rejected_where_the_seats_are_gone(self) -> None:
        ledger = Ledger(tour(4)).take_all([cancelled("BK-1", 1), created("BK-2", 3)])

        assert ledger.take(created("BK-1", 3)).outcome == Outcome.REJECTED
        assert ledger.tour == tour(4, 3)
        assert ledger.states["BK-1"] == State.REJECTED

    def test_a_change_that_came_first_says_how_many(self) -> None:
        ledger = Ledger(tour(20)).take_all([changed("BK-1", 5, revision=2)])
        assert ledger.tour == tour(20)

        assert ledger.take(created("BK-1", 3)).outcome == Outcome.RESERVED
        assert ledger.held == {"BK-1": 5}

    @pytest.mark.parametrize("at", [NOW, LATER])
    def test_it_changes_nothing_where_it_says_the_same_again(self, at: object) -> None:
        assert stays_as_it_is(reserved(), created("BK-1", 3, at=at)).outcome == Outcome.UNCHANGED  # type: ignore[arg-type]

    def test_it_is_parked_where_it_says_another_number(self) -> None:
        assert is_parked(stays_as_it_is(reserved(), created("BK-1", 4)), DIFFERS)

    def test_it_says_the_same_again_though_a_part_was_cancelled_since(self) -> None:
        ledger = reserved().take_all([cancelled("BK-1", 1, seats_remaining=2)])

        assert stays_as_it_is(ledger, created("BK-1", 3)).outcome == Outcome.UNCHANGED
        assert is_parked(stays_as_it_is(ledger, created("BK-1", 2)), DIFFERS)

    @pytest.mark.parametrize("seats", [3, 5])
    def test_a_rejected_booking_that_is_asked_for_again_finds_seats(self, seats: int) -> None:
        ledger = rejected(3)

        assert ledger.take(created("BK-1", seats, at=LATE)).outcome == Outcome.RESERVED
        assert ledger.tour == tour(20, seats)

    def test_a_rejected_booking_that_is_asked_for_again_finds_none(self) -> None:
        ledger = Ledger(tour(2)).take_all([created("BK-1", 3)])

        assert ledger.take(created("BK-1", 3)).outcome == Outcome.REJECTED
        assert ledger.states == {"BK-1": "rejected"}

    @pytest.mark.parametrize(
        "said", [cancelled("BK-1", 1, at=EARLY), changed("BK-1", 9, 1, at=EARLY)]
    )
    def test_what_was_said_before_it_is_asked_for_again_is_over(self, said: Event) -> None:
        ledger = Ledger(tour(2)).take_all([created("BK-1", 3), said])
        assert ledger.states == {"BK-1": "rejected"}

        ledger.take(created("BK-1", 2, at=LATE))

        assert ledger.held == {"BK-1": 2}

    def test_a_rejected_booking_gets_what_a_cancellation_has_left_of_it(self) -> None:
        ledger = rejected(3)
        assert ledger.take(cancelled("BK-1", 1, at=LATE)).outcome == Outcome.UNCHANGED

        ledger.take(created("BK-1", 3, at=EARLY))

        assert ledger.held == {"BK-1": 2}

    @pytest.mark.parametrize("seats", [3, 4])
    def test_after_the_cancellation_it_is_another_booking_and_parked(self, seats: int) -> None:
        decision = stays_as_it_is(released(), created("BK-1", seats, at=LATER))

        assert is_parked(decision, BOOKING_OVER)

    @pytest.mark.parametrize("at", [EARLY, LATE])
    def test_up_to_the_cancellation_it_is_the_old_one_again(self, at: object) -> None:
        decision = stays_as_it_is(released(), created("BK-1", 3, at=at))  # type: ignore[arg-type]
        assert decision.outcome == Outcome.UNCHANGED

        other = stays_as_it_is(released(), created("BK-1", 4, at=at))  # type: ignore[arg-type]
        assert is_parked(other, DIFFERS)

    def test_a_rejected_booking_that_was_cancelled_is_over_too(self) -> None:
        ledger = rejected().take_all([cancelled("BK-1", 3, at=LATE)])
        assert ledger.states == {"BK-1": "released"}
        assert ledger.tour == tour(20)

        assert is_parked(stays_as_it_is(ledger, created("BK-1", 3, at=LATER)), BOOKING_OVER)


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

        assert astuple(decision)[:3] == (
            Outcome.RESERVED,
            start,
            replace(start, unledgered=unledgered),
        )
        assert not ledger.bookings

    @pytest.mark.parametrize(
        "start", [tour(20, unledgered=11), tour(9), tour(5, unledgered=-4)], ids=["11", "9", "-4"]
    )
    def test_it_is_rejected_where_that_is_not_there(self, start: Seats) -> None:
        ledger = Ledger(start)

        assert astuple(ledger.take(created(None, 10)))[:3] == (Outcome.REJECTED, start, start)
        assert not ledger.bookings


class TestACancellation:
    @pytest.mark.parametrize("seats", [3, 5], ids=["as many", "more"])
    def test_it_releases_a_booking_that_holds_no_more(self, seats: int) -> None:
        ledger = reserved(3)

        decision = ledger.take(event := cancelled("BK-1", seats))

        assert astuple(decision)[:3] == (
            Outcome.RELEASED,
            tour(20, 3),
            tour(20),
        )
        booking = ledger.bookings["BK-1"]
        assert (booking.state, booking.seats_cancelled) == (State.RELEASED, seats)
        assert booking.cancelled_event_id == event.event_id

    def test_it_never_gives_back_more_than_it_says(self) -> None:
        """The case that sold a seat twice: three travel, one of them cancels."""
        ledger = reserved(3, capacity=10)

        assert ledger.take(cancelled("BK-1", 1)).outcome == Outcome.REDUCED
        assert ledger.tour == tour(10, 2)
        assert ledger.take(created("BK-2", 9)).outcome == Outcome.REJECTED

    @pytest.mark.parametrize(("left", "held"), [(2, 2), (0, 0), (3, 3), (7, 3)])
    def test_it_leaves_what_it_says_remains(self, left: int, held: int) -> None:
        ledger = reserved(3)

        decision = ledger.take(cancelled("BK-1", 1, seats_remaining=left))

        outcomes = {0: Outcome.RELEASED, 2: Outcome.REDUCED, 3: Outcome.UNCHANGED}
        assert decision.outcome == outcomes[held]
        assert ledger.held == {"BK-1": held}

    def test_again_of_the_same_moment_it_is_a_repeat(self) -> None:
        ledger = reserved(3).take_all([first := cancelled("BK-1", 1, at=EARLY)])

        assert stays_as_it_is(ledger, repeated(first)).outcome == Outcome.UNCHANGED
        assert ledger.held == {"BK-1": 2}

    @pytest.mark.parametrize("optional", [{}, {"revision": 4}])
    def test_again_of_another_moment_it_is_ambiguous(self, optional: dict[str, int]) -> None:
        ledger = reserved(3).take_all([first := cancelled("BK-1", 1, at=EARLY, **optional)])

        assert is_parked(stays_as_it_is(ledger, repeated(first, LATE)), AMBIGUOUS)

    def test_of_the_same_moment_with_another_payload_it_is_ambiguous(self) -> None:
        """As when a producer has corrected the address, and publishes it anew."""
        ledger = reserved(3).take_all([cancelled("BK-1", 1, user_email="ann@example")])

        corrected = cancelled("BK-1", 1, user_email="ann@example.com")
        assert is_parked(stays_as_it_is(ledger, corrected), AMBIGUOUS)

    def test_another_number_of_seats_is_another_step(self) -> None:
        ledger = reserved(3).take_all([cancelled("BK-1", 1, at=EARLY)])

        assert ledger.take(cancelled("BK-1", 2, at=LATE)).outcome == Outcome.RELEASED

    def test_another_revision_is_another_step(self) -> None:
        ledger = reserved(3).take_all([cancelled("BK-1", 1, revision=1)])

        assert ledger.take(cancelled("BK-1", 1, revision=2)).outcome == Outcome.REDUCED
        assert ledger.held == {"BK-1": 1}

    def test_a_named_step_again_is_a_repeat_whenever_it_comes(self) -> None:
        ledger = reserved(3).take_all([first := cancelled("BK-1", 1, seats_remaining=2)])

        assert ledger.take(repeated(first, LATE)).outcome == Outcome.UNCHANGED
        assert ledger.held == {"BK-1": 2}

    @pytest.mark.parametrize("seats", [3, 1, 4])
    def test_it_has_no_seats_to_give_of_a_booking_that_is_over(self, seats: int) -> None:
        ledger = released(3)

        assert ledger.take(cancelled("BK-1", seats, at=LATER)).outcome == Outcome.UNCHANGED
        assert ledger.tour == tour(20)

    def test_it_gives_back_seats_sold_outside_the_ledger(self) -> None:
        """The lesson's own test: from 10 to 12."""
        ledger = Ledger(tour(20, unledgered=10))
        assert ledger.tour.available == 10

        decision = ledger.take(event := cancelled("BK-1", 2))

        assert decision.outcome == Outcome.CANCELLED
        assert ledger.tour == tour(20, unledgered=8)
        assert ledger.tour.available == 12
        booking = ledger.bookings["BK-1"]
        assert astuple(booking)[:7] == ("BK-1", TOUR, 2, State.CANCELLED, 2, "", event.event_id)

    def test_it_waits_below_zero_for_its_creation(self) -> None:
        ledger = Ledger(tour(20)).take_all([cancelled("BK-1", 2)])

        assert ledger.tour == tour(20, unledgered=-2)
        assert ledger.tour.available == 20

    def test_each_step_of_an_unknown_booking_gives_back_once(self) -> None:
        one = cancelled("BK-1", 1, seats_remaining=2)
        other = cancelled("BK-1", 1, seats_remaining=1)
        ledger = Ledger(tour(20, unledgered=10))

        outcomes = [ledger.take(each).outcome for each in (one, other, repeated(one, LATE))]

        assert outcomes == [Outcome.CANCELLED, Outcome.CANCELLED, Outcome.UNCHANGED]
        assert ledger.tour == tour(20, unledgered=8)

    def test_of_an_unknown_booking_it_is_ambiguous_too(self) -> None:
        ledger = Ledger(tour(20)).take_all([first := cancelled("BK-1", 1)])

        assert is_parked(stays_as_it_is(ledger, repeated(first, LATE)), AMBIGUOUS)

    def test_a_step_of_an_unknown_booking_can_not_release_two_numbers(self) -> None:
        ledger = Ledger(tour(20)).take_all([cancelled("BK-1", 1, seats_remaining=2)])

        decision = stays_as_it_is(ledger, cancelled("BK-1", 2, seats_remaining=2))

        assert is_parked(decision, DIFFERS)

    @pytest.mark.parametrize("named_first", [True, False])
    @pytest.mark.parametrize("created_first", [True, False])
    def test_of_one_moment_it_is_one_step_whether_named_or_not(
        self, named_first: bool, created_first: bool
    ) -> None:
        """As when a producer that has learnt to name its steps says one anew."""
        told = [cancelled("BK-1", 1, at=LATE), cancelled("BK-1", 1, at=LATE, seats_remaining=2)]
        told = told[::-1] if named_first else told
        events = [created("BK-1", 3), *told] if created_first else [*told, created("BK-1", 3)]

        ledger = Ledger(tour(20)).take_all(events)

        assert ledger.tour == tour(20, 2)

    @pytest.mark.parametrize("before", [[], [cancelled("BK-1", 4)], [changed("BK-1", 4, 1)]])
    def test_more_than_the_tour_has_is_implausible(self, before: list[Event]) -> None:
        ledger = Ledger(tour(5)).take_all(before)

        assert is_parked(stays_as_it_is(ledger, cancelled("BK-1", 6)), IMPLAUSIBLE)

    def test_it_reduces_what_is_overbooked_before_it_frees_a_seat(self) -> None:
        bookings = [Booking(f"BK-{seats}", TOUR, seats, State.RESERVED) for seats in (2, 3)]
        ledger = Ledger(tour(2, reserved=5), bookings=tuple(bookings))

        numbers = [ledger.take(cancelled(f"BK-{n}", n)).after for n in (2, 3)]

        assert [each and each.available for each in numbers] == [0, 2]


class TestAChange:
    @pytest.mark.parametrize(
        ("seats", "outcome"), [(5, "changed"), (2, "changed"), (3, "unchanged")]
    )
    def test_it_gives_another_number_of_seats(self, seats: int, outcome: str) -> None:
        ledger = reserved(3)

        assert ledger.take(changed("BK-1", seats, revision=1)).outcome == outcome
        assert ledger.held == {"BK-1": seats}

    def test_where_the_seats_are_not_there_nothing_changes(self) -> None:
        ledger = reserved(3, capacity=4)

        decision = stays_as_it_is(ledger, change := changed("BK-1", 5, revision=2))
        assert decision.outcome == Outcome.CHANGE_REJECTED

        ledger.tours[TOUR] = replace(ledger.tour, capacity=5)
        assert ledger.take(repeated(change)).outcome == Outcome.CHANGED

    def test_an_older_revision_has_no_effect(self) -> None:
        ledger = reserved(3).take_all([changed("BK-1", 5, revision=2)])

        assert ledger.take(changed("BK-1", 4, revision=1, at=LATE)).outcome == Outcome.UNCHANGED
        assert ledger.held == {"BK-1": 5}

    def test_a_revision_says_one_thing(self) -> None:
        ledger = reserved(3).take_all([changed("BK-1", 5, revision=2)])

        assert stays_as_it_is(ledger, changed("BK-1", 5, revision=2)).outcome == Outcome.UNCHANGED
        assert is_parked(stays_as_it_is(ledger, changed("BK-1", 4, revision=2)), DIFFERS)

    @pytest.mark.parametrize("optional", [{"revision": 3}, {}])
    def test_late_it_brings_no_seats_back_that_were_given_up_since(
        self, optional: dict[str, int]
    ) -> None:
        given_up = cancelled("BK-1", 1, seats_remaining=2, at=LATE, **optional)
        ledger = reserved(3).take_all([given_up])

        assert ledger.take(changed("BK-1", 5, revision=2, at=EARLY)).outcome == Outcome.UNCHANGED
        assert ledger.held == {"BK-1": 2}

    @pytest.mark.parametrize("optional", [{"revision": 1}, {}])
    def test_it_states_what_is_held_where_it_is_the_newest(self, optional: dict[str, int]) -> None:
        given_up = cancelled("BK-1", 1, seats_remaining=2, at=EARLY, **optional)
        ledger = reserved(3).take_all([given_up])

        assert ledger.take(changed("BK-1", 4, revision=2, at=LATE)).outcome == Outcome.CHANGED
        assert ledger.held == {"BK-1": 4}

    def test_a_rejected_booking_may_ask_for_fewer(self) -> None:
        ledger = Ledger(tour(2)).take_all([created("BK-1", 3)])

        assert ledger.take(changed("BK-1", 2, revision=1)).outcome == Outcome.CHANGED
        assert ledger.tour == tour(2, 2)

    @pytest.mark.parametrize("seats_remaining", [None, 0])
    def test_a_whole_cancellation_is_final(self, seats_remaining: int | None) -> None:
        over = cancelled("BK-1", 3, seats_remaining=seats_remaining, at=LATE)
        ledger = reserved(3).take_all([over])

        decision = stays_as_it_is(ledger, changed("BK-1", 5, revision=9, at=LATER))

        assert is_parked(decision, BOOKING_OVER)

    def test_before_a_whole_cancellation_it_comes_too_late(self) -> None:
        ledger = reserved(3).take_all([cancelled("BK-1", 3, seats_remaining=0, at=LATE)])

        assert ledger.take(changed("BK-1", 5, revision=1, at=EARLY)).outcome == Outcome.UNCHANGED
        assert ledger.tour == tour(20)

    def test_a_booking_that_is_cancelled_before_its_creation_is_over_too(self) -> None:
        ledger = Ledger(tour(20)).take_all([cancelled("BK-1", 3, seats_remaining=0, at=LATE)])

        decision = stays_as_it_is(ledger, changed("BK-1", 5, revision=1, at=LATER))

        assert is_parked(decision, BOOKING_OVER)


class TestRowsOfAnOlderVersion:
    def test_a_creation_says_the_same_again_or_differs(self) -> None:
        ledger = Ledger(tour(20, reserved=3), bookings=(known(State.RESERVED),))

        assert stays_as_it_is(ledger, created("BK-1", 3)).outcome == Outcome.UNCHANGED
        assert is_parked(stays_as_it_is(ledger, created("BK-1", 4)), DIFFERS)

    def test_a_part_can_be_cancelled(self) -> None:
        ledger = Ledger(tour(20, reserved=3), bookings=(known(State.RESERVED),))

        ledger.take_all([cancelled("BK-1", 1)])

        assert ledger.held == {"BK-1": 2}
        assert stays_as_it_is(ledger, created("BK-1", 3)).outcome == Outcome.UNCHANGED

    @pytest.mark.parametrize("make", [created, lambda booking, seats: changed(booking, seats, 1)])
    def test_when_it_was_cancelled_is_not_known_so_that_a_person_decides(
        self, make: Callable[..., Event]
    ) -> None:
        ledger = Ledger(tour(20), bookings=(known(State.RELEASED),))

        assert is_parked(stays_as_it_is(ledger, make("BK-1", 3)), BOOKING_OVER)

    @pytest.mark.parametrize("seats", [3, 2])
    def test_a_released_one_has_no_seats_to_give(self, seats: int) -> None:
        ledger = Ledger(tour(20), bookings=(known(State.RELEASED),))

        assert stays_as_it_is(ledger, cancelled("BK-1", seats)).outcome == Outcome.UNCHANGED

    def test_a_part_cancelled_here_and_the_rest_there_is_over(self) -> None:
        ledger = reserved(3).take_all([cancelled("BK-1", 1)])
        ledger.bookings["BK-1"] = replace(ledger.bookings["BK-1"], state=State.RELEASED)
        ledger.tours[TOUR] = tour(20)

        assert is_parked(stays_as_it_is(ledger, created("BK-1", 3, at=LATER)), BOOKING_OVER)
        assert stays_as_it_is(ledger, cancelled("BK-1", 2)).outcome == Outcome.UNCHANGED


class TestAnEventThatFitsNothing:
    MAKERS = (created, cancelled, lambda booking, seats, **tour: changed(booking, seats, 1, **tour))

    @pytest.mark.parametrize("make", MAKERS)
    def test_an_unknown_tour_is_parked(self, make: Callable[..., Event]) -> None:
        ledger = Ledger(tour())

        [answer, *numbers] = astuple(ledger.take(make("BK-1", 1, tour=5)))

        assert answer == Refused(UNKNOWN_TOUR, "payload.tourId is 5: there is no such tour")
        assert numbers == [None, None, None]
        assert (ledger.tours, ledger.bookings) == ({TOUR: tour()}, {})

    @pytest.mark.parametrize("make", MAKERS)
    @pytest.mark.parametrize("state", State)
    def test_a_booking_that_named_another_tour_is_parked(
        self, make: Callable[..., Event], state: State
    ) -> None:
        other = tour(tour_id=2, reserved=3 if state == State.RESERVED else 0)
        booking = known(state, tour_id=2)
        booking = replace(booking, booked=None if state in AWAITED else 3)
        ledger = Ledger(tour(), other, bookings=(booking,))

        answer = stays_as_it_is(ledger, make("BK-1", 3)).outcome

        assert answer == Refused(OTHER_TOUR, "payload.tourId is 1: booking 'BK-1' was for tour 2")

    @pytest.mark.parametrize(
        "make",
        [lambda n: changed("BK-1", 2, n), lambda n: cancelled("BK-1", 1, seats_remaining=n)],
    )
    def test_a_life_without_end_is_parked(self, make: Callable[[int], Event]) -> None:
        steps = [changed("BK-1", 3, revision=1000 + number) for number in range(MOST_STEPS)]
        ledger = reserved(3).take_all(steps)

        assert is_parked(stays_as_it_is(ledger, make(1)), IMPLAUSIBLE)

    def test_its_neighbours_are_decided(self) -> None:
        given = {TOUR: tour()}
        bookings: dict[str, Booking] = {}

        decisions, tours, _ = decide(
            given, bookings, [created("A", 1), created("B", 1, tour=5), created("C", 1)]
        )

        assert [each.outcome == Outcome.RESERVED for each in decisions] == [True, False, True]
        assert tours[TOUR].reserved == 2
        assert (given, bookings) == ({TOUR: tour()}, {})  # what it is given stays as it was
