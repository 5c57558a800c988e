"""Which announcement of a tour's numbers is the newest, without a database."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from booking_platform.messaging.rules import Applied, Refused
from catalog.availability import Numbers, Outcome, judge, newest

VERSIONS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1)


def numbers(tour: int, version: int, free: int | None = None) -> Numbers:
    """Return numbers that the version alone decides, unless others are given."""
    return Numbers(tour, version, capacity=20, available=version if free is None else free)


@given(VERSIONS, st.randoms())
def test_the_greatest_version_of_each_tour_is_kept_in_any_order(
    said: list[tuple[int, int]], chance: object
) -> None:
    expected = [numbers(tour, max(v for t, v in said if t == tour)) for tour in sorted(dict(said))]
    shuffled = list(chain(said, said[:3]))
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random

    assert newest(numbers(*each) for each in shuffled) == expected


@given(VERSIONS, st.integers(0, 20))
def test_groups_of_any_size_come_to_the_same(said: list[tuple[int, int]], cut: int) -> None:
    all_of_it = [numbers(*each) for each in said]

    in_two = newest(chain(newest(all_of_it[:cut]), newest(all_of_it[cut:])))

    assert in_two == newest(all_of_it)


class TestJudging:
    def test_news_is_shown(self) -> None:
        assert judge(numbers(1, 7), numbers(1, 7), is_news=True) == Applied(Outcome.SHOWN)

    def test_the_same_again_is_known(self) -> None:
        assert judge(numbers(1, 7), numbers(1, 7), is_news=False) == Applied(Outcome.KNOWN)

    def test_what_is_older_is_outdated_whatever_it_says(self) -> None:
        assert judge(numbers(1, 6, 3), numbers(1, 7), is_news=False) == Applied(Outcome.OUTDATED)

    def test_other_numbers_of_the_same_version_are_put_up_for_a_person(self) -> None:
        refused = judge(numbers(1, 7, 3), numbers(1, 7, 4), is_news=True)

        assert isinstance(refused, Refused)
        assert refused.reason.code == "differs"
        assert refused.detail == (
            "payload.available is 3 of 20: version 7 of tour 1 is known with 4 of 20"
        )
