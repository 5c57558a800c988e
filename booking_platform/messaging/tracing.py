"""Where the work is told of in OpenTelemetry's spans, if the environment asks for them.

Without that ``spans`` is not imported, nor is OpenTelemetry. Spans only tell: no error of theirs changes
the work, and what sends them off runs beside it.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings

from booking_platform.logs import Once
from booking_platform.messaging.groups import Delivery, traced
from booking_platform.messaging.publishing import Outgoing
from booking_platform.messaging.telling import safely

if TYPE_CHECKING:
    from booking_platform.messaging import spans

log = structlog.get_logger(__name__)

_said = Once()

T = TypeVar("T")
S = TypeVar("S", bound="spans.Span")


class Settled(NamedTuple):
    """What became of one event of a group."""

    trace: str
    outcome: str
    reason: str = ""  # why it is parked


class Told(Generic[S]):
    """A block of work that is told of in a span; in none where nobody asks, or none could be made."""

    def __init__(self, span: S | None = None) -> None:
        self._span = span

    def __enter__(self) -> Self:
        if (span := self._span) is not None:
            _tried(span.begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if (span := self._span) is not None:
            safely(span.end, error)


class ToldGroup(Told["spans.Group"]):
    """A group, whose deliveries name the traces that what they cause is to carry."""

    def __init__(self, deliveries: Sequence[Delivery], span: "spans.Group | None" = None) -> None:
        super().__init__(span)
        self.deliveries = span.deliveries if span else deliveries

    def settle(self, events: Callable[[], Iterable[Settled]]) -> None:
        """Tell what became of some of the events, which is asked for only where it is told."""
        if (span := self._span) is not None:
            safely(lambda: span.settle(events()))


class ToldAttempt(Told["spans.Attempt"]):
    """An attempt at a call to the world outside."""

    def conclude(self, *, again: bool) -> None:
        """Tell whether there is to be another."""
        if (span := self._span) is not None:
            safely(lambda: span.conclude(again=again))


def group(queue: str, routing_key: str, deliveries: Sequence[Delivery]) -> ToldGroup:
    """Return a group to work on. Each delivery has the trace that its headers or its body name.

    Where spans are made, each of a bounded number has the one of its own span in that trace instead.
    """
    deliveries = [traced(delivery) for delivery in deliveries]
    if not settings.SPANS:
        return ToldGroup(deliveries)
    return ToldGroup(deliveries, _made(lambda of: of.Group(queue, routing_key, deliveries)))


def sending(messages: Sequence[Outgoing]) -> "Told[spans.Sending]":
    """Return the block in which messages are published in one go, told of where spans are made."""
    return Told(_made(lambda of: of.Sending(messages)) if settings.SPANS else None)


def attempt(what: str, trace: str, number: int) -> ToldAttempt:
    """Return the block of an attempt at a call to the world outside, for an event of this trace."""
    return ToldAttempt(
        _made(lambda of: of.Attempt(what, trace, number)) if settings.SPANS else None
    )


def flush() -> None:
    """Send off the spans of this process, if it has made any; give up after seconds."""
    made = sys.modules.get("booking_platform.messaging.spans")
    if made is not None:
        safely(made.flush)


def _made(make: Callable[..., T]) -> T | None:
    """Return a span; none where it can't be made."""

    def of_spans() -> T:
        from booking_platform.messaging import spans

        return make(spans)

    return _tried(of_spans)


def _tried(tell: Callable[[], T]) -> T | None:
    """Return what a function returns, none for an error; the worker's time limit may still end the work."""
    try:
        return tell()
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        if _said.is_new(error):
            log.exception("Spans can't be made; the work goes on, and this is said once")
        return None
