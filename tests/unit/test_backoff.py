import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_platform.messaging.backoff import Backoff

seconds = st.floats(0, 1e6)


class TestAPause:
    @given(seconds, seconds, st.integers(1, 10**9))
    def test_it_is_never_longer_than_its_bounds(
        self, base: float, maximum: float, attempt: int
    ) -> None:
        pause = Backoff(base, maximum).pause(attempt)

        assert 0 <= pause <= maximum
        assert pause <= base * 2.0 ** min(attempt - 1, 1000)

    @pytest.mark.parametrize(
        ("attempt", "bound"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 5), (50, 5), (10**6, 5)]
    )
    def test_it_is_drawn_evenly_up_to_a_bound_that_doubles(
        self, attempt: int, bound: float
    ) -> None:
        pauses = sorted(Backoff(base=0.5, maximum=5).pause(attempt) for _ in range(1000))

        assert pauses[-1] <= bound
        for number in range(10):  # each tenth holds 100 of them; 50 is five deviations off
            tenth = [p for p in pauses if number / 10 <= p / bound < (number + 1) / 10]
            assert 50 < len(tenth) < 150

    def test_it_is_nothing_without_a_base(self) -> None:
        assert Backoff(base=0, maximum=5).pause(7) == 0
