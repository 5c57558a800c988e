"""Typed readers of environment variables.

Each refuses a wrong value at start, in a sentence that names the variable, the
value and what to write instead.
"""

import os
from collections.abc import Collection

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    """Read a string; a variable set to nothing counts as not set."""
    return os.environ.get(name, "").strip() or default


def choice(name: str, options: Collection[str], default: str) -> str:
    value = text(name, default)
    if value not in options:
        raise ImproperlyConfigured(f"{name} is {value!r}: set it to one of {', '.join(options)}.")
    return value


def integer(name: str, default: int, *, minimum: int = 0, maximum: int = 10**9 - 1) -> int:
    return int(_number(name, default, minimum, maximum, whole=True))


def seconds(name: str, default: float, *, minimum: float = 0.0) -> float:
    return _number(name, default, minimum, 10**9 - 1, whole=False)


def _number(name: str, default: float, minimum: float, maximum: float, *, whole: bool) -> float:
    raw = text(name, str(default))
    wanted = f"a {'whole ' if whole else ''}number, {minimum:g} or more"
    try:
        value = int(raw) if whole else float(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {raw!r}: set it to {wanted}.") from None
    if not minimum <= value <= maximum:
        raise ImproperlyConfigured(f"{name} is {raw!r}: set it to {wanted}, at most {maximum:,}.")
    return value


def required(name: str, purpose: str) -> str:
    """Read a string without which the process must not start.

    Raises:
        ImproperlyConfigured: the variable is not set; the message says what it is for.
    """
    value = text(name)
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set, and nothing falls back in production: {purpose}."
        )
    return value
