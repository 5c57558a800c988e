"""Sets the clock of a Python process ahead: with this folder in PYTHONPATH, by CLOCK_AHEAD seconds.

Only the time of day is changed, as on a machine whose clock is wrong; monotonic clocks are not.
"""

import copyreg
import datetime as dt
import os
import time
from typing import Any

AHEAD = float(os.environ.get("CLOCK_AHEAD", "0"))

_time, _by = time.time, dt.timedelta(seconds=AHEAD)
_datetime: Any = dt.datetime


class _Class(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _datetime)


class _Ahead(_datetime, metaclass=_Class):
    """Makes ordinary datetimes; only what time it is differs."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _datetime.now(tz) + _by

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.now(dt.UTC).replace(tzinfo=None) + _by


def _inherited(name: str) -> Any:
    return classmethod(lambda _cls, *args, **kwargs: getattr(_datetime, name)(*args, **kwargs))


def _pickled(moment: Any) -> tuple[Any, ...]:
    """Return how a datetime is made again: pickle does not find its class under its name any more."""
    return _Ahead, (*moment.timetuple()[:6], moment.microsecond, moment.tzinfo)


if AHEAD:
    copyreg.pickle(_datetime, _pickled)
    for name in ("fromisoformat", "fromtimestamp", "utcfromtimestamp", "strptime", "combine"):
        setattr(_Ahead, name, _inherited(name))
    time.time = lambda: _time() + AHEAD
    time.time_ns = lambda: int((_time() + AHEAD) * 1e9)
    dt.datetime = _Ahead  # type: ignore[misc]
