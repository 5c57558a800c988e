"""Whole lives of bookings, held against simpler models: any order, any repetition."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain, permutations, product
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from booking_platform.messaging.rules import AMBIGUOUS, Refused
from catalog.bookings import Outcome, Seats, State
from catalog.seats import decide
from tests.unit.lives import (
    EARLY,
    LATE,
    LATER,
    NOW,
    PLENTY,
    TOUR,
    Ledger,
    cancelled,
    changed,
    created,
    repeated,
    tour,
)


class Told(NamedTuple):
    """One booking's life as its booking system lived it, with what it came to."""

    name: str
    events: tuple[Event, ...]  # in the order in which they happened
    created: bool

    def held(self) -> int:
        """Return the seats at the end: what each event says, one after the other."""
        seats = 0
        for each in self.events:
            payload = each.payload
            match payload:
                case BookingCreated():
                    seats = payload.seats_booked
                case BookingChanged():
                    seats = payload.seats
                case BookingCancelled(seats_remaining=None):
                    seats = max(0, seats - payload.seats_released)
                case BookingCancelled():
                    seats = min(seats, payload.seats_remaining or 0)
        return seats

    def given_back(self) -> int:
        """Return what its cancellations give back of seats that the ledger does not know."""
        return sum(
            each.payload.seats_released
            for each in self.events
            if isinstance(each.payload, BookingCancelled)
        )


@st.composite
def lives(draw: st.DrawFn, name: str) -> Told:
    """Draw a life: a creation, then cancellations of parts and changes, and perhaps the end of it."""
    seats = draw(st.integers(1, 8))
    events = [created(name, seats)]
    at, unnamed, seems_over = NOW, False, False
    least = seats
    steps = draw(st.lists(st.sampled_from(["part", "change", "unnamed"]), max_size=4))
    left: set[int] = set()
    for revision, step in enumerate(steps, 1):
        at += timedelta(minutes=1)
        fewer = draw(st.integers(1, seats))
        if step == "change" and not seems_over:
            seats = draw(st.integers(1, 8))
            least = min(least, seats)
            events.append(changed(name, seats, revision, at=at))
        elif step == "part" and seats - fewer not in left:
            told = {"revision": revision} if draw(st.booleans()) else {}
            seats -= fewer
            least = min(least, seats)
            left.add(seats)
            events.append(cancelled(name, fewer, seats_remaining=seats, at=at, **told))
        elif step == "unnamed" and not unnamed:
            # Where a change before it comes late, a change after it is parked meanwhile.
            unnamed, seems_over = True, fewer >= least
            seats -= fewer
            events.append(cancelled(name, fewer, at=at))
        if not seats:
            break
    if draw(st.booleans()) and not any(isinstance(e.payload, BookingChanged) for e in events):
        return Told(name, tuple(events[1:]), created=False)
    return Told(name, tuple(events), created=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Told], list[Event]]:
    """Draw some lives, and their events in some order, repeated under other ids."""
    told = [draw(lives(f"BK-{number}")) for number in range(draw(st.integers(0, 4)))]
    events = list(chain.from_iterable(each.events for each in told))
    again = draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    return told, draw(st.permutations(events + [repeated(each) for each in again]))


def at_the_end(told: list[Told], unledgered: int) -> tuple[Seats, dict[str, int]]:
    """Return tour and bookings with no shortage, without a look at the order in which it came."""
    held = {each.name: each.held() if each.created else 0 for each in told if each.events}
    owed = sum(each.given_back() for each in told if not each.created)
    return tour(PLENTY, sum(held.values()), unledgered - owed), held


class TestWithNoShortage:
    @given(histories(), st.integers(0, 20))
    @settings(deadline=None, max_examples=500)
    def test_order_and_repetition_do_not_matter(
        self, history: tuple[list[Told], list[Event]], unledgered: int
    ) -> None:
        told, events = history
        ledger = Ledger(tour(PLENTY, unledgered=unledgered))

        decisions = [ledger.take(each) for each in events]

        assert not [each for each in decisions if isinstance(each.outcome, Refused)]
        assert (ledger.tour, ledger.held) == at_the_end(told, unledgered)

    @given(histories(), st.integers(0, 12))
    @settings(deadline=None)
    def test_a_group_is_decided_as_its_events_would_be_alone(
        self, history: tuple[list[Told], list[Event]], capacity: int
    ) -> None:
        _, events = history
        alone = Ledger(tour(capacity, unledgered=2))

        decisions, tours, bookings = decide({TOUR: alone.tour}, {}, events)

        assert decisions == [alone.take(each) for each in events]
        assert (tours, bookings) == (alone.tours, alone.bookings)

    def test_every_order_of_one_life_ends_the_same(self) -> None:
        for told in small_lives():
            expected = at_the_end([told], 2)
            events = [*told.events, *map(repeated, told.events[:2])]
            for order in permutations(events):
                ledger = Ledger(tour(PLENTY, unledgered=2)).take_all(order)
                assert (ledger.tour, ledger.held) == expected, [e.payload for e in order]


