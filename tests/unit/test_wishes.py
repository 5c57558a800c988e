"""What a cancellation asks to be refunded."""

from decimal import Decimal
from typing import Any

import pytest

from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.rules import INVALID, Refused
from payments.wishes import NOTHING, Wish, asked_for, step_of
from tests.unit.refunds import row


def cancelled(**fields: Any) -> BookingCancelled:
    if "amount" in fields and fields["amount"] is not None:
        fields["amount"] = Decimal(fields["amount"])
    return BookingCancelled(booking_id="BK-1", tour_id=1, seats_released=1, **fields)


class TestAskedFor:
    @pytest.mark.parametrize(
        ("fields", "wanted"),
        [
            ({}, NOTHING),
            ({"amount": "0"}, NOTHING),
            ({"payment_id": "pi_1", "amount": "0.0"}, NOTHING),
            ({"payment_id": "pi_1", "amount": "150"}, Wish("pi_1", Decimal("150.00"), "")),
            ({"payment_id": "pi_1", "amount": "1.5e2"}, Wish("pi_1", Decimal("150.00"), "")),
            ({"payment_id": "pi_1", "amount": "0.01"}, Wish("pi_1", Decimal("0.01"), "")),
            (
                {"payment_id": "pi_1", "amount": "1500", "currency": "JPY"},
                Wish("pi_1", Decimal("1500.00"), "jpy"),
            ),
            (
                {"payment_id": "pi_1", "amount": "999999999999", "currency": None},
                Wish("pi_1", Decimal("999999999999.00"), ""),
            ),
        ],
    )
    def test_it_is_read_exactly(self, fields: Any, wanted: Wish) -> None:
        assert asked_for(cancelled(**fields)) == wanted

    @pytest.mark.parametrize(
        ("fields", "detail"),
        [
            ({"payment_id": "pi_1"}, "payload.amount is missing"),
            ({"amount": "5"}, "payload.paymentId is missing"),
            ({"payment_id": "pi_1", "amount": "-5"}, "payload.amount is -5: it must not be negative"),
            ({"payment_id": "pi_1", "amount": "10.005"}, "no currency goes in steps below 0.01"),
            ({"payment_id": "pi_1", "amount": "10.000000000000000000000000000001"}, "steps below 0.01"),
            ({"payment_id": "pi_1", "amount": "1000000000000"}, "more than Stripe takes"),
            ({"payment_id": "pi_1", "amount": "1e300"}, "more than Stripe takes"),
            ({"payment_id": "pi_1", "amount": "0.5", "currency": "jpy"}, "JPY goes in steps of 1"),
            ({"payment_id": "pi_1", "amount": "5", "currency": "zzz"}, "Stripe has no such currency"),
        ],
    )  # fmt: skip
    def test_what_can_not_be_refunded_exactly_is_invalid(self, fields: Any, detail: str) -> None:
        refused = asked_for(cancelled(**fields))
        assert isinstance(refused, Refused)
        assert refused.reason is INVALID
        assert detail in refused.detail


class TestStep:
    def test_it_is_of_the_whole_booking_where_none_is_named(self) -> None:
        assert step_of(cancelled()) == (0, False, None)
        assert step_of(cancelled(seats_remaining=0)) == (0, True, None)
        assert step_of(cancelled(seats_remaining=2, revision=7)) == (2, True, 7)


class TestSameAsARefund:
    @pytest.mark.parametrize(
        ("amount", "currency", "same"),
        [
            ("150", "", True),
            ("150", "eur", True),
            ("150", "usd", False),
            ("151", "", False),
            ("151", "eur", False),
        ],
    )
    @pytest.mark.parametrize("asked", [Decimal("150.00"), None])  # none: by the version before
    def test_it_is_by_amount_and_currency(
        self, amount: str, currency: str, same: bool, asked: Decimal | None
    ) -> None:
        earlier = row(amount_asked=asked)
        assert Wish("pi_1", Decimal(amount), currency).is_that_of(earlier) is same

    def test_a_currency_that_is_not_known_yet_is_no_other(self) -> None:
        earlier = row(amount_asked=Decimal(150), amount_minor=None, currency="")
        assert Wish("pi_1", Decimal(150), "").is_that_of(earlier)
        assert not Wish("pi_1", Decimal(150), "eur").is_that_of(earlier)
