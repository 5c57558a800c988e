"""Numbers as they are written: exact, whatever their formatting, and without end in none of our fields."""

import decimal
import re
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw, Struct

from booking_platform.contract.payloads import Field, Payload, decimals, wanted
from booking_platform.contract.refusals import InvalidEvent, fields_of, written

MAX_LENGTH = 100  # characters; no amount of money needs more
MAX_EXPONENT = 30  # digits after the decimal point, and one more before it

_EXACT = decimal.Context(prec=2 * MAX_LENGTH)
_DECIMAL = re.compile(rf"(?=.{{1,{MAX_LENGTH}}}$)[+-]?[0-9]+(\.[0-9]+)?")


def by_value(text: str) -> int | Decimal | Raw:
    """Return a JSON number exactly, so that 150, 150.0 and 1.5e2 become one value.

    A number with more digits than any amount stays its text: to write it out could take hours.
    """
    try:
        number = Decimal(text if len(text) <= MAX_LENGTH else "Infinity")
    except decimal.InvalidOperation:  # an exponent of twenty digits
        number = Decimal("Infinity")
    if not _bounded(number):
        return Raw(text.encode())
    return int(number) if number == number.to_integral_value() else number.normalize(_EXACT)


def check(payload: Payload, values: dict[str, Any], text: Raw) -> None:
    """Refuse decimals that msgspec reads and nobody should send: odd strings, digits without end.

    ``values`` are the plain values of the payload, ``text`` is its JSON.
    """
    for field in decimals(type(payload)):
        number, given = getattr(payload, field.attribute), values.get(field.name)
        if number is None:
            continue
        if isinstance(given, str) and not _DECIMAL.fullmatch(given):
            expected = wanted(type(payload), field.name) or "a JSON number"
            raise InvalidEvent(f"{field.path} is {written(text, field.name)}: expected {expected}")
        if not _bounded(number):
            raise InvalidEvent(_too_many_digits(field, text))


def endless(read_as: type[Struct], text: Raw) -> str:
    """Return which decimal of a payload has an exponent that Python can't work with, in words."""
    fields, texts = decimals(read_as), fields_of(text)
    for field in fields:
        try:
            msgspec.json.decode(texts.get(field.name, b"0"), type=Decimal)
        except decimal.InvalidOperation:
            return _too_many_digits(field, text)
    return _too_many_digits(fields[0], text)  # an earlier one of two with the same name


def _bounded(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return (
        isinstance(exponent, int)
        and exponent >= -MAX_EXPONENT
        and number.adjusted() <= MAX_EXPONENT
    )


def _too_many_digits(field: Field, text: Raw) -> str:
    return f"{field.path} is {written(text, field.name)}: more digits than any amount"
