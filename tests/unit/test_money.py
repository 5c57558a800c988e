from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_platform.money import (
    CURRENCIES,
    LARGEST,
    UnusableAmount,
    hundredths,
    major_units,
    minor_units,
)


class TestMinorUnits:
    @pytest.mark.parametrize(
        ("amount", "currency", "units"),
        [
            ("150.0", "eur", 15_000),
            ("150", "EUR", 15_000),
            ("0.01", "eur", 1),
            ("1E+2", "eur", 10_000),
            ("1.50E+2", "eur", 15_000),
            ("10.10", "usd", 1_010),
            ("19.99", "eur", 1_999),  # × 100 on a float is 1998.9999999999998
            ("1500", "jpy", 1_500),
            ("1500.00", "jpy", 1_500),
            ("1500", "krw", 1_500),
            ("1500", "isk", 150_000),
            ("1500", "ugx", 150_000),
            ("1.500", "kwd", 1_500),
            ("1.23", "bhd", 1_230),
            ("10.45", "huf", 1_045),  # zero-decimal for payouts only
            ("10.45", "twd", 1_045),
            ("9999999999.99", "eur", LARGEST),
        ],
    )
    def test_it_counts_as_stripe_does(self, amount: str, currency: str, units: int) -> None:
        assert minor_units(Decimal(amount), currency) == units

    def test_it_takes_sums_of_decimals_as_they_are(self) -> None:
        assert minor_units(Decimal("0.1") + Decimal("0.2"), "eur") == 30

    @pytest.mark.parametrize(
        ("amount", "currency", "named"),
        [
            ("10.005", "eur", "payload.amount is 10.005: EUR goes in steps of 0.01"),
            ("0.30000000000000004", "eur", "payload.amount is 0.30000000000000004"),
            ("10.00000000000000000000000000000001", "eur", "steps of 0.01"),  # past 28 digits
            ("1500.5", "jpy", "JPY goes in steps of 1"),
            ("1500.5", "isk", "ISK goes in steps of 1"),
            ("5.124", "kwd", "KWD goes in steps of 0.010"),
            ("0", "eur", "payload.amount is 0: it must be above 0"),
            ("-5", "eur", "payload.amount is -5"),
            ("NaN", "eur", "payload.amount is NaN"),
            ("Infinity", "eur", "payload.amount is Infinity"),
            ("1E-30", "eur", "steps of 0.01"),
            ("1E+30", "eur", "more than Stripe takes"),
            ("10000000000", "eur", "more than Stripe takes"),
            ("1", "xxx", "payload.currency is 'xxx': Stripe has no such currency"),
            ("1", "btc", "payload.currency is 'btc'"),
        ],
    )
    def test_it_refuses_what_does_not_fit_and_names_it(
        self, amount: str, currency: str, named: str
    ) -> None:
        with pytest.raises(UnusableAmount) as refused:
            minor_units(Decimal(amount), currency)
        assert named in str(refused.value)

    @given(
        steps=st.integers(1, 10**9),
        currency=st.sampled_from(sorted(CURRENCIES)),
    )
    def test_what_it_takes_is_written_back_the_same(self, steps: int, currency: str) -> None:
        units = 100 * steps  # fits every currency's smallest step
        assert minor_units(Decimal(major_units(units, currency)), currency) == units


class TestHundredths:
    @given(amount=st.decimals("0.01", "999999999999", places=2))
    def test_it_is_the_amount_itself(self, amount: Decimal) -> None:
        assert hundredths(amount) == amount
        assert hundredths(amount).as_tuple().exponent == -2

    @given(
        amount=st.decimals("0.001", 10**12, places=3), currency=st.sampled_from(sorted(CURRENCIES))
    )
    def test_what_fits_a_currency_fits_here(self, amount: Decimal, currency: str) -> None:
        try:
            minor_units(amount, currency)
        except UnusableAmount:
            return
        assert hundredths(amount) == amount

    @pytest.mark.parametrize(
        "amount", ["0", "-1", "0.001", "10.005", "1000000000000", "1e300", "NaN", "Infinity"]
    )
    def test_no_other_passes(self, amount: str) -> None:
        with pytest.raises(UnusableAmount, match=r"payload\.amount is"):
            hundredths(Decimal(amount))
