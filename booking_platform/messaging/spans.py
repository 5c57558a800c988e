"""OpenTelemetry's spans of groups, events, attempts and what is published. ``tracing`` alone imports this.

They follow https://opentelemetry.io/docs/specs/semconv/messaging/. No attribute holds a body, an address,
or the text of an error. A process makes its own provider when it makes its first span, so that none is
forked; a thread of the provider sends spans off, from a queue that drops what it has no room for.
"""

import atexit
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import structlog
from django.conf import settings
from opentelemetry import context as contexts
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from booking_platform.contract import trace_context
from booking_platform.contract.identity import identify
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.publishing import Outgoing
from booking_platform.redaction import redacted_text

log = structlog.get_logger(__name__)

SERVICE = "booking-platform"  # where OTEL_SERVICE_NAME names none
MOST_EVENTS = 50  # of a group that have a span of their own
MOST_LINKS = 128  # of a span; the SDK keeps no more by default
EXPORT_SECONDS = (
    3.0  # for one request to the collector, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing
)
FLUSH_SECONDS = 2.0  # at the end of a process, whether or not the collector answers

# What it says of a collector that is away, for each batch and more: ``_Exporter`` says it once.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class Span:
    """A span that is the current one while a block runs: what is called there can add its own."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span
        self._before: Any = None

    def begin(self) -> None:
        self._before = contexts.attach(otel.set_span_in_context(self._span))

    def end(self, error: BaseException | None) -> None:
        contexts.detach(self._before)
        if error is not None:
            _fail(self._span, type(error).__name__)
        self._span.end()


class Group(Span):
    """A group that is processed. It belongs to no trace of its events, and is linked to each.

    An event's span is in the trace that the event has brought, else in that of the group.
    """

    def __init__(self, queue: str, routing_key: str, deliveries: Sequence[Delivery]) -> None:
        self._attributes = _processing(queue, routing_key)
        self._name = f"process {self._attributes['messaging.destination.name']}"
        super().__init__(
            _tracer().start_span(
                self._name,
                Context(),
                SpanKind.CONSUMER,
                self._attributes | {"messaging.batch.message_count": len(deliveries)},
                _links(delivery.trace for delivery in deliveries),
            )
        )
        self._events: dict[str, otel.Span] = {}  # by the trace that their deliveries name
        self.deliveries = [self._told(delivery) for delivery in deliveries]

    def settle(self, events: Iterable[Any]) -> None:
        """Tell what became of events, of ``tracing.Settled``."""
        for trace, outcome, reason in events:
            span = self._events.pop(trace, None)
            if span is not None:
                span.set_attribute("booking_platform.outcome", outcome)
                if reason:
                    _fail(span, reason)
                span.end()

    def end(self, error: BaseException | None) -> None:
        for span in self._events.values():
            if error is not None:
                _fail(span, type(error).__name__)
            span.end()
        self._events.clear()
        super().end(error)

    def _told(self, delivery: Delivery) -> Delivery:
        """Return a delivery that names its own span, where it has one, as the parent of what follows."""
        trace = delivery.trace or _text(self._span)
        if len(self._events) < MOST_EVENTS:
            event_id, event_type = identify(delivery.body)
            attributes: dict[str, Any] = {
                **self._attributes,
                "messaging.message.id": redacted_text(event_id),
                "messaging.message.body.size": delivery.size or len(delivery.body),
                "booking_platform.event_type": redacted_text(event_type),
            }
            span = _tracer().start_span(self._name, _remote(trace), SpanKind.CONSUMER, attributes)
            state = trace_context.state(trace)
            trace = f"{_text(span)} {state}" if state else _text(span)
            if span.is_recording():
                self._events[trace] = span
        return delivery._replace(trace=trace)


class Sending(Span):
    """Messages that are published in one go, linked to the traces that they belong to."""

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        attributes: dict[str, Any] = {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": settings.EVENTS_EXCHANGE,
            "messaging.batch.message_count": len(messages),
        }
        links = _links(message.trace for message in messages)
        name = f"send {settings.EVENTS_EXCHANGE}"
        super().__init__(
            _tracer().start_span(name, Context(), SpanKind.PRODUCER, attributes, links)
        )


class Attempt(Span):
    """An attempt at a call to the world outside."""

    def __init__(self, what: str, trace: str, number: int) -> None:
        attributes = {"booking_platform.attempt": number}
        super().__init__(
            _tracer().start_span(f"attempt {what}", _remote(trace), SpanKind.CLIENT, attributes)
        )

    def conclude(self, *, again: bool) -> None:
        self._span.set_attribute("booking_platform.again", again)


class _Exporter(SpanExporter):
    """Sends spans to the collector. That it can't is said once, until it can again."""

    def __init__(self) -> None:
        named = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        timeout = None if any(map(os.environ.get, named)) else EXPORT_SECONDS
        self._exporter = OTLPSpanExporter(timeout=timeout)
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        failing = result is not SpanExportResult.SUCCESS
        if failing != self._failing:
            self._failing = failing
            if failing:
                log.warning("Spans can't be sent to the collector: they are lost until they can")
            else:
                log.info("Spans are sent to the collector again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def flush() -> None:
    """Send off the spans of this process; give up after seconds. Later ones are not sent."""
    if _here.provider is None:
        return
    sending = threading.Thread(target=_shut_down, name="last-spans", daemon=True)
    sending.start()
    sending.join(FLUSH_SECONDS)


def _shut_down() -> None:
    if _here.provider is not None:
        _here.provider.shutdown()


class _Process:
    """What makes the spans of this process, made when the first one is."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self._tracer: otel.Tracer | None = None
        self._lock = threading.Lock()  # a group and the relay's thread may begin together

    def tracer(self) -> otel.Tracer:
        with self._lock:
            if self._tracer is None:
                self.provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
                self.provider.add_span_processor(BatchSpanProcessor(_Exporter()))
                self._tracer = self.provider.get_tracer("booking_platform")
                # Processes of a pool end without it: booking_platform/celery.py.
                atexit.register(flush)
            return self._tracer


_here = _Process()


def _begin_anew() -> None:
    """Forget what belongs to the process that this one was forked from."""
    global _here  # noqa: PLW0603
    _here = _Process()


def _tracer() -> otel.Tracer:
    return _here.tracer()


def _resource() -> Resource:
    named = Resource.create()
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": SERVICE}))
    return named


os.register_at_fork(after_in_child=_begin_anew)


def _processing(queue: str, routing_key: str) -> dict[str, Any]:
    """Return the attributes of what is processed; the destination is named as RabbitMQ's conventions do."""
    parts = [settings.EVENTS_EXCHANGE, routing_key, queue] if routing_key else [queue]
    attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": ":".join(parts),
    }
    if routing_key:
        attributes["messaging.rabbitmq.destination.routing_key"] = routing_key
    return attributes


def _links(traces: Iterable[str]) -> list[Link]:
    def distinct() -> Iterator[str]:
        yield from dict.fromkeys(trace for trace in traces if trace)

    return [Link(_context(trace)) for trace, _ in zip(distinct(), range(MOST_LINKS), strict=False)]


def _remote(trace: str) -> Context:
    """Return the context of a trace as the parent of a span; of none: the span begins a trace."""
    if not trace:
        return Context()
    return otel.set_span_in_context(NonRecordingSpan(_context(trace)), Context())


def _context(trace: str) -> SpanContext:
    _, trace_id, parent_id, flags = trace_context.parent(trace).split("-")
    state = trace_context.state(trace)
    return SpanContext(
        int(trace_id, 16),
        int(parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([state]) if state else None,
    )


def _text(span: otel.Span) -> str:
    """Return the traceparent that names a span as the parent."""
    made = span.get_span_context()
    return f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}"


def _fail(span: otel.Span, error_type: str) -> None:
    """Mark a span as failed; the texts of errors may hold what no span may."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))
