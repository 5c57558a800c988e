"""What the web process counts and shows to Prometheus. No request fails because of it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from stat import S_ISREG
from struct import Struct
from typing import Any

import structlog
from django.conf import settings
from django.db import Error, transaction
from django.http import HttpRequest, HttpResponse
from django_prometheus.middleware import PrometheusAfterMiddleware, PrometheusBeforeMiddleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from booking_platform.messaging import heartbeats, outbox
from booking_platform.messaging.telling import safely
from booking_platform.operations.audits import FIGURES
from booking_platform.operations.models import AuditRun

log = structlog.get_logger(__name__)

USED = Struct("i")  # at the beginning of a file: how many bytes of it are used


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


class Shared(Collector):
    """The metrics in the files of all processes, and how many files are left out."""

    def __init__(self, files: Sequence[Path], left_out: int = 0) -> None:
        self._files, self._left_out = files, left_out

    def collect(self) -> Iterable[Metric]:
        yield from MultiProcessCollector.merge(list(map(str, self._files)))  # type: ignore[no-untyped-call]
        yield GaugeMetricFamily(
            "metric_files_left_out",
            "Files of metrics that can't be read; what is in them is missing here.",
            self._left_out,
        )


_said: set[Path] = set()  # of which files it is said that they can't be read


def show(_request: HttpRequest) -> HttpResponse:
    """Return the metrics of all processes of this machine, without those that can't be read."""
    text = page(settings.METRICS_DIR) + _backlog()
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


def page(folder: Path) -> bytes:
    """Return the metrics in a folder as Prometheus reads them. Which files can't be read is said once."""
    there = _there(folder)
    files = [file for file in there if _seems_whole(file)]
    try:
        text = _text(files, len(there) - len(files))
        _said.difference_update(files)
        return text
    except Exception:
        files = [file for file in files if _can_be_shown(file)]
    try:
        return _text(files, len(there) - len(files))
    except Exception as error:  # one has changed meanwhile, or two contradict each other
        log.warning("The files of metrics can't be added up now", error=repr(error))
        return _text([], len(there))


def _there(folder: Path) -> list[Path]:
    try:
        there = sorted(file for file in folder.iterdir() if file.name.endswith(".db"))
    except OSError as error:
        _say_once(folder, error)
        return []
    _said.intersection_update(there)
    return there


def _seems_whole(path: Path) -> bool:
    """Return whether it is a file that is as long as it says; a pipe of that name would be waited for."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ValueError("not a file")
        with path.open("rb") as file:
            [used] = USED.unpack(file.read(USED.size))
        if not 0 <= used <= status.st_size:
            raise ValueError("cut short, or no file of metrics")
    except FileNotFoundError:  # removed meanwhile
        return False
    except Exception as error:
        _say_once(path, error)
        return False
    return True


def _can_be_shown(file: Path) -> bool:
    try:
        _text([file])
    except Exception as error:
        _say_once(file, error)
        return False
    return True


def _say_once(path: Path, error: Exception) -> None:
    if path not in _said:
        _said.add(path)
        log.warning("Metrics can't be read: left out", file=str(path), error=repr(error))


def _text(files: Sequence[Path], left_out: int = 0) -> bytes:
    registry = CollectorRegistry()
    registry.register(Shared(files, left_out))
    return generate_latest(registry)


class Waiting:
    """What waits in the outbox, as the database has it when it is asked."""

    def collect(self) -> Iterable[Metric]:
        with transaction.atomic():  # which bounds its statements
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


def _backlog() -> bytes:
    """Return the metrics of the outbox, the audits and the workers; nothing while the database is away."""
    registry = CollectorRegistry()
    try:
        registry.register(Waiting())
        registry.register(Figures())
        registry.register(Audited())
        registry.register(Served())
        return generate_latest(registry)
    except Error as error:
        log.warning("What waits in the database can't be counted now", error=repr(error))
        return b""
