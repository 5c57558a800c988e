"""An event that a person corrects: the text to begin with, what is wrong with it, and what was changed."""

import hashlib
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from unicodedata import category
from uuid import UUID, uuid5

import msgspec
from msgspec import Raw

from booking_platform.contract.envelope import InvalidEvent, MalformedEvent, Payload, decode
from booking_platform.contract.fingerprints import fingerprint, plain
from booking_platform.contract.mending import mend
from booking_platform.contract.payloads import all_fields, notes
from booking_platform.contract.refusals import fields_of
from booking_platform.contract.texts import INVISIBLE

MOST_PROBLEMS = 50  # of one event; it has fewer fields
DEEPEST = 10  # levels of objects in which a change is looked for; below, the whole value is named
KEPT = frozenset("\n\t\u200c\u200d")  # invisible characters that texts need

_NAMESPACE = UUID("5d1d2b1c-7c26-4a0e-9a4b-0a3c1f5f7e11")
_PATH = re.compile(r"(?P<path>(?:payload\.)?\w+)")
_LAST_OF_FOUR_DIGITS = 0xFFFF

Fields = dict[str, Raw]


class Change(NamedTuple):
    """A field whose value a person changed."""

    path: str  # such as payload.amount; empty: the whole message
    before: str  # as JSON; empty: it was not there
    after: str


def as_draft(body: bytes) -> str:
    """Return a body as a text to edit: indented if it is JSON, its numbers as they were written.

    What can't be seen is an escape of JSON, which means the same within a string.
    """
    body = body.removeprefix(BOM_UTF8)
    with suppress(msgspec.DecodeError, RecursionError):
        body = msgspec.json.format(body, indent=2)
    text = body.decode(errors="replace")
    return text if text.isprintable() else "".join(map(_seen, text))


def as_typed(text: str) -> bytes:
    """Return what a person typed into a form as a body: a browser sends line breaks as CR and LF."""
    return text.replace("\r\n", "\n").strip().encode(errors="replace")


def under_new_id(body: bytes, *seed: object) -> bytes:
    """Return an event under an event id that follows from its content and the seed.

    The same content gets the same id, whatever its formatting and the id that it had. A CloudEvent keeps
    its source.

    Raises:
        MalformedEvent: the body is no JSON object.
    """
    fields = _fields(body)
    name = "id" if "specversion" in fields and "eventId" not in fields else "eventId"
    rest = {key: plain(value) for key, value in fields.items() if key != name}
    content = fingerprint(sorted(rest.items()))
    digest = hashlib.sha256("\0".join(map(str, (*seed, content))).encode(errors="replace"))
    event_id = str(uuid5(_NAMESPACE, digest.hexdigest()))
    return msgspec.json.encode({**fields, name: event_id})


def problems(
    body: bytes,
    payload_type: type[Payload],
    *,
    now: datetime,
    uses: tuple[str, ...] | None = None,
) -> list[str]:
    """Return all that is wrong with an event, in sentences that name field and value; none: it is valid.

    ``decode`` names what it finds first. That field is put right, and the event decoded again.
    """
    found: list[str] = []
    while len(found) < MOST_PROBLEMS:
        try:
            decode(body, payload_type, now=now, uses=uses)
        except MalformedEvent as error:
            return [*found, str(error)]
        except InvalidEvent as error:
            problem = str(error)
            repaired = _repaired(body, problem, payload_type, now)
            if problem in found or repaired is None:
                return list(dict.fromkeys([*found, problem]))
            found.append(problem)
            body = repaired
        else:
            break
    return found


def changes(before: bytes, after: bytes) -> list[Change]:
    """Return the fields in which two bodies differ, numbers by value, in the order of the second."""
    try:
        old, new = _fields(before), _fields(after)
    except MalformedEvent:
        return [Change("", as_draft(before), as_draft(after))] if before != after else []
    return list(_changes(old, new, ""))


def _changes(old: Fields, new: Fields, inside: str) -> Iterator[Change]:
    for name in dict.fromkeys([*new, *old]):
        path = f"{inside}{name}"
        one, other = old.get(name), new.get(name)
        if one is not None and other is not None:
            if fingerprint(plain(one)) == fingerprint(plain(other)):
                continue
            if path.count(".") < DEEPEST and _is_object(one) and _is_object(other):
                yield from _changes(fields_of(one), fields_of(other), f"{path}.")
                continue
        yield Change(path, _text(one), _text(other))


def _fields(body: bytes) -> Fields:
    """Return the fields of a body, halves of characters as U+FFFD."""
    body = body.removeprefix(BOM_UTF8)
    try:
        body.decode()
        return _whole(fields_of(body))
    except (ValueError, RecursionError):
        if mended := mend(body):
            try:
                return _whole(fields_of(mended.shown))
            except (ValueError, RecursionError):
                pass
    raise MalformedEvent("not a JSON object")


def _whole(fields: Fields) -> Fields:
    """Return fields all of whose values can be read."""
    for value in fields.values():
        plain(value)
    return fields


def _repaired(
    body: bytes, problem: str, payload_type: type[Payload], now: datetime
) -> bytes | None:
    """Return an event without a problem that was found in it; none where that can't be."""
    found = _PATH.match(problem)
    path = found["path"] if found else ""
    fields: dict[str, Any] = dict(_fields(body))
    cloud = "specversion" in fields and "eventId" not in fields
    holder = "data" if cloud else "payload"
    if path.startswith("payload."):
        payload = _payload_without(path, fields.get(holder), payload_type)
        return None if payload is None else msgspec.json.encode({**fields, holder: payload})
    right = _right_envelope(payload_type, now, cloud=cloud)
    if path not in right:
        return None
    return msgspec.json.encode({**fields, path: right[path]})


def _payload_without(
    path: str, payload: Raw | None, payload_type: type[Payload]
) -> dict[str, Any] | None:
    """Return a payload whose field is left out, or has its example where it is required."""
    given: dict[str, Any] = dict(fields_of(payload)) if payload is not None else {}
    field = next((each for each in all_fields(payload_type) if each.path == path), None)
    if field is None:
        return None
    given.pop(field.name, None)
    if any(each.name == field.attribute and each.required for each in _infos(payload_type)):
        given[field.name] = notes(payload_type)[field.attribute].example
    return given


def _right_envelope(payload_type: type[Payload], now: datetime, *, cloud: bool) -> dict[str, Any]:
    required = {
        each.encode_name: notes(payload_type)[each.name].example
        for each in _infos(payload_type)
        if each.required
    }
    name, time = payload_type.__name__, now.isoformat()
    if cloud:
        attributes = {"specversion": "1.0", "id": "1", "source": "source", "type": name}
        return {**attributes, "time": time, "data": required, "data_base64": None}
    return {"eventId": "1", "eventType": name, "timestamp": time, "payload": required}


def _infos(payload_type: type[Payload]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(payload_type)


def _is_object(value: Raw) -> bool:
    return bytes(value).lstrip().startswith(b"{")


def _text(value: Raw | None) -> str:
    return "" if value is None else as_draft(bytes(value))


def _seen(char: str) -> str:
    """Return a character, or the escape of JSON for one that can't be seen."""
    if char in KEPT or category(char) not in INVISIBLE:
        return char
    code = ord(char)
    if code <= _LAST_OF_FOUR_DIGITS:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
