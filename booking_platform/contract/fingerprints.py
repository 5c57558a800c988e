"""Fingerprints: events with equal content have equal ones, whatever the formatting."""

import hashlib
import json
from functools import cache
from typing import Any

import msgspec

from booking_platform.contract.numbers import by_value


def fingerprint(*parts: Any) -> str:
    """Return the fingerprint of plain values."""
    return hashlib.sha256(_encoder().encode(parts)).hexdigest()


def raw_fingerprint(body: bytes) -> str:
    """Return the fingerprint of bytes that are no valid event."""
    return hashlib.sha256(body).hexdigest()


def plain(text: msgspec.Raw) -> Any:
    """Return valid JSON as plain values, its numbers exact."""
    try:
        return _decoder().decode(text)
    except msgspec.ValidationError:  # an integer of thousands of digits
        return json.loads(bytes(text).decode(), parse_int=by_value, parse_float=by_value)


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=by_value)


@cache
def _encoder() -> msgspec.json.Encoder:
    return msgspec.json.Encoder(order="deterministic", decimal_format="number")
