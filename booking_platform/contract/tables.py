"""The tables of docs/events.md: what each field may hold, and what it means."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from booking_platform.contract.announcing import Announcement
from booking_platform.contract.envelope import Envelope, Identifier
from booking_platform.contract.payloads import Payload, notes
from booking_platform.contract.schemas import (
    described,
    plain_schema,
    required_part,
)

Reasons = Mapping[str, Mapping[str, str]]  # by whom, and by code: what it means
Readers = Mapping[str, Mapping[str, Iterable[str]]]  # by routing key and attribute: which apps

_LARGEST = 2**63 - 1


def envelope_table(events: Mapping[str, type[Payload]]) -> str:
    """Return the table of the envelope."""
    *others, last = (f"`{each.__name__}`" for each in events.values())
    types = f"{', '.join(others)} or {last}" if others else last
    said = {
        "event_id": (
            kind(Identifier),
            "the same for every repeat of the event, another for every other",
        ),
        "event_type": (types, "the one that belongs to the routing key"),
        "timestamp": (
            "string, ISO 8601",
            "at most a day in the future; without a zone it is UTC",
        ),
        "payload": ("object", "below"),
    }
    rows = [
        (f"`{field.encode_name}`", *said[field.name]) for field in msgspec.structs.fields(Envelope)
    ]
    return _table(["field", "type", ""], rows)


def events_section(events: Mapping[str, type[Payload]], readers: Readers) -> str:
    """Return a section with a table for each event that the platform takes."""
    sections = []
    for key, each in events.items():
        apps = readers.get(key, {})
        several = len({app for names in apps.values() for app in names}) > 1
        header = ["field", "type", "meaning", *["read by"] * several]
        rows = [
            (*row, *[", ".join(apps.get(field, ()))] * several)
            for field, row in _field_rows(each).items()
        ]
        heading = f"## `{each.__name__}`, routing key `{key}`"
        sections.append(f"{heading}\n\n{described(each)}\n\n{_table(header, rows)}")
    return "\n".join(sections)


def announcements_section(announcements: Mapping[str, type[Announcement]]) -> str:
    """Return a table of the announcements, and one of the fields of each, or of several alike."""
    overview = [
        (f"`{key}`", f"`{each.__name__}`", described(each)) for key, each in announcements.items()
    ]
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for each in announcements.values():
        alike.setdefault(tuple(_field_rows(each).values()), []).append(f"`{each.__name__}`")
    parts = [_table(["routing key", "event", "says"], overview)]
    for rows, names in alike.items():
        parts.append(f"### {', '.join(names)}\n\n{_table(['field', 'type', 'meaning'], rows)}")
    return "\n".join(parts)


def reasons_table(reasons: Reasons) -> str:
    """Return the table of the words that stand in ``reason``."""
    rows = [
        (f"`{code}`", whose, meaning)
        for whose, words in reasons.items()
        for code, meaning in words.items()
    ]
    return _table(["`reason`", "of", "meaning"], rows)


def kind(annotation: Any) -> str:
    """Return in a few words what values a field has."""
    part = required_part(annotation)
    optional = ", optional" if part != annotation else ""
    schema = plain_schema(part)
    if schema.get("format") == "decimal":
        return 'number, or a decimal string such as `"80.00"`' + optional
    if part == Identifier:
        return f"id{_length(schema)}{optional}"
    return f"{schema.get('type', 'see its schema')}{_bounds(schema)}{_length(schema)}{optional}"


def _bounds(schema: Mapping[str, Any]) -> str:
    if "minimum" not in schema or "maximum" not in schema:
        return ""
    low, high = schema["minimum"], schema["maximum"]
    least = "−2⁶³" if low == -(2**63) else f"{low:,}"
    return f", {least}{' to ' if low < 0 else '–'}{'2⁶³−1' if high == _LARGEST else f'{high:,}'}"


def _length(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if most is None:
        return ""
    if least == most:
        return f", {most} characters"
    return f", {least}–{most:,} characters" if least else f", up to {most:,} characters"


def _field_rows(payload_type: type[Payload]) -> dict[str, tuple[str, ...]]:
    """Return name, type and meaning of each field, by attribute."""
    ours, said = issubclass(payload_type, Announcement), notes(payload_type)
    rows: dict[str, tuple[str, ...]] = {}
    for field in msgspec.structs.fields(payload_type):
        words = kind(field.type)
        if ours:
            words = words.replace(', or a decimal string such as `"80.00"`', "")
        rows[field.name] = (f"`{field.encode_name}`", words, said[field.name].meaning)
    return rows


def _table(header: list[str], rows: Iterable[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        yield f"| {' | '.join(header)} |"
        yield "|---" * len(header) + "|"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"

    return "".join(f"{line}\n".replace("|  |", "| |") for line in lines())
