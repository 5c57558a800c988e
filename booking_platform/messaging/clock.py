"""The one clock that the platform keeps time by: the database's.

Workers, beat and web processes run on several machines, whose clocks differ: by seconds, or by days
where one was set wrongly. So no time is stored or compared that is not the database's, which all of
them share. It is asked for once a minute with one small statement, and carried on in between with
``ticks``, which nobody sets. SQLite has no clock of its own, and one machine.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db import Error, connection
from django.db.backends.signals import connection_created
from django.utils import timezone

MEASURED_EVERY = 60.0  # seconds, in which two machines drift apart by a few milliseconds
ASKED_AGAIN = 5.0  # seconds after the database did not answer

# Linux can count on while the machine sleeps, as the database's machine does.
_steady: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


class _Measurement(NamedTuple):
    """What the database's clock said."""

    moment: datetime
    at: float  # by ticks
    until: float  # by ticks: when to measure anew
    pid: int


_known: _Measurement | None = None


def ticks() -> float:
    """Return seconds that only grow and that nobody sets, for spans of time within this process."""
    return _steady()


def now() -> datetime:
    """Return the time by the database's clock.

    The statement that asks for it is not one of the work at hand. While the database is away, or a
    transaction is open, the last measurement of this process is carried on.

    Raises:
        django.db.Error: the database is away, and this process has never measured its clock.
    """
    if connection.vendor == "sqlite":
        return timezone.now()  # noqa: TID251  # the one place
    known = _known if _known is not None and _known.pid == os.getpid() else None
    if known is None or (known.until <= ticks() and not connection.in_atomic_block):
        known = _measure_again(known)
    return known.moment + timedelta(seconds=ticks() - known.at)


def _measure_again(known: _Measurement | None) -> _Measurement:
    global _known  # noqa: PLW0603  # one for all threads
    try:
        _known = _measure()
    except Error:
        if known is None:
            raise
        _known = known._replace(until=ticks() + ASKED_AGAIN)
    return _known


def _measure() -> _Measurement:
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    asked = ticks()
    # Past Django's cursor, which keeps the statements of the work at hand.
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        [epoch] = cursor.fetchone()
    at = (asked + ticks()) / 2
    return _Measurement(
        datetime.fromtimestamp(float(epoch), UTC), at, at + MEASURED_EVERY, os.getpid()
    )


def _doubt(**_: Any) -> None:
    """Schedule a new measurement of the clock: a new connection may lead to another server."""
    global _known  # noqa: PLW0603
    if _known is not None:
        _known = _known._replace(until=0.0)


connection_created.connect(_doubt)
