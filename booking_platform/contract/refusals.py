"""Why a body is no event, in words that name the field, the value, and what to send instead."""

import re
from typing import Any

import msgspec

from booking_platform.contract.payloads import wanted

SHOWN = 80  # characters of a refused value that its error message repeats
PRIVATE = frozenset({"payload", "payload.userEmail"})  # fields whose value no message repeats

_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class InvalidEvent(Exception):
    """The bytes are no event of the expected type; the message names the field and the value."""


class MalformedEvent(InvalidEvent):
    """The bytes are no JSON object at all."""


def described(
    error: msgspec.ValidationError,
    text: bytes | msgspec.Raw,
    read_as: type[msgspec.Struct],
    *,
    inside: str = "",
) -> str:
    """Return in words why a JSON object can't be read as a type, and what the type wants instead.

    ``inside`` is the name that the object has in the event.
    """
    match = _WHERE.match(str(error))
    assert match is not None  # the pattern matches any text
    problem, step = match["problem"], match["path"] or ""
    if missing := _MISSING.match(problem):
        step = ".".join(filter(None, (step, missing["name"])))
    expected = wanted(read_as, step) if step else "a JSON object"
    problem = f"expected {expected}" if expected else problem
    path = ".".join(filter(None, (inside, step)))
    if missing:
        return f"{path} is missing: {problem}" if expected else f"{path}: {problem}"
    value = written(text, step)
    if not value or path in PRIVATE:
        return f"{path or 'the event'}: {problem}"
    return f"{path} is {value}: {problem}"


def fields_of(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the fields of a JSON object, each as its text."""
    return _FIELDS.decode(text)


def written(text: bytes | msgspec.Raw, path: str) -> str:
    """Return the JSON text of a field, cut where it is long; empty where there is no such field."""
    for step in path.split("."):
        try:
            fields = fields_of(text)
        except msgspec.ValidationError:  # no object
            return ""
        if step not in fields:
            return ""
        text = fields[step]
    return cut(bytes(text).decode())


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut where it is long."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return the beginning of a text that is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
