"""``/metrics`` of a worker: what its main process and its pool count, and how much of the pool is at work.

It is served where ``WORKER_METRICS_PORT`` names a port. The processes of such a worker have a folder of metrics of
their own, which the web process does not show: each number is on one page, and sums count it once.
"""

import os
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOMAXCONN, socket
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import structlog
from celery import bootsteps
from celery.worker import state
from django.conf import settings
from django.http import HttpRequest
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from booking_platform.logs import Once
from booking_platform.messaging import metric_files, metric_merging, metric_page
from booking_platform.messaging.telling import safely
from booking_platform.messaging.worker import places
from booking_platform.operations.scraping import CLOSED, PLACE, may_look

log = structlog.get_logger(__name__)

SECONDS = 5.0  # in which a scraper must send what it asks, and take each part of the answer
AT_ONCE = 8  # requests that are answered; further ones are hung up on

_said = Once()


class WorkerPage(bootsteps.StartStopStep):
    """Listens before the pool is forked, so that its processes count into the worker's own folder.

    A port that can't be had is said in a warning, and the worker goes on: what it counts is on the page
    of the web process then, as without a port.
    """

    requires = (metric_files.MetricsFolder,)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._page: Page | None = None
        address, port = settings.WORKER_METRICS_ADDRESS, settings.WORKER_METRICS_PORT
        if not port:
            return
        try:
            self._page = Page(address, port, parent)
        except OSError as error:
            log.warning(
                f"No metrics are served at port {port} of {address}: is another worker there? Set "
                "WORKER_METRICS_PORT to one of its own for each worker of a machine.",
                error=error.strerror,
            )
            return
        metric_files.move_to(settings.METRICS_DIR / f"worker-{port}")

    def start(self, parent: Any) -> None:
        if self._page is not None:
            self._page.begin()

    def terminate(self, parent: Any) -> None:
        if self._page is not None:
            self._page.end()

    stop = terminate


class Pool(Collector):
    """How much a worker can do at once, and how much it does."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        pool = self._worker.pool
        if pool is None:  # it is not there yet
            return
        most = places(pool, self._worker.autoscaler)
        yield GaugeMetricFamily(
            "worker_pool_places", "Groups and tasks that the worker can do at once.", most
        )
        yield GaugeMetricFamily(
            "worker_pool_busy", "Groups and tasks that it does.", len(state.active_requests)
        )


class Page(ThreadingTCPServer):
    """The HTTP server of the page, in threads of the worker's main process.

    Nobody is asked for the name of an address, as ``http.server`` would do at its start.
    """

    allow_reuse_address = daemon_threads = True
    request_queue_size = SOMAXCONN

    def __init__(self, address: str, port: int, worker: Any) -> None:
        """Listen; nobody is answered before ``begin``.

        Raises:
            OSError: that address and port can't be had.
        """
        self.address_family = AF_INET6 if ip_address(address).version == 6 else AF_INET  # noqa: PLR2004
        self._registry = CollectorRegistry()
        self._registry.register(Pool(worker))
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._reading = (
            threading.Lock()
        )  # files are merged, and must be neither missed nor read twice
        self._begun = False
        super().__init__((address, port), _Handler)
        # Or a pool process that outlives the worker would keep the port.
        os.register_at_fork(after_in_child=self.socket.close)

    def begin(self) -> None:
        """Answer from now on."""
        thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        try:
            thread.start()
            self._begun = True
        except RuntimeError as error:  # no more threads
            log.warning("The worker's metrics are not served: no thread", why=str(error))

    def end(self) -> None:
        """Answer no more."""
        if self._begun:
            self._begun = False
            self.shutdown()
        self.server_close()

    def text(self) -> bytes:
        """Return the page."""
        folder = metric_files.folder()
        with self._reading:
            safely(metric_merging.merge, folder)
            shared = metric_page.page(folder)
        return shared + generate_latest(self._registry)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say once what is no matter of the scraper's, and nothing of one that hangs up."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError) and _said.is_new(error):
            log.error("The worker's metrics could not be shown; this is said once", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS
    request: socket
    server: Page

    def do_GET(self) -> None:
        if urlsplit(self.path).path != PLACE:
            self._answer(404, b"The page is at /metrics.\n")
        elif not may_look(self._asked()):
            self._answer(403, CLOSED.encode())
        else:
            self._answer(200, self.server.text(), CONTENT_TYPE_LATEST)

    def version_string(self) -> str:
        return "booking-platform"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's)
        """Write no line for each scrape."""

    def _asked(self) -> HttpRequest:
        """Return the request as the web process would see it: the same rules hold."""
        request = HttpRequest()
        request.META = {
            f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()
        }
        request.META["REMOTE_ADDR"] = self.client_address[0]
        return request

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
