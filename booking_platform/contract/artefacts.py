"""The published contract as files: generated from the types, and held against what is there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from booking_platform.contract.announcing import Announcement
from booking_platform.contract.asyncapi import document
from booking_platform.contract.payloads import Payload
from booking_platform.contract.samples import sample
from booking_platform.contract.schemas import DIALECT, event_schema
from booking_platform.contract.tables import (
    Readers,
    Reasons,
    announcements_section,
    envelope_table,
    events_section,
    reasons_table,
)

FOLDER, PAGE = "docs/contract", "docs/events.md"
SCHEMAS, EXAMPLES = f"{FOLDER}/schemas", f"{FOLDER}/examples"

# Up to U+FFFF, where an escape of JSON names one: what nobody sees, and spaces but for the usual one.
_UNSEEN = re.compile(
    "[\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb]"
)
_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


class Contract(NamedTuple):
    """What crosses the border, as the registries of a process have it."""

    events: Mapping[str, type[Payload]]  # by routing key
    announcements: Mapping[str, type[Announcement]]  # by routing key
    readers: Readers
    reasons: Reasons


def drifted(base: Path, contract: Contract) -> list[str]:
    """Return the paths of the files that are not what the contract is: other, missing or too many."""
    wanted = files(base, contract)
    unlike = [path for path, text in wanted.items() if _read(base / path) != text]
    return sorted([*unlike, *_superfluous(base, wanted)])


def write(base: Path, contract: Contract) -> list[str]:
    """Write the files of the contract; return the paths of those that have changed."""
    changed, wanted = drifted(base, contract), files(base, contract)
    for path in changed:
        if path in wanted:
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).write_text(wanted[path], encoding="utf-8")
        else:
            (base / path).unlink()
    return changed


def files(base: Path, contract: Contract) -> dict[str, str]:
    """Return the text of each file, by its path; of the page only the generated parts are new."""
    both: list[type[Payload]] = [*contract.events.values(), *contract.announcements.values()]
    texts = {f"{FOLDER}/asyncapi.json": legible(document(contract.events, contract.announcements))}
    for each in both:
        name = each.__name__
        texts[f"{SCHEMAS}/{name}.json"] = legible({"$schema": DIALECT, **event_schema(each)})
        texts[f"{EXAMPLES}/{name}.json"] = _spaced(sample(each))
    return texts | {PAGE: _woven(_read(base / PAGE), contract)}


def legible(value: Any) -> str:
    """Return a value as JSON for people: each in its line, and nothing that can't be seen."""
    return _spaced(msgspec.json.Encoder(decimal_format="number").encode(value))


def _spaced(text: bytes) -> str:
    spaced = msgspec.json.format(text, indent=2).decode()
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", spaced) + "\n"


def _woven(page: str, contract: Contract) -> str:
    """Return the page with its generated parts as they are now; a part without a mark is left out."""
    parts = {
        "envelope": envelope_table(contract.events),
        "events": events_section(contract.events, contract.readers),
        "announcements": announcements_section(contract.announcements),
        "reasons": reasons_table(contract.reasons),
    }
    return _PART.sub(lambda match: f"{match[1]}{parts[match['name']]}{match[3]}", page)


def _superfluous(base: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    for folder in (SCHEMAS, EXAMPLES):
        for file in (base / folder).glob("*.json"):
            if f"{folder}/{file.name}" not in wanted:
                yield f"{folder}/{file.name}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
