"""Texts of an event that are refused: what can't be stored, and ids that look like others."""

from unicodedata import category

import msgspec

from booking_platform.contract.payloads import Field, Payload, all_fields, identifiers
from booking_platform.contract.refusals import PRIVATE, InvalidEvent, cut, fields_of

# Categories of Unicode that nobody can see in an id, so that two ids look like one: controls, formats
# (zero width, direction marks, the byte order mark), separators of lines and of paragraphs.
INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})


def refuse_nul(event_id: str, payload: Payload) -> None:
    """Refuse NUL, which PostgreSQL can't store, in every text that we may store."""
    values = [
        (field.path, getattr(payload, field.attribute)) for field in all_fields(type(payload))
    ]
    for name, value in [("eventId", event_id), *values]:
        if isinstance(value, str) and "\0" in value:
            raise InvalidEvent(f"{name} holds a NUL character")


def refuse_halves(payload: Payload, *, shown: msgspec.Raw, exact: msgspec.Raw) -> None:
    """Refuse halves of characters in texts that are more than shown: in ids, and in what is private.

    ``shown`` and ``exact`` are the two forms of the mended payload: a text in which they differ
    holds a half.
    """
    mended, sent = fields_of(shown), fields_of(exact)
    for field in all_fields(type(payload)):
        used = getattr(payload, field.attribute) is not None
        one, other = (bytes(texts.get(field.name, b"")) for texts in (mended, sent))
        if used and one != other and _is_key(field, payload):
            raise InvalidEvent(half(field.path))


def half(name: str) -> str:
    """Return why a field with half a character is refused."""
    return f"{name} holds half a character: expected whole ones, as two values could look like one"


def refuse_invisible(event_id: str, payload: Payload) -> None:
    """Refuse ids that nobody can tell from others: with invisible characters, or a space at an end."""
    _visible("eventId", event_id)
    for field in identifiers(type(payload)):
        if value := getattr(payload, field.attribute):
            _visible(field.path, value)


def _is_key(field: Field, payload: Payload) -> bool:
    return field in identifiers(type(payload)) or field.path in PRIVATE


def _visible(name: str, value: str) -> None:
    if value.isprintable() and value.strip() == value:
        return
    if value.strip() != value or any(category(char) in INVISIBLE for char in value):
        shown = cut(f'"{"".join(map(_escaped, value))}"')
        raise InvalidEvent(
            f"{name} is {shown}: expected no invisible characters, and no space at either end"
        )


def _escaped(char: str) -> str:
    return char if char.isprintable() else ascii(f"{char}")[1:-1].replace("\\x", "\\u00")
