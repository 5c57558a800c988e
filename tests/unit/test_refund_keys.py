"""Idempotency keys: one for each payment and step of a booking, and issues of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.keys import booking_key, booking_of, idempotency_key, next_issue, without_issue

IDS = st.text(min_size=1, max_size=255)


class TestIdempotencyKey:
    def test_it_derives_from_booking_payment_and_step_alone(self) -> None:
        assert idempotency_key("BK-1", "pi_1") == idempotency_key("BK-1", "pi_1", 0)
        keys = {
            idempotency_key(booking, payment, step)
            for booking in ("BK-1", "BK-2")
            for payment in ("pi_1", "pi_2")
            for step in (0, 1)
        }
        assert len(keys) == 8

    @given(booking=IDS, payment=IDS, step=st.integers(0, 10**6))
    def test_it_is_a_hash_and_fits_stripe(self, booking: str, payment: str, step: int) -> None:
        key = idempotency_key(booking, payment, step)
        assert re.fullmatch("booking-platform:refund:[0-9a-f]{64}:[0-9a-f]{32}", key)
        assert len(f"{key}:999999999") <= 255

    def test_the_version_before_takes_it_for_the_bookings(self) -> None:
        assert idempotency_key("BK-1", "pi_1").startswith(f"{booking_key('BK-1')}:")


class TestIssues:
    @pytest.mark.parametrize("first", [idempotency_key("BK-1", "pi_1"), booking_key("BK-1")])
    def test_they_follow_each_other(self, first: str) -> None:
        key = first
        for issue in range(2, 12):
            key = next_issue(key)
            assert key == f"{first}:{issue}"
            assert without_issue(key) == first
            assert booking_of(key) == booking_key("BK-1")

    def test_a_hash_of_digits_is_no_issue(self) -> None:
        key = f"{booking_key('BK-1')}:{'1' * 32}"
        assert next_issue(key) == f"{key}:2"

    @pytest.mark.parametrize(
        "key", ["", "key", "booking-platform:refund:", f"{booking_key('B')}:x", f"{booking_key('B')}:02"]
    )  # fmt: skip
    def test_what_is_not_ours_has_none(self, key: str) -> None:
        assert without_issue(key) == booking_of(key) == ""
        with pytest.raises(ValueError, match="no key of a refund"):
            next_issue(key)