def small_lives() -> Iterator[Told]:
    """Yield every life of three seats and up to three steps of few kinds."""
    kinds = ("part", "all", "unnamed", "change", "raise", "none")
    for first, second, created_too in product(kinds, kinds, (True, False)):
        seats, events = 3, [created("A", 3)] if created_too else []
        for number, (kind, at) in enumerate(((first, EARLY), (second, LATE)), 1):
            if not seats or kind == "none":
                continue
            if kind in ("change", "raise"):
                seats = 2 if kind == "change" else 5
                events.append(changed("A", seats, number, at=at))
                continue
            fewer = seats if kind == "all" else 1
            seats -= fewer
            named = {} if kind == "unnamed" else {"seats_remaining": seats}
            events.append(cancelled("A", fewer, at=at, **named))
        ambiguous = (first, second) == ("unnamed", "unnamed")
        changes = any(isinstance(each.payload, BookingChanged) for each in events)
        if not ambiguous and (created_too or not changes):
            yield Told("A", tuple(events), created_too)


def sold(seats: Seats) -> int:
    return seats.reserved + max(0, seats.unledgered)


def check_shortage(ledger: Ledger, each: Event) -> None:
    """Take an event, and check that seats are given to whom they are there for, and no one else."""
    decision = ledger.take(each)
    answer, before, after = decision.outcome, decision.before, decision.after
    if isinstance(answer, Refused):
        return
    assert before is not None
    assert after is not None
    if answer in (Outcome.CHANGE_REJECTED, Outcome.UNCHANGED):
        assert after == before
    assert after.reserved <= after.capacity
    # Only what a cancellation has given back too early may come on top of what is sold.
    netted = isinstance(each.payload, BookingCreated) and after.unledgered > before.unledgered
    assert sold(after) <= max(sold(before), after.capacity) or netted


class TestWithAShortage:
    @given(histories(), st.integers(0, 12), st.integers(-6, 12))
    @settings(deadline=None)
    def test_no_seat_is_given_twice(
        self, history: tuple[list[Told], list[Event]], capacity: int, unledgered: int
    ) -> None:
        ledger = Ledger(tour(capacity, unledgered=unledgered))

        for each in history[1]:
            check_shortage(ledger, each)

    @pytest.mark.parametrize("capacity", range(7))
    def test_every_order_of_a_few_bookings_gives_no_seat_twice(self, capacity: int) -> None:
        events = [created("A", 2), created("B", 3), cancelled("A", 1, seats_remaining=1),
                  changed("B", 4, 1), cancelled("B", 3, at=LATER), created(None, 2)]  # fmt: skip
        for order in permutations(events):
            ledger = Ledger(tour(capacity, unledgered=1))
            for each in order:
                check_shortage(ledger, each)

    def test_the_order_decides_who_gets_the_last_seat(self) -> None:
        events = {name: created(name, 2) for name in "ABC"}
        for order in permutations("ABC"):
            ledger = Ledger(tour(5)).take_all([events[name] for name in order])

            assert [ledger.states[name] for name in order] == ["reserved", "reserved", "rejected"]
            assert ledger.tour.available == 1

    def test_a_booking_takes_no_more_than_the_newest_word_about_it(self) -> None:
        """A rejected booking that is asked for again, whatever was said of it in between."""
        rounds = Random(7)
        for _ in range(300):
            steps = [cancelled("A", 1, seats_remaining=2, at=LATE), changed("A", 3, 1, at=EARLY)]
            events = [created("A", 4), *rounds.sample(steps, 2), created("A", 4, at=LATER)]
            ledger = Ledger(tour(rounds.randint(0, 5)))
            for each in events:
                check_shortage(ledger, each)
                capacity = max(ledger.tour.capacity, rounds.randint(0, 6))
                ledger.tours[TOUR] = replace(ledger.tour, capacity=capacity)
            assert ledger.held["A"] <= 4


class TestWhatCanNotBeToldApart:
    @pytest.mark.parametrize("seats", [1, 2])
    def test_one_of_two_is_applied_and_the_other_parked_in_any_order(self, seats: int) -> None:
        first = cancelled("A", seats, at=EARLY)
        for order in permutations([created("A", 5), first, repeated(first, LATE)]):
            ledger = Ledger(tour(PLENTY))
            parked = [
                decision.outcome.reason
                for decision in map(ledger.take, order)
                if isinstance(decision.outcome, Refused)
            ]
            assert parked == [AMBIGUOUS]
            assert ledger.held == {"A": 5 - seats}
            assert ledger.states == {"A": State.RESERVED}
