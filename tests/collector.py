"""A collector of spans on loopback: OTLP over HTTP, as a worker under test sends it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received(NamedTuple):
    """One span, as it came."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    failed: bool
    service: str


INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = range(1, 6)  # of OTLP's SpanKind


class Collector:
    """What came so far. ``answer`` is called before each answer, and returns its status."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.requests = 0
        self.raw = b""
        self.answer: Callable[[], int] = lambda: 200
        self.url = ""

    def of_kind(self, kind: int, name: str = "") -> list[Received]:
        """Return the spans of a kind whose names begin in some way."""
        return [each for each in self.spans if each.kind == kind and each.name.startswith(name)]

    def take(self, content: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(content)
        self.raw += content
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [_received(span, service) for span in scope.spans]


@contextmanager
def running() -> Iterator[Collector]:
    """Run a collector on a free port for as long as a block runs."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests += 1
            status = collector.answer()
            if status == 200 and self.path == "/v1/traces":
                collector.take(content)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _received(span: Any, service: str) -> Received:
    return Received(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        attributes=_values(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == 2,  # OTLP's STATUS_CODE_ERROR
        service=service,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
