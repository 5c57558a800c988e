"""Secrets that print as ``***``, and texts without the secrets that this process knows.

What Django and Celery print of the settings they print with ``repr``, or leave out by the setting's
name. ``Text`` keeps its value from the first way. The second knows no URL, so the URLs with passwords
are in no setting at all: ``booking_platform.servers`` reads them. ``masked`` is for texts that others
have written, such as log lines and error pages.
"""

import re
from html import escape
from typing import Any
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
SHORTEST = 8  # characters of a secret that is looked for by its value: "guest" is a word, too

# The part of a URL before its host. A password may hold anything but what ends it.
_USERINFO = re.compile(r"(?<=://)[^\s/?#@]*:[^\s/?#]*(?=@)")
_NAMES = re.compile(r"PASS|SECRET|KEY$|TOKEN", re.IGNORECASE)

_known: dict[str, None] = {}  # longest first


class Text(str):
    """A secret. It is the text that it holds for whoever uses it, and ``***`` for whoever prints it.

    ``str()``, formats and JSON show the value: only ``repr`` is used on values that nobody has chosen to
    show, in tracebacks, ``diffsettings`` and ``celery report``.
    """

    __slots__ = ()

    def __new__(cls, value: str = "") -> "Text":
        remember(value)
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return repr(MASK if self else "")


def remember(value: str) -> None:
    """Add a secret to those that ``masked`` looks for, in all the ways in which it may be written."""
    if len(value) >= SHORTEST:
        forms = {value, quote(value, safe=""), quote(value), unquote(value), escape(value)}
        forms |= {repr(form)[1:-1] for form in forms}
        found = sorted({*_known, *forms}, key=len, reverse=True)
        _known.clear()
        _known.update(dict.fromkeys(found))


def remember_url(url: str) -> None:
    """Add the password of a URL, or of each URL of a list with semicolons."""
    for each in url.split(";"):
        try:
            password = urlsplit(each.strip()).password
        except ValueError:  # it will be refused; its sentence repeats nothing of it
            continue
        remember(unquote(password or ""))
        remember(password or "")


def hide(options: dict[str, Any]) -> None:
    """Replace the secrets of nested settings, such as ``DATABASES``, in place."""
    for name, value in options.items():
        if isinstance(value, dict):
            hide(value)
        elif isinstance(value, str) and _NAMES.search(name):
            options[name] = Text(value)


def masked(text: str) -> str:
    """Return a text without the secrets that this process knows, and without passwords in URLs."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, MASK)
    return _USERINFO.sub(MASK, text) if "://" in text and "@" in text else text
