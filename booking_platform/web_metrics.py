"""What the web process counts and shows to Prometheus. No request fails because of it."""

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from django.conf import settings
from django.db import Error, connection, transaction
from django.http import HttpRequest, HttpResponse
from django_prometheus.middleware import PrometheusAfterMiddleware, PrometheusBeforeMiddleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from booking_platform.messaging import clock, heartbeats, outbox
from booking_platform.messaging.metric_page import page
from booking_platform.messaging.telling import safely
from booking_platform.operations.audits import FIGURES
from booking_platform.operations.gauges import GAUGES
from booking_platform.operations.models import AuditRun

log = structlog.get_logger(__name__)

QUICK_SECONDS = 1.0  # what takes no longer is read anew for everybody who asks
REST = 20  # times as long as it took, what took longer is not read again
LONGEST_REST = 30.0  # seconds


class Before(PrometheusBeforeMiddleware):
    """Counts requests and their time, with all other middleware included. No error of it gets out."""

    def process_request(self, request: HttpRequest) -> None:
        safely(super().process_request, request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        safely(super().process_response, request, response)
        return response


class After(PrometheusAfterMiddleware):
    """Counts requests by view, method and status. No error of it gets out."""

    def process_request(self, request: HttpRequest) -> None:
        safely(super().process_request, request)

    def process_view(self, request: HttpRequest, *view: Any) -> None:
        safely(super().process_view, request, *view)

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        safely(super().process_template_response, request, response)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        safely(super().process_exception, request, exception)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        safely(super().process_response, request, response)
        return response


def show(_request: HttpRequest) -> HttpResponse:
    """Return the metrics of all processes of this machine, without those that can't be read."""
    text = page(settings.METRICS_DIR) + STATE()
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


class Waiting(Collector):
    """What waits in the outbox, as the database has it when it is asked."""

    def collect(self) -> Iterable[Metric]:
        announcements, seconds = outbox.backlog()
        yield GaugeMetricFamily(
            "outbox_announcements_waiting", "Announcements not published yet.", announcements
        )
        yield GaugeMetricFamily(
            "outbox_oldest_waiting_seconds", "Age of the oldest of them; 0: none waits.", seconds
        )


class Figures(Collector):
    """What the audits count for information, as the database has it when it is asked."""

    def collect(self) -> Iterable[Metric]:
        for figures in FIGURES:
            for figure in figures():
                yield GaugeMetricFamily(figure.name, f"{figure.words.capitalize()}.", figure.value)


class ByLabel(Collector):
    """What the apps and the kernel show by the values of labels, as the database has it when it is asked."""

    def collect(self) -> Iterable[Metric]:
        for gauge in GAUGES.values():
            shown = GaugeMetricFamily(gauge.name, gauge.words, labels=gauge.labels)
            for labels, value in gauge.read().items():
                shown.add_metric(labels, value)
            yield shown


class Audited(Collector):
    """What the last audit came to; nothing before the first one."""

    def collect(self) -> Iterable[Metric]:
        run = AuditRun.newest()
        if run is None:
            return
        found = GaugeMetricFamily(
            "audit_findings", "What broke a promise, at the last audit.", labels=["audit"]
        )
        incomplete = GaugeMetricFamily(
            "audit_incomplete", "Whether it could not look at all there is.", labels=["audit"]
        )
        for name, result in run.results.items():
            found.add_metric([name], result["found"])
            incomplete.add_metric([name], bool(result["incomplete"]))
        yield from (found, incomplete)
        yield GaugeMetricFamily(
            "audit_finished_timestamp_seconds",
            "When the last audit ended.",
            run.finished_at.timestamp(),
        )


class Served(Collector):
    """When each task queue was last served by a worker, as the database has it when it is asked."""

    def collect(self) -> Iterable[Metric]:
        served = GaugeMetricFamily(
            "task_queue_served_timestamp_seconds",
            "When a worker last answered beat on this queue; 0: never.",
            labels=["queue"],
        )
        for queue, seen in heartbeats.last_seen().items():
            served.add_metric([queue], seen.timestamp() if seen else 0)
        yield served


class Kept:
    """What a function returns, called by one thread at a time; for a while the last, where it took long.

    However many ask, and however often, the database is not at work on it all the time.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._last = b""
        self._until = self._begun = 0.0  # by ticks

    def __call__(self) -> bytes:
        asked = clock.ticks()
        with self._lock:
            if asked >= self._until and asked >= self._begun:  # or another has read it meanwhile
                self._begun = clock.ticks()
                self._last = self._read()
                took = clock.ticks() - self._begun
                self._until = (
                    clock.ticks() + min(REST * took, LONGEST_REST) if took > QUICK_SECONDS else 0.0
                )
            return self._last

    def forget(self) -> None:
        """Read it anew when somebody asks."""
        self._until = 0.0


def _bounded() -> AbstractContextManager[None]:
    """Return a transaction, which bounds its statements; on SQLite none, where it would be the one writer."""
    return nullcontext() if connection.vendor == "sqlite" else transaction.atomic()


def _state() -> bytes:
    """Return what the database knows; nothing while it is away."""
    registry = CollectorRegistry()
    try:
        with _bounded():
            for collector in (Waiting(), Figures(), ByLabel(), Audited(), Served()):
                registry.register(collector)
            return generate_latest(registry)
    except Error as error:
        log.warning("What waits in the database can't be counted now", error=repr(error))
        return b""


STATE = Kept(_state)
