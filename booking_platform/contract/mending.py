r"""Halves of characters: an escape such as \ud83d without its pair, or bytes that are no UTF-8.

A text that was cut in the middle of an emoji ends in one. The rest of the event is as good as ever.
"""

import re
from typing import NamedTuple

_HALF = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|(?P<nul>\\u0000)"
    r"|(?P<other>\\[^\udc80-\udcff])"
    r"|(?P<bytes>[\udc80-\udcff]+)",  # how Python decodes what is no UTF-8
    re.DOTALL,
)
_NUL = r"\u0000"


class Mended(NamedTuple):
    """A body in which every character is whole, in two forms."""

    shown: bytes  # with U+FFFD for each half
    exact: bytes  # with a sequence of its own for each half: different texts stay different


def mend(body: bytes) -> Mended | None:
    """Return a body with its halves of characters replaced; none where it has no half."""
    text = body.decode(errors="surrogateescape")
    if not any(match["half"] or match["bytes"] for match in _HALF.finditer(text)):
        return None
    return Mended(_HALF.sub(_shown, text).encode(), _HALF.sub(_exact, text).encode())


def _shown(match: re.Match[str]) -> str:
    return "\ufffd" if match["half"] or match["bytes"] else match[0]


def _exact(match: re.Match[str]) -> str:
    """Return NUL and what the half is; NUL itself is doubled, so that neither passes for the other."""
    if match["half"]:
        return _NUL + match["half"][1:].lower()
    if match["bytes"]:
        return "".join(f"{_NUL}x{ord(char) - 0xDC00:02x}" for char in match["bytes"])
    return _NUL * 2 if match["nul"] else match[0]
