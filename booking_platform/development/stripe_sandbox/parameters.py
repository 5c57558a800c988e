"""Parameters of a request: form-encoded, nested by brackets, checked before anything is done.

https://docs.stripe.com/api: form-encoded request bodies; ``metadata[key]=value`` is a nested value.
"""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from booking_platform.development.stripe_sandbox.errors import StripeError

Parameters = dict[str, Any]

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500  # docs.stripe.com/metadata


def parse(encoded: bytes) -> Parameters:
    """Decode a query or a body; a later value of the same name replaces the earlier one."""
    parameters: Parameters = {}
    try:
        pairs = parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise StripeError("Invalid request: parameters must be UTF-8.") from None
    for name, value in pairs:
        _place(parameters, name, value)
    return parameters


def _place(parameters: Parameters, name: str, value: str) -> None:
    match = NAME.fullmatch(name)
    if match is None:
        raise StripeError(f"Invalid request: the parameter name {name!r} can't be read.")
    *path, last = [match.group(1), *re.findall(r"\[([^\[\]]*)\]", match.group(2))]
    target = parameters
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise StripeError(f"Invalid request: {name!r} is given as a value and as a hash.")
    target[last or str(len(target))] = value  # list[]=a is list[0]=a


def only(parameters: Parameters, known: Collection[str]) -> None:
    """Refuse unknown names; also those that only the real Stripe knows, rather than ignore them.

    https://docs.stripe.com/error-codes#parameter-unknown
    """
    unknown = [name for name in parameters if name not in known]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        message = f"Received unknown parameter{plural}: {', '.join(unknown)}"
        raise StripeError(message, code="parameter_unknown", param=unknown[0])


def text(parameters: Parameters, name: str) -> str | None:
    """Return a string, or None if the request doesn't name it."""
    value = parameters.get(name)
    if value == "":
        raise StripeError(
            f"You passed an empty string for '{name}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{name}' cannot be unset. You should remove '{name}' from "
            "your request or supply a non-empty value.",
            code="parameter_invalid_empty",
            param=name,
        )
    if isinstance(value, dict):
        raise StripeError(f"Invalid string: {value}", param=name)
    return value


def integer(parameters: Parameters, name: str, *, largest: int | None = None) -> int | None:
    """Return an integer of 1 or more, or None if the request doesn't name it.

    https://docs.stripe.com/error-codes#parameter-invalid-integer
    """
    value = text(parameters, name)
    if value is None:
        return None
    number = _integer(value, name)
    if number < 1:
        raise _invalid_integer("This value must be greater than or equal to 1.", name)
    if largest is not None and number > largest:
        message = (
            f"This value must be less than or equal to {largest} (it currently is '{number}')."
        )
        raise _invalid_integer(message, name)
    return number


def expansions(parameters: Parameters) -> list[str]:
    """Return the properties to expand: https://docs.stripe.com/api/expanding_objects."""
    given = parameters.get("expand", {})
    if not isinstance(given, dict) or any(isinstance(path, dict) for path in given.values()):
        raise StripeError("Invalid array", param="expand")
    return list(given.values())


def created(parameters: Parameters) -> dict[str, int]:
    """Return the filter on creation times: seconds by comparison (gt, gte, lt, lte)."""
    given = parameters.get("created", {})
    if not isinstance(given, dict):
        second = _integer(given, "created")
        return {"gte": second, "lte": second}
    only(given, ("gt", "gte", "lt", "lte"))
    return {how: _integer(second, f"created[{how}]") for how, second in given.items()}


def metadata(parameters: Parameters) -> dict[str, str]:
    """Return the metadata, within Stripe's bounds: https://docs.stripe.com/metadata."""
    given = parameters.get("metadata") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        message = "Invalid hash: metadata is one level of names and texts."
        raise StripeError(message, param="metadata")
    if len(given) > METADATA_KEYS:
        message = f"You can specify up to {METADATA_KEYS} metadata keys."
        raise StripeError(message, param="metadata")
    for name, value in given.items():
        _check_length("key", name, METADATA_KEY_LENGTH)
        _check_length("value", value, METADATA_VALUE_LENGTH)
    return {name: value for name, value in given.items() if value}  # an empty value unsets


def _integer(value: str, name: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise _invalid_integer(f"Invalid integer: {value}", name)
    return int(value)


def _invalid_integer(message: str, name: str) -> StripeError:
    return StripeError(message, code="parameter_invalid_integer", param=name)


def _check_length(part: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise StripeError(
            f"Metadata {part}s can have up to {longest} characters, but you passed in a {part} "
            f"that is {len(text)} characters. Invalid {part}: {text}",
            param="metadata",
        )
