"""What no log line may hold: addresses, rows that PostgreSQL has refused, and secrets.

A line is redacted once, last before it is rendered, whoever wrote it. What can't hold any of this is
recognised by a look for a few characters.
"""

import re
import socket
from collections.abc import Mapping, Set
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from booking_platform import confidential

ADDRESS = "(address)"
DEEPEST = 20  # levels of nesting; what is deeper is shown as text

# The at-sign as text, percent-encoded (twice, too), as an escape of JSON, Python or HTML, and in full width.
_AT = re.compile(
    r"@|\uff20|%(?:25){0,3}40|\\(?:u0040|x40|100)|&(?:#0*64|#x0*40|commat);", re.IGNORECASE
)
_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~\\-]")  # RFC 5322's atoms, dots, and escapes of others
_DOMAIN = re.compile(r"\[[^\]\s]*\]|(?:[\w.-]|%[0-9a-fA-F]{2}|\\{1,4}u[0-9a-fA-F]{4})+")
_LONGEST_LOCAL = 1000  # characters; longer ones are cut there

# Celery's node names look like addresses: `celery@host`, and whatever is on this machine.
_NODE, _HERE = "celery", socket.gethostname().casefold()
_nodes: set[str] = set()  # other names of this process

# What PostgreSQL adds to an error: the row that it refused, with the customer in it. Its first line says
# all that is ours to know (https://www.postgresql.org/docs/current/protocol-error-fields.html). In a
# repr the line breaks are escaped, once or more often: then the row ends with the line at the latest.
_FIELD = r"[ \t]*(?:D[EÉ]TAIL|CONTEXT|LINE \d+)\s?:"
_ROW = re.compile(
    rf"\r?\n{_FIELD}.*?(?=\n+(?:The above exception was|During handling of|Traceback \(most)|\Z)",
    re.DOTALL,
)
_ESCAPED_ROW = re.compile(rf"(?:\\r)?\\n{_FIELD}[^\n]*")
_SIGNS = ("ETAIL", "ÉTAIL", "CONTEXT", "LINE ")
_PLAIN = (bool, int, float, Decimal, date, timedelta, UUID, type(None))


def redacted(value: Any, depth: int = 0) -> Any:
    """Return a value of a log line without addresses, rows and secrets, however deep they are.

    What is neither a collection nor a plain value is shown as its ``repr``, redacted.
    """
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, _PLAIN):
        return value
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return {_key(name): redacted(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple | Set):
            return [redacted(each, depth + 1) for each in value]
    return redacted_text(_represented(value))


def redacted_text(text: str) -> str:
    """Return a text without addresses, rows and secrets."""
    return without_addresses(without_rows(confidential.masked(text)))


def without_rows(text: str) -> str:
    """Return a text without what PostgreSQL says of a row, in all the forms in which it is written."""
    if not any(sign in text for sign in _SIGNS):
        return text
    return _ESCAPED_ROW.sub("", _ROW.sub("", text))


def without_addresses(text: str) -> str:
    """Return a text with ``(address)`` for each e-mail address. It takes time in proportion to its length."""
    if "@" not in text and "40" not in text and "64;" not in text and not _AT.search(text):
        return text
    parts: list[str] = []
    done = 0  # up to here the text is in the parts
    for at in _AT.finditer(text):
        if at.start() < done:
            continue
        begin = _begin(text, at.start(), done)
        domain = _DOMAIN.match(text, at.end())
        if begin == at.start() or domain is None or _is_node(text[begin : at.start()], domain[0]):
            continue
        parts += text[done:begin], ADDRESS
        done = domain.end()
    return "".join([*parts, text[done:]]) if parts else text


def _begin(text: str, at: int, least: int) -> int:
    """Return where the part of an address before its at-sign begins."""
    least = max(least, at - _LONGEST_LOCAL)
    if text.endswith(f"://{confidential.MASK}", least, at):
        return at  # a URL, whose host is worth knowing
    begin = at
    if text.endswith('"', least, at):
        begin = max(text.rfind('"', least, at - 1), least)
    while begin > least and _LOCAL.match(text, begin - 1):
        begin -= 1
    return begin


def _is_node(local: str, domain: str) -> bool:
    own = f"{local}@{domain}" in _nodes
    return own or local.casefold() == _NODE or domain.casefold() == _HERE


def remember_node(name: str) -> None:
    """Add a name of this process, such as ``w1@tours``, to what is no address."""
    _nodes.add(name)


def _key(name: object) -> object:
    return name if isinstance(name, _PLAIN) else redacted_text(str(name))


def _represented(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a line must come out, whatever is in it
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
