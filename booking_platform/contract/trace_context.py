"""W3C Trace Context: the trace that an event belongs to, so that what it causes can name the same.

https://www.w3.org/TR/trace-context-1/. Here a context is one text: the ``traceparent`` and, after a space,
the ``tracestate`` where there is one. The empty text is none. Whoever may publish writes these headers:
what is not valid is as if it were not there, and what is longer than the standard asks for is cut as it says.
"""

import re
from collections.abc import Mapping
from typing import Any

from booking_platform.contract import cloud_events
from booking_platform.contract.identity import texts

PARENT, STATE = "traceparent", "tracestate"  # of headers, and of the attributes of a CloudEvent
PARENT_LENGTH = 55  # characters of version 00
LONGEST_STATE = 512  # characters that are passed on, which "tracestate Limits" asks for at least

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<ids>[0-9a-f]{32}-[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
_NO_TRACE, _NO_PARENT = "0" * 32, "0" * 16
_SAMPLED = 1

_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
_LARGE_MEMBER = 128  # characters; larger ones are the first that go where there is no room
_LONGEST_LOOKED_AT = _MOST_MEMBERS * (256 + 1 + 256) + _MOST_MEMBERS  # no valid one is longer


_IN_BODIES = frozenset({"specversion", "eventId", PARENT, STATE})


def context(traceparent: object, tracestate: object = None) -> str:
    """Return the context of these two values, which may be anything; empty where it is not valid."""
    parent = _parent(traceparent)
    state = _state(tracestate) if parent and tracestate else ""
    return f"{parent} {state}" if state else parent


def of_headers(headers: Mapping[str, Any]) -> str:
    """Return the context of a message: of its own headers, else of a CloudEvent in binary mode.

    A CloudEvent's attributes say where the event began, the headers where this message comes from
    (cloudevents/spec, ``extensions/distributed-tracing.md``).
    """
    found = context(headers.get(PARENT), headers.get(STATE))
    prefix = None if found else cloud_events.prefix(headers)
    if prefix is None:
        return found
    return context(headers.get(prefix + PARENT), headers.get(prefix + STATE))


def of_body(body: bytes) -> str:
    """Return the context of a CloudEvent in structured mode; empty for every other body.

    No decoder reads it: this comes before the message counts as begun.
    """
    if b'"traceparent"' not in body or b'"specversion"' not in body:
        return ""
    found = texts(body, _IN_BODIES)
    if not found.get("specversion") or "eventId" in found:
        return ""
    return context(found.get(PARENT), found.get(STATE))


def parent(trace: str) -> str:
    """Return the ``traceparent`` of a context."""
    return trace.partition(" ")[0]


def state(trace: str) -> str:
    """Return the ``tracestate`` of a context; empty where it has none."""
    return trace.partition(" ")[2]


def as_headers(trace: str) -> dict[str, str]:
    """Return a context as headers of a message."""
    headers = {PARENT: parent(trace), STATE: state(trace)}
    return {name: value for name, value in headers.items() if value}


def _parent(value: object) -> str:
    """Return a traceparent of version 00, in which those of later versions are passed on ("Versioning of traceparent")."""
    if not isinstance(value, str) or len(value) < PARENT_LENGTH:
        return ""
    found = _PARENT.fullmatch(value, 0, PARENT_LENGTH)
    if found is None or found["version"] == "ff":
        return ""
    trace_id, _, parent_id = found["ids"].partition("-")
    if trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return ""
    if found["version"] == "00":
        return value if len(value) == PARENT_LENGTH else ""
    if len(value) > PARENT_LENGTH and value[PARENT_LENGTH] != "-":
        return ""
    return f"00-{found['ids']}-{int(found['flags'], 16) & _SAMPLED:02x}"


def _state(value: object) -> str:
    """Return a tracestate without the blanks between its members; all of it or, where it is long, its best."""
    # What was no UTF-8 has come with backslashes, which nobody could tell from those of a value.
    if not isinstance(value, str) or len(value) > _LONGEST_LOOKED_AT or "\\" in value:
        return ""
    members = [member for each in value.split(",") if (member := each.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if not len(keys) == len(members) <= _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    if len(",".join(members)) > LONGEST_STATE:
        members = [member for member in members if len(member) <= _LARGE_MEMBER]
    while len(",".join(members)) > LONGEST_STATE:
        members.pop()
    return ",".join(members)
