"""What the events of a consumer did, by hour and outcome, each figure with the events behind it."""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.utils.timezone import localtime

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import tallies
from booking_platform.operations.dashboard import (
    Level,
    Look,
    Number,
    Panel,
    Series,
    list_url,
    stamp,
)

# Beat counts each minute when it has been over for two; one run may be missed.
BEHIND = tallies.MINUTE + tallies.LATE + timedelta(seconds=2 * tallies.EVERY_SECONDS)


def by_hour(
    look: Look, queue: str, *, good: Collection[str] = (), attention: Collection[str] = ()
) -> Panel:
    """Return a panel of what a consumer has done with its events in the hours that are shown.

    The outcomes come in the order in which the consumer has them; ``good`` and ``attention`` name some.
    """
    counts = look.counts.of(tallies.OUTCOMES, queue)
    known = CONSUMERS[queue].outcomes
    words = dict.fromkeys(word for word in (*known, *sorted({word for word, _ in counts})))
    series, numbers = [], []
    for word in words:
        values = [counts.get((word, hour), 0) for hour in look.hours]
        level: Level = "good" if word in good else "attention" if word in attention else ""
        name = word.replace("_", " ")
        if any(values):
            urls = [_events(queue, word, hour, hour + tallies.HOUR) for hour in look.hours]
            series.append(Series(name=name, values=values, urls=urls, level=level))
        if any(values) or word in good:
            url = _events(queue, word, look.since)
            numbers.append(
                Number(
                    label=name, value=sum(values), url=url, note=known.get(word, ""), level=level
                )
            )
    return Panel(note=counted(look), numbers=numbers, series=series)


def counted(look: Look) -> str:
    """Return up to when the figures are counted, in a sentence."""
    until = look.counted_until
    if look.counts.complete:
        late = until is not None and look.now - until > BEHIND
        if until is None or late:
            return (
                "All events are counted, now: beat, which counts them in advance, has not done so."
            )
        return f"Counted in advance up to {localtime(until):%H:%M}, and now from there on."
    since = f"since {localtime(until):%Y-%m-%d %H:%M}" if until else "ever"
    return (
        f"Not complete: beat has not counted {since}, and more has happened than can be counted now. "
        "Is beat running, and a worker of the queue maintenance?"
    )


def _events(queue: str, outcome: str, since: datetime, until: datetime | None = None) -> str:
    times = {"processed_at__gte": stamp(since)}
    if until is not None:
        times["processed_at__lt"] = stamp(until)
    return list_url(ProcessedEvent, consumer=queue, outcome=outcome, **times)
