"""What a payload is, and what its type says of each field."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct

Identifier = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        description="a string of 1 to 255 characters",
        examples=["BK-1"],
    ),
]


class Note(NamedTuple):
    """What the published contract says of a field beside its type."""

    meaning: str
    example: Any = None  # in the example of the event; none: the example leaves the field out


class Payload(Struct, frozen=True, kw_only=True, rename="camel"):
    """The payload of one type of event. The name of the class is the name of the event's type.

    A field whose ``Meta`` has a description and an example tells them to whoever sent something else.
    ``notes`` are for the published contract, by attribute; a class adds to those of its bases.
    ``named_by`` is the JSON name of the field that ``aggregate_id`` returns: it is looked for in bodies
    that can't be read as an event.
    """

    notes: ClassVar[Mapping[str, Note]] = {}
    named_by: ClassVar[str] = ""

    @property
    def aggregate_id(self) -> str:
        """Return the id of the thing that the event speaks of; empty where it names none."""
        return ""


class Field(NamedTuple):
    """A field of a payload by its names."""

    name: str  # in the JSON of the payload
    path: str  # in the JSON of the event
    attribute: str  # here


@cache
def narrowed(payload_type: type[Payload], uses: tuple[str, ...] | None) -> type[Struct]:
    """Return a type with the required fields of a payload, and those of the others that are used.

    Where nothing is left out it is the type of the payload itself.
    """
    fields = msgspec.structs.fields(payload_type)
    kept = [field for field in fields if uses is None or field.required or field.name in uses]
    if len(kept) == len(fields):
        return payload_type
    typed = [(field.name, field.type, _defaults(field)) for field in kept]
    return msgspec.defstruct(payload_type.__name__, typed, frozen=True, kw_only=True)


@cache
def all_fields(payload_type: type[Struct]) -> tuple[Field, ...]:
    """Return the fields of a payload."""
    return _fields(payload_type, lambda _: True)


@cache
def identifiers(payload_type: type[Struct]) -> tuple[Field, ...]:
    """Return the fields of a payload that hold ids."""
    return _fields(payload_type, lambda part: part == Identifier)


@cache
def decimals(payload_type: type[Struct]) -> tuple[Field, ...]:
    """Return the fields of a payload that hold decimal numbers, such as amounts of money."""
    return _fields(payload_type, lambda part: Decimal in (part, *get_args(part)))


class Undescribed(Exception):
    """The notes of a payload say too little for the published contract; the message names the field."""


@cache
def notes(payload_type: type[Payload]) -> dict[str, Note]:
    """Return the note of each field of a payload, by attribute.

    Raises:
        Undescribed: a field has no note, or a required one no example.
    """
    found: dict[str, Note] = {}
    for base in reversed(payload_type.__mro__):
        found |= vars(base).get("notes", {})
    for field in msgspec.structs.fields(payload_type):
        place = f"{payload_type.__name__}.{field.name}"
        if field.name not in found:
            raise Undescribed(f"{place} has no note: what does it mean?")
        if field.required and found[field.name].example is None:
            raise Undescribed(f"{place} is required, and its note has no example.")
    return {name: found[name] for name in payload_type.__struct_fields__}


@cache
def wanted(struct: type[Struct], name: str) -> str:
    """Return in words what a field of this JSON name must be; empty where its type does not say."""
    types = [field.type for field in msgspec.structs.fields(struct) if field.encode_name == name]
    for part in (part for annotation in types for part in (annotation, *get_args(annotation))):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return ", such as ".join((meta.description, *map(str, (meta.examples or [])[:1])))
    return ""


def _defaults(field: msgspec.structs.FieldInfo) -> Any:
    given = {"default": field.default, "default_factory": field.default_factory}
    known = {name: value for name, value in given.items() if value is not msgspec.NODEFAULT}
    return msgspec.field(name=field.encode_name, **known)


def _fields(struct: type[Struct], matches: Callable[[Any], bool]) -> tuple[Field, ...]:
    return tuple(
        Field(field.encode_name, f"payload.{field.encode_name}", field.name)
        for field in msgspec.structs.fields(struct)
        if any(matches(part) for part in (field.type, *get_args(field.type)))
    )
