"""The database that a URL names, as Django's setting ``DATABASES`` wants it."""

from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from booking_platform.postgresql.parameters import LIMITS, from_options

_POSTGRESQL = {
    "connect_timeout": 5,
    # A group's statements are always the same ones: let the server plan them once.
    "server_side_binding": True,
    "prepare_threshold": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SQLITE = {
    # IMMEDIATE: take the write lock first, so that a transaction never fails half way; 30 s:
    # shorter waits starve when several processes write.
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    "init_command": "PRAGMA journal_mode=WAL",
}


def from_url(url: str) -> dict[str, Any]:
    """Return the entry of ``DATABASES`` for a URL; what its query names goes before what is ours.

    Raises:
        ImproperlyConfigured: the URL can't be read, names neither PostgreSQL nor SQLite, or has an option
            with which the platform can't work.
    """
    try:
        # A kept connection is looked at before each task or request, so it survives a restart.
        entry = dict(dj_database_url.parse(url, conn_max_age=None, conn_health_checks=True))
    except (dj_database_url.UnknownSchemeError, dj_database_url.ParseError, ValueError):
        raise ImproperlyConfigured(
            "DATABASE_URL can't be read: set it to postgres://user:password@host:5432/name "
            "or sqlite:////absolute/path."
        ) from None
    options: dict[str, Any] = entry.get("OPTIONS", {})  # type: ignore[assignment]
    if entry["ENGINE"] == "django.db.backends.postgresql":
        return entry | {"ENGINE": "booking_platform.postgresql", "OPTIONS": _postgresql(options)}
    if entry["ENGINE"] == "django.db.backends.sqlite3":
        return entry | {"OPTIONS": _SQLITE | options}
    raise ImproperlyConfigured("DATABASE_URL must name PostgreSQL (postgres://) or SQLite.")


def _postgresql(options: dict[str, Any]) -> dict[str, Any]:
    given = options.get("options", "")
    words = " ".join(map(str, given)) if isinstance(given, list) else str(given)
    named, at_start = from_options(words)
    merged = _POSTGRESQL | options | {"parameters": LIMITS | named, "options": at_start}
    if merged["server_side_binding"] is not True:  # else psycopg writes what it is given as text
        raise ImproperlyConfigured(
            "DATABASE_URL turns server_side_binding off, and rows travel to PostgreSQL in binary: leave it out."
        )
    if merged["prepare_threshold"] == "none":  # for a pooler that can't be told from the server
        merged["prepare_threshold"] = None
    return merged if at_start else {name: merged[name] for name in merged if name != "options"}
