"""The JSON Schema of an event: of its whole envelope, as the decoder reads it.

What a schema can't say stands in its descriptions. Only keywords that JSON Schema draft 07, draft 2020-12
and AsyncAPI share are used, and regular expressions that all languages read in one way: no look-around,
no classes with names, and no ``$`` on which a line break could follow unseen.
"""

import re
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from booking_platform.contract.announcing import Announcement
from booking_platform.contract.envelope import Envelope, Identifier
from booking_platform.contract.numbers import MAX_EXPONENT, MAX_LENGTH
from booking_platform.contract.payloads import Payload, Undescribed, notes

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

# The characters up to U+FFFF that texts.py refuses in ids, and those that it refuses at their ends. The
# few beyond would be two in languages that count in UTF-16: the description names them.
_HIDDEN = (
    "\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
)
_SPACE = " \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_UNLIKE_AN_ID = f"[{_HIDDEN}]|^[{_SPACE}]|[{_SPACE}]$"

_TIME = "[0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]+)?)?)?"
_ISO_8601 = (
    "^([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|[0-9]{4}-?W[0-9]{2}(-?[1-7])?)"
    rf"([Tt ]{_TIME}([Zz]|[-+]{_TIME}(\[[A-Za-z0-9_+/:-]+\])?)?)?$"
)

# What a schema lets pass and the decoder refuses, by the types of the fields.
UNSAID = {
    Identifier: (
        "no invisible characters in ids (controls, format characters of Unicode, also those beyond U+FFFF, "
        "such as tags), no halves of characters, no space at either end"
    ),
    int: "integers are written without a point and without an exponent: `2.0` is refused",
    Decimal: (
        "an amount that is a number is read exactly as it is written, and has at most "
        f"{MAX_EXPONENT} digits behind the point"
    ),
}
UNSAID_OF_ALL = "the timestamp's day and time exist, and are at most a day in the future"


def event_schema(payload_type: type[Payload]) -> Schema:
    """Return the schema of an event whose payload is of a type, for draft 07 and later."""
    is_ours = issubclass(payload_type, Announcement)
    name = payload_type.__name__
    said = described(payload_type)
    if not is_ours:
        said += f" {_unsaid(payload_type)} A CloudEvent is read, too: docs/events.md says how."
    envelope = {
        "eventId": _event_id(is_ours),
        "eventType": {"type": "string", "const": name, "description": "The name of the type."},
        "timestamp": _timestamp(is_ours),
        "payload": _object(
            {
                field.encode_name: _field(field, payload_type)
                for field in msgspec.structs.fields(payload_type)
            },
            [f.encode_name for f in msgspec.structs.fields(payload_type) if f.required],
        ),
    }
    assert list(envelope) == [field.encode_name for field in msgspec.structs.fields(Envelope)]
    return {
        "title": name,
        "description": f"{said} Unknown fields are ignored.",
        **_object(envelope, list(envelope)),
    }


def described(payload_type: type[Payload]) -> str:
    """Return what an event means, with the names that its fields have in JSON.

    Raises:
        Undescribed: its type has no docstring.
    """
    text = " ".join((vars(payload_type).get("__doc__") or "").split())
    if not text:
        raise Undescribed(f"{payload_type.__name__} has no docstring: what does it mean?")
    return re.sub(r"``(\w+)``", lambda match: f"`{_camel(match[1])}`", text)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _object(properties: Schema, required: list[str]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": True,
    }


def _event_id(is_ours: bool) -> Schema:
    if is_ours:
        said = "The same whenever the event comes again: it is applied once."
        return {"type": "string", "minLength": 1, "maxLength": 255, "description": said}
    said = "The same for every repeat of the event, another for every other."
    return plain_schema(Identifier) | {"description": said}


def _timestamp(is_ours: bool) -> Schema:
    if is_ours:
        said = "When it became true, in UTC."
        return {"type": "string", "format": "date-time", "description": said}
    return {
        "type": "string",
        "pattern": _ISO_8601,
        "not": _text_like("\n"),
        "description": "When it happened, in ISO 8601; without an offset it is UTC.",
    }


def _field(field: msgspec.structs.FieldInfo, payload_type: type[Payload]) -> Schema:
    """Return the schema of a field; the platform itself leaves out what it does not know."""
    is_ours = issubclass(payload_type, Announcement)
    inner = required_part(field.type)
    schema = _amount(is_ours) if decimal(inner) else plain_schema(inner)
    if inner != field.type and not is_ours:
        schema = _or_null(schema)
    note = notes(payload_type)[field.name]
    schema["description"] = f"{note.meaning[:1].upper()}{note.meaning[1:]}."
    if note.example is not None:
        schema["examples"] = [note.example]
    return schema


def required_part(annotation: Any) -> Any:
    """Return the type of a field without the ``None`` of an optional one."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return Union[tuple(part for part in get_args(annotation) if part is not NoneType)]  # noqa: UP007


def decimal(annotation: Any) -> bool:
    """Return whether a type is that of an exact decimal number."""
    return Decimal in (annotation, *get_args(annotation))


def plain_schema(annotation: Any) -> Schema:
    """Return what a type alone says of its values."""
    whole = msgspec.json.schema(annotation)
    schema: Schema = _inlined(whole, whole.pop("$defs", {}))
    for name in ("description", "examples", "title"):
        schema.pop(name, None)
    if annotation == Identifier:
        schema["not"] = _text_like(_UNLIKE_AN_ID)
    elif schema.get("type") == "string":
        schema["not"] = _text_like("\0")
    return schema


def _inlined(schema: Any, definitions: Schema) -> Any:
    """Return a schema with what it refers to in its place; no payload refers to itself."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(part, definitions) for name, part in schema.items()}


def _text_like(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}  # a pattern alone is true of null, too


def _amount(is_ours: bool) -> Schema:
    if is_ours:
        return {"type": "number"}
    whole = MAX_EXPONENT + 1
    bound = 10**whole
    text = f"^[-+]?0*[0-9]{{1,{whole}}}(\\.[0-9]{{1,{MAX_EXPONENT}}})?$"
    return {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": -bound, "exclusiveMaximum": bound},
            {
                "type": "string",
                "maxLength": MAX_LENGTH,
                "pattern": text,
                "not": _text_like("[^-+.0-9]"),
            },
        ]
    }


def _or_null(schema: Schema) -> Schema:
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}


def _unsaid(payload_type: type[Payload]) -> str:
    """Return what the decoder refuses of this event, and its schema lets pass."""
    types = [required_part(field.type) for field in msgspec.structs.fields(payload_type)]
    parts = [part for annotation in types for part in (annotation, *get_args(annotation))]
    said = [text for part, text in UNSAID.items() if part is Identifier or part in parts]
    return f"What a schema can't say: {'; '.join([*said, UNSAID_OF_ALL])}."
