"""Parameters of a request: form-encoded, nested by brackets, checked before anything is done.

https://docs.stripe.com/api: form-encoded request bodies; ``metadata[key]=value`` names a nested one.
"""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from payments.sandbox.errors import StripeError, invalid

Parameters = dict[str, Any]

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500  # docs.stripe.com/metadata


def parse(encoded: bytes) -> Parameters:
    """Decode a query or a body; a later value of the same name replaces the earlier one."""
    parameters: Parameters = {}
    try:
        pairs = parse_qsl(encoded.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise invalid("Invalid request: parameters must be UTF-8.") from None
    for name, value in pairs:
        _place(parameters, name, value)
    return parameters


def _place(parameters: Parameters, name: str, value: str) -> None:
    match = NAME.fullmatch(name)
    if match is None:
        raise invalid(f"Invalid request: the parameter name {name!r} can't be read.")
    *path, last = [match.group(1), *re.findall(r"\[([^\[\]]*)\]", match.group(2))]
    target = parameters
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise invalid(f"Invalid request: {name!r} is given as a value and as a hash.")
    target[last or str(len(target))] = value  # list[]=a is list[0]=a


def only(parameters: Parameters, known: Collection[str]) -> None:
    """Refuse unknown names; also those that only the real Stripe knows, rather than ignore them.

    https://docs.stripe.com/error-codes#parameter-unknown
    """
    unknown = [name for name in parameters if name not in known]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        message = f"Received unknown parameter{plural}: {', '.join(unknown)}"
        raise invalid(message, code="parameter_unknown", param=unknown[0])


def text(parameters: Parameters, name: str) -> str | None:
    """Read a string; None if it isn't given."""
    value = parameters.get(name)
    if value == "":
        raise _empty(name)
    if isinstance(value, dict):
        raise invalid(f"Invalid string: {value}", param=name)
    return value


def integer(parameters: Parameters, name: str, *, largest: int | None = None) -> int | None:
    """Read an integer of 1 or more: https://docs.stripe.com/error-codes#parameter-invalid-integer."""
    value = text(parameters, name)
    if value is None:
        return None
    number = _integer(value, name)
    bound = None
    if number < 1:
        bound = "greater than or equal to 1."
    elif largest is not None and number > largest:
        bound = f"less than or equal to {largest} (it currently is '{number}')."
    if bound:
        message = f"This value must be {bound}"
        raise invalid(message, code="parameter_invalid_integer", param=name)
    return number


def required(name: str) -> StripeError:
    return invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)


def metadata(parameters: Parameters) -> dict[str, str]:
    """Read metadata within Stripe's bounds: https://docs.stripe.com/metadata."""
    given = parameters.get("metadata") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise invalid("Invalid hash: metadata is one level of names and texts.", param="metadata")
    if len(given) > METADATA_KEYS:
        raise invalid(f"You can specify up to {METADATA_KEYS} metadata keys.", param="metadata")
    for name, value in given.items():
        _bounded("keys", name, METADATA_KEY_LENGTH)
        _bounded("values", value, METADATA_VALUE_LENGTH)
    return {name: value for name, value in given.items() if value}  # an empty value unsets


def created(parameters: Parameters) -> dict[str, int]:
    """Read a filter on creation times, as comparisons: gt, gte, lt, lte."""
    given = parameters.get("created", {})
    if not isinstance(given, dict):
        second = _integer(given, "created")
        return {"gte": second, "lte": second}
    only(given, ("gt", "gte", "lt", "lte"))
    return {how: _integer(second, f"created[{how}]") for how, second in given.items()}


def _integer(value: str, name: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        message = f"Invalid integer: {value}"
        raise invalid(message, code="parameter_invalid_integer", param=name)
    return int(value)


def _bounded(what: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise invalid(
            f"Metadata {what} can have up to {longest} characters, but you passed in a "
            f"{what.removesuffix('s')} that is {len(value)} characters. Invalid "
            f"{what.removesuffix('s')}: {value}",
            param="metadata",
        )


def _empty(name: str) -> StripeError:
    return invalid(
        f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset "
        f"a parameter; however '{name}' cannot be unset. You should remove '{name}' from your "
        "request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=name,
    )
