"""The pictures of a tour's seats: what they show is what its numbers say."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.bookings import Seats
from catalog.pictures import SIZE, Moment, bar, parts, plot, words

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
NUMBERS = st.builds(
    Seats, st.just(1), st.just(1), st.integers(0, 40), st.integers(0, 60), st.integers(-9, 20)
)


def drawn(picture: str) -> list[tuple[str, int, int]]:
    """Return the parts of a bar: the kind, where it begins, how wide it is."""
    found = re.findall(r'class="seats-(\w+)" x="(\d+)" width="(\d+)"', picture)
    return [(kind, int(x), int(width)) for kind, x, width in found]


def corners(path: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"(-?\d+) (-?\d+)", path)]


class TestTheBar:
    @pytest.mark.parametrize(
        ("seats", "shown", "said"),
        [
            (
                (20, 10, 0),
                [("reserved", 0, 500), ("free", 500, 500)],
                "20 seats: 10 reserved, 10 free",
            ),
            (
                (20, 5, 5),
                [("reserved", 0, 250), ("outside", 250, 250), ("free", 500, 500)],
                "20 seats: 5 reserved, 5 sold outside the ledger, 10 free",
            ),
            (
                (20, 20, -4),
                [("reserved", 0, 1000), ("free", 1000, 0)],
                "20 seats: 20 reserved, 0 free",
            ),
            (
                (15, 20, 0),
                [("reserved", 0, 1000), ("free", 1000, 0), ("overbooked", 750, 250)],
                "15 seats: 20 reserved, 0 free, 5 sold beyond the capacity",
            ),
            ((0, 0, 0), [("free", 0, 0)], "0 seats: 0 free"),
        ],
    )
    def test_it_draws_and_says(
        self, seats: tuple[int, int, int], shown: list[tuple[str, int, int]], said: str
    ) -> None:
        of = Seats(1, 1, *seats)
        assert drawn(bar(of)) == shown
        assert words(of) == said
        assert f'role="img" aria-label="{said}"' in bar(of)

    @given(NUMBERS)
    def test_its_parts_add_up_and_stay_within_it(self, seats: Seats) -> None:
        counts = {part.kind: part.seats for part in parts(seats)}
        sold = counts.get("reserved", 0) + counts.get("outside", 0)
        assert sold + counts["free"] == seats.capacity + counts.get("overbooked", 0)
        for _, x, width in drawn(bar(seats)):
            assert 0 <= x <= x + width <= SIZE + 1  # each is rounded


class TestThePlot:
    @given(st.lists(st.tuples(st.integers(0, 10**6), NUMBERS), min_size=1, max_size=20))
    def test_it_stays_within_its_frame_and_ends_with_the_numbers_of_now(
        self, steps: list[tuple[int, Seats]]
    ) -> None:
        at, history = NOON, []
        for seconds, seats in steps:
            at += timedelta(seconds=seconds)
            history.append(Moment(at, seats))
        picture = plot(history, at + timedelta(hours=1))
        for path in (*(path for _, path in picture.areas), picture.capacity):
            assert all(0 <= x <= SIZE and 0 <= y <= SIZE for x, y in corners(path))
        line = corners(picture.capacity)
        assert [line[0][0], line[-1][0]] == [0, SIZE]
        assert all(left[0] <= right[0] for left, right in pairwise(line))
        top = picture.ticks[-1][0]
        last = history[-1].seats
        assert line[-1][1] == SIZE - round(SIZE * last.capacity / top)
        assert top >= max(max(each.seats.capacity, each.seats.sold) for each in history)
        assert len(picture.ticks) <= 5
        assert words(last) in picture.words

    def test_a_clock_that_was_set_back_breaks_nothing(self) -> None:
        history = [
            Moment(NOON, Seats(1, 1, 5, 1, 0)),
            Moment(NOON - timedelta(hours=1), Seats(1, 2, 5, 2, 0)),
        ]
        for until in (timedelta(hours=-2), timedelta(minutes=-30), timedelta(hours=1)):
            line = corners(plot(history, NOON + until).capacity)
            assert all(0 <= x <= SIZE for x, _ in line)
            assert line == sorted(line)

    @pytest.mark.parametrize(
        ("span", "labels"),
        [
            (timedelta(minutes=10), ["12:00:00", "12:05:00", "12:10:00"]),
            (timedelta(days=2), ["11-27 12:00", "11-28 12:00", "11-29 12:00"]),
            (timedelta(days=30), ["2026-11-27", "2026-12-12", "2026-12-27"]),
        ],
    )
    def test_its_times_are_as_exact_as_is_of_use(self, span: timedelta, labels: list[str]) -> None:
        assert plot([Moment(NOON, Seats(1, 1, 5, 1, 0))], NOON + span).times == labels

    def test_a_large_tour_has_round_numbers_at_its_side(self) -> None:
        ticks = plot([Moment(NOON, Seats(1, 1, 4321, 0, 0))], NOON).ticks
        assert [seats for seats, _ in ticks] == [0, 2000, 4000, 6000]
