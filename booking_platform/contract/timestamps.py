"""The time of an event: ISO 8601 as producers in many languages write it."""

import re
from datetime import UTC, datetime, timedelta

from booking_platform.contract.refusals import InvalidEvent, shown

MAX_AHEAD = timedelta(days=1)  # a producer's clock or time zone may be wrong by this much

# What RFC 3339 allows and Python does not read: a lower-case z, the 60th second. Java's
# ZonedDateTime adds the name of the zone to the offset, which says all that is needed, and leaves out
# seconds that are 0.
_LENIENT = re.compile(
    r"(?P<minute>\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d)(?::(?P<second>[0-5]\d|60)(?P<fraction>[.,]\d+)?)?"
    r"(?:(?P<offset>[Zz]|[+-]\d\d:?\d\d)(?:\[[A-Za-z0-9_+/:-]{1,64}\])?)?",
    re.ASCII,
)


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a timestamp means, in UTC; without a zone it is UTC.

    Digits after the microseconds are dropped. A 60th second is the first of the next minute.

    Raises:
        InvalidEvent: it is no such text, before the year 1, or more than a day in the future.
    """
    try:
        found = _read(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        if found - now <= MAX_AHEAD:
            return found.astimezone(UTC)
    except ValueError:
        raise InvalidEvent(
            f"timestamp is {shown(text)}: expected ISO 8601, such as 2026-11-22T10:00:00Z"
        ) from None
    except OverflowError:
        raise InvalidEvent(f"timestamp is {shown(text)}: before the year 1 or after 9999") from None
    raise InvalidEvent(f"timestamp is {shown(text)}: more than a day in the future")


def _read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("\0", "?"))  # it would stop at a NUL
    except ValueError:
        match = _LENIENT.fullmatch(text)
        if match is None:
            raise
    offset = (match["offset"] or "").upper()
    if match["second"] == "60":
        return datetime.fromisoformat(f"{match['minute']}:59{offset}") + timedelta(seconds=1)
    return datetime.fromisoformat(
        f"{match['minute']}:{match['second'] or '00'}{match['fraction'] or ''}{offset}"
    )
