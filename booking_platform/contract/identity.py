"""The id and type of a body that is no valid event, so that a person can tell which it was.

Nothing is decoded but the few texts that are looked for: it is safe with whatever ends a decoder.
"""

import re
from codecs import BOM_UTF8

import msgspec

from booking_platform.contract.mending import mend

LONGEST_ID, LONGEST_TYPE = 255, 100  # characters that the columns hold

# A string takes all up to its end, or that of the body, so that the search is linear. Its end is
# followed by a colon where it is a name.
_TOKEN = re.compile(
    rb'"(?P<text>(?:[^"\\]+|\\.)*+)(?P<end>"(?P<colon>\s*+:\s*+)?)?'
    rb"|(?P<open>[{\[]+)|(?P<close>[}\]])",
    re.DOTALL,
)
_PAYLOAD = re.compile(rb'"(?:payload|data)"\s*+:\s*+{')
_NAMES = frozenset({"eventId", "eventType", "specversion", "source", "id", "type"})


def identify(body: bytes) -> tuple[str, str]:
    """Return the event id and type of a body; each is empty unless it can be read and stored.

    Those of the outermost object count, the last of each. In a body that is broken anything counts
    that looks like them.
    """
    found, whole = _outermost(body)
    if "specversion" in found and "eventId" not in found:
        source, own_id = found.get("source", ""), found.get("id", "")
        event_id = f"{source}#{own_id}" if source and own_id else ""
        event_type = found.get("type", "").rpartition(".")[2]
    else:
        event_id, event_type = found.get("eventId", ""), found.get("eventType", "")
        if not whole:
            event_id = event_id or _anywhere(b"eventId", body)
            event_type = event_type or _anywhere(b"eventType", body)
    return _storable(event_id, LONGEST_ID), _storable(event_type, LONGEST_TYPE)


def subject(body: bytes, name: str) -> str:
    """Return the text of this name in the payload of a body; empty unless it can be read and stored.

    In a body that is broken the first text counts that has the name.
    """
    if payload := _PAYLOAD.search(body):
        found, _ = _outermost(body[payload.end() - 1 :], frozenset({name}))
        if text := found.get(name, ""):
            return _storable(text, LONGEST_ID)
    return _storable(_anywhere(name.encode(), body), LONGEST_ID)


def texts(body: bytes, names: frozenset[str]) -> dict[str, str]:
    """Return the texts that have these names in the outermost object, the last of each; else none.

    What has one of the names and is no text is there as an empty one.
    """
    found, whole = _outermost(body, names)
    return found if whole else {}


def _outermost(body: bytes, names: frozenset[str] = _NAMES) -> tuple[dict[str, str], bool]:
    """Return the texts of the outermost object by name, and whether the body is that object."""
    found: dict[str, str] = {}
    depth, name, value_at = 0, "", -1
    before, _, _ = body.removeprefix(BOM_UTF8).partition(b"{")
    for token in _TOKEN.finditer(body, max(body.find(b"{"), 0)):
        if opened := token["open"]:
            depth += len(opened)
        elif token["close"]:
            depth -= 1
            if depth <= 0:
                return found, not before.strip()
        elif depth == 1 and token["colon"]:
            name, value_at = _decoded(token["text"]), token.end()
            if name in names:
                found[name] = ""
        elif depth == 1 and token["end"] and token.start() == value_at and name in names:
            found[name] = _decoded(token["text"])
    return found, False


def _anywhere(name: bytes, body: bytes) -> str:
    found = re.search(rb'"%b"\s*+:\s*+"((?:[^"\\]|\\.){1,2000}+)"' % name, body, re.DOTALL)
    return _decoded(found[1]) if found else ""


def _decoded(text: bytes) -> str:
    """Return the text of a JSON string, halves of characters as U+FFFD; empty where it is none."""
    if text.isascii() and b"\\" not in text:
        return text.decode()
    quoted = b'"%b"' % text
    mended = mend(quoted)
    try:
        return str(msgspec.json.decode(mended.shown if mended else quoted, type=str))
    except msgspec.DecodeError:
        return ""


def _storable(text: str, longest: int) -> str:
    return text if len(text) <= longest and "\0" not in text else ""
