"""``/live`` and ``/ready``: whether this process answers, and whether the platform can work.

They are answered before hosts are checked and requests redirected to HTTPS, as ``/metrics`` is: a probe
asks a process by the address of its pod, without TLS.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

import structlog
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

from booking_platform.messaging import broker, clock, heartbeats
from booking_platform.operations.scraping import may_look

log = structlog.get_logger(__name__)

LIVE, READY = "/live", "/ready"
SECONDS = 4.0  # in which a check answers, or has failed; a probe waits as long for all of them


def no_answer(seconds: float) -> str:
    """Return what is wrong with what does not answer in time."""
    return f"does not answer within {seconds:g} s"


NO_ANSWER = no_answer(SECONDS)

Check = Callable[[], str]  # returns what is wrong; empty: nothing


class Health:
    """Middleware that answers ``/live`` to everybody, and ``/ready`` to whoever may read the metrics.

    The second asks the database and the broker, which nobody from outside should have done at will.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info == LIVE:
            return JsonResponse({"live": True})
        if request.path_info != READY:
            return self._get_response(request)
        if not may_look(request):
            return JsonResponse(
                {"error": "closed to you: METRICS_TOKEN or METRICS_ALLOWED opens it"}, status=403
            )
        return ready(request)


def ready(_request: HttpRequest) -> HttpResponse:
    """Return with status 200 that the platform can work, or with 503 what is wrong."""
    problems = {name: problem for name, problem in problems_of(CHECKS).items() if problem}
    body = {"ready": not problems, "checked": list(CHECKS), "problems": problems}
    return JsonResponse(body, status=503 if problems else 200)


class Probe:
    """A check in a thread of its own, which may hang: as long as it does, it is not begun anew."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._running: _Run | None = None

    def begin(self) -> "_Run":
        """Begin the check, or return the one that has not ended yet."""
        with self._lock:
            if self._running is None or self._running.done.is_set():
                self._running = _Run(self._check)
                threading.Thread(target=self._running, name="health", daemon=True).start()
            return self._running


class _Run:
    """One run of a check."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.done = threading.Event()
        self.problem = NO_ANSWER

    def __call__(self) -> None:
        try:
            self.problem = self._check()
        except Exception as error:
            # Its text may name a host, a user or a password: that is for the log, which hides them.
            log.warning("A health check failed", error=repr(error))
            self.problem = f"fails: {type(error).__name__}"
        finally:
            with suppress(Error):
                connection.close()  # that of this thread
            self.done.set()


def problems_of(checks: dict[str, Probe], seconds: float = SECONDS) -> dict[str, str]:
    """Run checks side by side; return what each found, within so many seconds."""
    runs = {name: probe.begin() for name, probe in checks.items()}
    deadline = time.monotonic() + seconds
    for run in runs.values():
        run.done.wait(max(0.0, deadline - time.monotonic()))
    late = no_answer(seconds)
    return {name: run.problem if run.done.is_set() else late for name, run in runs.items()}


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return ""
    names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in plan)
    return f"not applied: {names}. Run `python manage.py migrate`"


def _broker() -> str:
    opened = broker.connection_to_publish()
    try:
        opened.ensure_connection(max_retries=1, interval_start=0, timeout=broker.BROKER_SECONDS)
    finally:
        opened.release()
    return ""


def _workers() -> str:
    oldest = clock.now() - heartbeats.longest_silence()
    silent = list(_silent(oldest))
    if not silent:
        return ""
    seconds = heartbeats.longest_silence().total_seconds()
    return (
        f"no worker was seen within {seconds:g} s that serves {', '.join(silent)}: is one running with "
        "these in --queues, and beat?"
    )


def _silent(oldest: datetime) -> Iterator[str]:
    for queue, seen in heartbeats.last_seen().items():
        if seen is None or seen < oldest:
            yield queue


CHECKS = {
    "database": Probe(_database),
    "migrations": Probe(_migrations),
    "broker": Probe(_broker),
    "workers": Probe(_workers),
}
