"""Celery's task messages, looked at before Celery's code in the main process believes them.

Celery trusts the headers and the body of a task message: a list where it expects text ends the main
process of the worker, and ends it again when the broker delivers the message again.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kombu.message import Message

LONGEST_TEXT = 10_000  # letters of a header; Celery cuts what it writes itself to 1,024
LONGEST_TIME_LIMIT = 7 * 24 * 3600.0  # seconds


class Malformed(Exception):
    """A task message that no Celery has sent; the message says what is wrong."""


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _text_or_none(value: object) -> bool:
    return value is None or _text(value)


def _small(value: object) -> bool:
    return value is None or (isinstance(value, int) and abs(value) < 2**31)


def _time_limits(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004  # hard and soft
        and all(
            each is None or (isinstance(each, int | float) and 0 < each <= LONGEST_TIME_LIMIT)
            for each in value
        )
    )


# https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2, as far as the platform uses it
_HEADERS: Mapping[str, Callable[[object], bool]] = {
    "task": _text,
    "id": _text,
    "lang": _text,
    "root_id": _text_or_none,
    "parent_id": _text_or_none,
    "group": _text_or_none,
    "shadow": _text_or_none,
    "eta": _text_or_none,
    "expires": _text_or_none,
    "argsrepr": _text,
    "kwargsrepr": _text,
    "origin": _text_or_none,
    "retries": _small,
    "replaced_task_nesting": _small,
    "ignore_result": _small,
    "timelimit": _time_limits,
}
_PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode")


def check(message: Message) -> None:
    """Reduce a task message to what it may hold; what Celery does not know is left out.

    Raises:
        Malformed: it is none.
    """
    headers = {name: message.headers[name] for name in _HEADERS if name in message.headers}
    for name in ("task", "id"):
        if name not in headers:
            raise Malformed(f"it has no header {name!r}")
    for name, value in headers.items():
        if not _HEADERS[name](value):
            raise Malformed(f"its header {name!r} is a {type(value).__name__} of a wrong kind")
    if headers["task"].startswith("celery."):
        raise Malformed("it names a task of Celery's own, which nothing here sends")
    _check_body(message)
    message.headers = headers
    message.properties = {
        name: message.properties[name] for name in _PROPERTIES if name in message.properties
    }


def _check_body(message: Message) -> None:
    try:
        body: Any = message.payload
    except Exception as error:
        raise Malformed(f"its body can't be read: {type(error).__name__}") from error
    if not (
        isinstance(body, list | tuple)
        and [type(part) for part in body[:3]] == [list, dict, dict]
        and len(body) == 3  # noqa: PLR2004  # arguments, keyword arguments, what follows
    ):
        raise Malformed("its body is not [arguments, keyword arguments, what follows]")
    if not all(_follows(value) for value in body[2].values()):
        raise Malformed("what is to follow it are no tasks")


def _follows(value: object) -> bool:
    """Return whether a value is what Celery calls afterwards: a signature, a list of them, or nothing."""
    signatures = value if isinstance(value, list) else [value] if value is not None else []
    return all(
        isinstance(each, dict)
        and isinstance(each.get("task"), str)
        and isinstance(each.get("args", []), list)
        and isinstance(each.get("kwargs", {}), dict)
        and isinstance(each.get("options", {}), dict)
        for each in signatures
    )
