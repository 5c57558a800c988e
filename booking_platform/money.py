"""Money as Stripe counts it: integers in a currency's minor unit.

Stripe's minor units are not ISO 4217's. Sources: https://docs.stripe.com/currencies, sections
"Presentment currencies", "Zero-decimal currencies", "Three-decimal currencies", "Special cases".
"""

from decimal import Decimal


def _currencies(codes: str) -> frozenset[str]:
    return frozenset(codes.split())


# Amounts are sent as they are.
ZERO_DECIMAL = _currencies("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf")

# No fractions either, but for compatibility sent × 100.
WHOLE_SENT_AS_HUNDREDTHS = _currencies("isk ugx")

# Sent × 1000; the payment partners take only two decimals, so the last digit must be 0.
THREE_DECIMAL = _currencies("bhd jod kwd omr tnd")

TWO_DECIMAL = _currencies(
    """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf
    chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl hrk htg
    huf idr ils inr jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mro mur mvr
    mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek
    sgd shp sle sll sos srd std szl thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd yer zar zmw
    """
)

CURRENCIES = ZERO_DECIMAL | WHOLE_SENT_AS_HUNDREDTHS | THREE_DECIMAL | TWO_DECIMAL

LARGEST = 999_999_999_999  # minor units: twelve digits, the most that Stripe takes in any currency


class UnusableAmount(ValueError):
    """The amount can't be sent to Stripe exactly; the message names field and value."""


def minor_units(amount: Decimal, currency: str) -> int:
    """Return an amount of major units in minor units, exactly.

    Raises:
        UnusableAmount: Stripe has no such currency, or the amount is not a positive number of its
            smallest units. It is never rounded: half a cent is a producer's error to look at.
    """
    currency = currency.lower()
    if currency not in CURRENCIES:
        raise UnusableAmount(f"payload.currency is {currency!r}: Stripe has no such currency")
    if not amount.is_finite() or amount <= 0:
        raise UnusableAmount(f"payload.amount is {amount}: it must be above 0")
    # In integers: Decimal's own arithmetic rounds to 28 digits.
    numerator, denominator = amount.as_integer_ratio()
    step = _smallest_step(currency)
    steps, rest = divmod(numerator * 10 ** _exponent(currency), denominator * step)
    if steps * step > LARGEST:
        raise UnusableAmount(f"payload.amount is {amount}: more than Stripe takes")
    if rest:
        smallest = major_units(step, currency)
        raise UnusableAmount(
            f"payload.amount is {amount}: {currency.upper()} goes in steps of {smallest}"
        )
    return int(steps * step)


def hundredths(amount: Decimal) -> Decimal:
    """Return an amount of which the currency is not known yet, exactly, with two decimals.

    No currency of Stripe goes in finer steps.

    Raises:
        UnusableAmount: the amount is not a positive number of hundredths, or more than Stripe takes in
            any currency. It is never rounded.
    """
    if not amount.is_finite() or amount <= 0:
        raise UnusableAmount(f"payload.amount is {amount}: it must be above 0")
    numerator, denominator = amount.as_integer_ratio()
    exact, rest = divmod(numerator * 100, denominator)
    if exact > LARGEST * 100:
        raise UnusableAmount(f"payload.amount is {amount}: more than Stripe takes")
    if rest:
        raise UnusableAmount(f"payload.amount is {amount}: no currency goes in steps below 0.01")
    return Decimal(exact).scaleb(-2)


def major_units(units: int, currency: str) -> str:
    """Return an amount as people write it, with the decimals of its currency."""
    exponent = _exponent(currency)
    amount = Decimal(units).scaleb(-exponent)
    whole = currency in WHOLE_SENT_AS_HUNDREDTHS and units % 100 == 0
    return f"{amount:.{0 if whole else exponent}f}"


def format_money(units: int, currency: str) -> str:
    """Return an amount with its currency, for staff; the currency need not be known."""
    if currency not in CURRENCIES:
        return f"{units} minor units of {currency.upper() or 'no currency'}"
    return f"{major_units(units, currency)} {currency.upper()}"


def _exponent(currency: str) -> int:
    if currency in ZERO_DECIMAL:
        return 0
    return 3 if currency in THREE_DECIMAL else 2


def _smallest_step(currency: str) -> int:
    if currency in WHOLE_SENT_AS_HUNDREDTHS:
        return 100
    return 10 if currency in THREE_DECIMAL else 1
