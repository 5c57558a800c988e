"""Typed readers of environment variables.

Each refuses a wrong value at start, in a sentence that names the variable, the
value and what to write instead.
"""

import os
import re
import tempfile
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from email_validator import EmailNotValidError, validate_email

from booking_platform import confidential
from booking_platform.money import CURRENCIES

PROBE_BYTES = 64 * 1024  # written to a folder to see that its disk has room
# Of Django's check security.W009, which only warns, and only where somebody asks for it.
SHORTEST_KEY, FEWEST_CHARACTERS, GENERATED = 50, 5, "django-insecure-"


def text(name: str, default: str = "") -> str:
    """Return a string; a variable set to nothing counts as not set."""
    return os.environ.get(name, "").strip() or default


def secret(name: str, development: str = "", *, shortest: int = 0) -> confidential.Text:
    """Return a string that no report and no traceback shows, with its default in development.

    Raises:
        ImproperlyConfigured: the default, which everybody knows, is set in production, or it has fewer
            characters than ``shortest``.
    """
    value = text(name, "" if production() else development)
    if development and value == development and production():
        raise ImproperlyConfigured(
            f"{name} is the one of development, which everybody knows: set it to one of your own."
        )
    if value and len(value) < shortest:
        raise ImproperlyConfigured(
            f"{name} has {len(value)} characters: set it to {shortest} or more random ones."
        )
    return confidential.Text(value)


def signing_key(name: str, default: str) -> confidential.Text:
    """Return the key that signs sessions. In production nobody can guess it.

    Raises:
        ImproperlyConfigured: it is missing, or so short or simple that it can be guessed.
    """
    if not production():
        return secret(name, default)
    key = required(name, "set it to a long random text that signs the sessions")
    unguessable = len(key) >= SHORTEST_KEY and len(set(key)) >= FEWEST_CHARACTERS
    if not unguessable or key.startswith(GENERATED):
        raise ImproperlyConfigured(
            f"{name} can be guessed: set it to {SHORTEST_KEY} or more random characters, as `python -c "
            "'import secrets; print(secrets.token_urlsafe(60))'` prints them."
        )
    return confidential.Text(key)


def production() -> bool:
    """Return whether this is a production environment, in which nothing falls back."""
    return choice("DJANGO_ENV", ("development", "production"), "development") == "production"


def choice(name: str, options: Collection[str], default: str) -> str:
    value = text(name, default)
    if value not in options:
        raise ImproperlyConfigured(f"{name} is {value!r}: set it to one of {', '.join(options)}.")
    return value


def switch(name: str) -> bool:
    """Return whether something is asked for that is off by default."""
    return choice(name, ("true", "false", "1", "0"), "false") in ("true", "1")


def integer(name: str, default: int, *, minimum: int = 0, maximum: int = 10**9 - 1) -> int:
    return int(_number(name, default, minimum, maximum, whole=True))


def seconds(name: str, default: float, *, minimum: float = 0.0) -> float:
    return _number(name, default, minimum, 10**9 - 1, whole=False)


def amounts(name: str) -> dict[str, int]:
    """Return amounts in minor units by currency, as in ``eur:50000,jpy:80000``.

    Raises:
        ImproperlyConfigured: that is not what is written there, or Stripe has no such currency.
    """
    found: dict[str, int] = {}
    for item in filter(None, map(str.strip, text(name).split(","))):
        currency, _, units = (part.strip() for part in item.lower().partition(":"))
        if currency not in CURRENCIES or not re.fullmatch("[0-9]{1,12}", units):
            raise ImproperlyConfigured(
                f"{name} has {item!r}: set it to amounts in minor units by currency, such as "
                "eur:50000,jpy:80000."
            )
        if currency in found:
            raise ImproperlyConfigured(f"{name} names {currency} twice: name each currency once.")
        found[currency] = int(units)
    return found


def days(name: str, default: int, *, minimum: int = 0) -> timedelta:
    """Return a number of whole days, a century at most."""
    return timedelta(days=integer(name, default, minimum=minimum, maximum=36_500))


def sender(name: str, default: str) -> str:
    """Return one e-mail address, which may have a name before it."""
    value = text(name, default)
    plainly_named = re.fullmatch(r'[^\x00-\x1f<>@,:;\\"()\[\]]*<([^<>]*)>', value)
    address = plainly_named[1] if plainly_named else value  # names in all scripts, too
    try:
        if value:
            parsed = validate_email(
                address, allow_display_name=True, check_deliverability=False, test_environment=True
            )
            if not parsed.local_part.isascii() or "=?" in value:
                raise EmailNotValidError("the part before the @-sign is not ASCII")
    except EmailNotValidError as error:
        raise ImproperlyConfigured(
            f"{name} is {value!r} ({str(error).rstrip('.')}): set it to one address, such as "
            "noreply@example.com or Example Tours <noreply@example.com>."
        ) from None
    return value


def spans() -> bool:
    """Return whether spans are asked for, by the variables that OpenTelemetry has for it.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

    Raises:
        ImproperlyConfigured: they are to be exported in a way that the platform has not.
    """
    exporter = text("OTEL_TRACES_EXPORTER").lower()
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    asked = bool(exporter) or any(map(text, endpoints))
    if not asked or exporter == "none" or text("OTEL_SDK_DISABLED").lower() == "true":
        return False
    choice("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        choice(name, ("http/protobuf",), "http/protobuf")
    for name in endpoints:
        if text(name) and not text(name).lower().startswith(("http://", "https://")):
            raise ImproperlyConfigured(
                f"{name} has no http:// or https:// at its beginning: set it to a URL such as "
                "http://localhost:4318."
            )
    return True


def writable_folder(name: str, folder: Path) -> None:
    """Check that files can be written in a folder, which is made if it is not there.

    Raises:
        ImproperlyConfigured: they can't; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".looked-at-") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise ImproperlyConfigured(
            f"{name} is {str(folder)!r}, and no file can be written there ({why}): set it "
            "to a folder with room that this process may write to."
        ) from None


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
    """Return a string without which the process must not start.

    Raises:
        ImproperlyConfigured: the variable is not set; the message says what it is for.
    """
    value = text(name)
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set, and nothing falls back in production: {purpose}."
        )
    return value
