"""``/metrics`` of real workers and of the web process: what is on them, once, and what becomes of a port."""

import re
import socket
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from booking_platform import web_metrics
from booking_platform.contract.envelope import Event
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, LostRace, Result
from booking_platform.operations import auditing
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import cancelled, created, deliveries
from tests.integration.admin_pages import CREATED
from tests.platform import Platform, Worker
from tests.promql import asked, named, rules
from tests.servers import wait_until
from tests.telemetry import metrics_in

OPERATIONS = settings.BASE_DIR / "docs" / "operations.md"
WRITTEN = re.compile(r" (?P<name>\w+)=(?P<value>\S+)")  # in a readable line


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def folder(platform: Platform) -> Path:
    """The folder of the metrics of all processes of this machine."""
    return Path(platform.environment["PROMETHEUS_MULTIPROC_DIR"])


def of_worker(port: int) -> str:
    """Return the page of a worker; empty while there is none."""
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page,
    ):
        return str(page.read().decode())
    return ""


def of_web(folder: Path) -> str:
    """Return the page of a web process that shares a folder with workers."""
    web_metrics.STATE.forget()
    with metrics_in(folder):
        return Client().get("/metrics").content.decode()


def documented() -> set[str]:
    """Return the metrics that the tables of the documentation name."""
    section = OPERATIONS.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[a-z_]+[`{].*?) \|", section, re.MULTILINE)
    names = re.findall(r"`([a-z]\w+)(?:\{[^}]*\})?`", " ".join(cells))
    return {"metric_files_left_out", *names}


def families(page: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))


def total(page: str, name: str) -> float:
    """Return the sum of a metric's samples on a page."""
    samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
    return sum(map(float, samples))


def publish_all_kinds(platform: Platform, tour: Tour, stripe: Sandbox) -> None:
    """Have a booking made, cancelled with its refund and mail, and repeated; and something parked."""
    platform.publish([created(tour.pk, "A")] * 2 + [b"nonsense"])
    platform.wait_for_processed(1)
    wanted: dict[str, Any] = {
        "paymentId": stripe.payment(amount=15_000, currency="eur"),
        "amount": 60,
        "userEmail": "a@example.com",
        "tourName": "Louvre",
    }
    platform.publish([cancelled(tour.pk, "A", seats=2, **wanted)], key="booking.cancelled")
    platform.wait_for(
        lambda: (
            Refund.objects.filter(status="completed").exists()
            and CancellationEmail.objects.filter(state="sent").exists()
        ),
        "the refund and the mail",
    )


def lose_a_race(tour: Tour) -> None:
    """Apply a booking in this process that finds its tour changed at the first attempt."""
    races = iter([LostRace("tour", tour_id=tour.pk)])

    def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
        for race in races:
            raise race
        return CONSUMERS[CREATED].rule(events, lock=lock)

    inbox.process(replace(CONSUMERS[CREATED], rule=rule), deliveries(created(tour.pk, "lost")))


class TestWhatIsOnThem:
    def test_each_rule_and_each_panel_names_metrics_that_are_there(
        self, platform: Platform, tour: Tour, stripe: Sandbox, port: int, tmp_path: Path
    ) -> None:
        platform.start("-c", "2", WORKER_METRICS_PORT=str(port), STRIPE_API_BASE=stripe.url)
        publish_all_kinds(platform, tour, stripe)
        platform.wait_for(
            lambda: total(of_worker(port), "email_attempts_total") > 0, "it counts after the commit"
        )
        with metrics_in(tmp_path / "web"):
            lose_a_race(tour)
            auditing.run()
            Client().get("/admin/login/")
        pages = of_worker(port) + of_web(tmp_path / "web")
        there = set(re.findall(r"^(\w+)[ {]", pages, re.MULTILINE))
        for expression in (*rules(), *asked()):
            assert named(expression)
            assert named(expression) <= there, expression
        others = ("django_", "process_", "made_before_total")  # the last is of tests/telemetry.py
        ours = {name for name in families(pages) if not name.startswith(others)}
        assert ours == documented()

    def test_each_number_is_on_one_page(
        self, platform: Platform, tour: Tour, port: int, folder: Path
    ) -> None:
        platform.start("-c", "2", "-Q", "catalog", WORKER_METRICS_PORT=str(port))
        platform.publish([created(tour.pk, str(number)) for number in range(30)])
        platform.wait_for(lambda: total(of_worker(port), "events_total") == 30, "all are counted")
        worker, web = of_worker(port), of_web(folder)
        assert total(worker, "event_latency_seconds_count") == 30
        assert total(worker, "event_group_size_sum") == 30
        assert total(worker, "worker_pool_places") == 2
        assert "tour-catalog" not in re.sub(r".*(dead_letters|queue_served).*", "", web)

    def test_without_a_port_the_web_process_shows_what_workers_count(
        self, platform: Platform, tour: Tour, folder: Path
    ) -> None:
        platform.start("-c", "1", "-Q", "catalog")
        platform.publish([created(tour.pk, "A")] * 3)
        platform.wait_for(
            lambda: total(of_web(folder), "duplicate_events_total") >= 2, "the duplicates are shown"
        )
        assert total(of_web(folder), "events_total") >= 1


class TestThePort:
    def test_a_second_worker_at_it_says_so_and_works(
        self, platform: Platform, tour: Tour, port: int, folder: Path
    ) -> None:
        first = platform.start("-c", "1", "-Q", "payments", WORKER_METRICS_PORT=str(port))
        second = platform.start("-c", "1", "-Q", "catalog", WORKER_METRICS_PORT=str(port))
        assert second.log.count("No metrics are served at port") == 1
        assert "No metrics are served at port" not in first.log
        platform.publish([created(tour.pk, "A")])
        platform.wait_for(
            lambda: total(of_web(folder), "event_group_size_count") >= 1, "it is counted"
        )
        assert total(of_worker(port), "event_group_size_count") == 0

    def test_it_is_free_again_however_its_worker_ends(
        self, platform: Platform, tour: Tour, port: int
    ) -> None:
        worker = platform.start("-c", "2", "-Q", "catalog", WORKER_METRICS_PORT=str(port))
        platform.publish([created(tour.pk, "A")])
        platform.wait_for(lambda: total(of_worker(port), "events_total") == 1, "it is counted")
        worker.process.kill()  # its pool may live on for a moment
        worker.process.wait()
        again = platform.start("-c", "2", "-Q", "catalog", WORKER_METRICS_PORT=str(port))
        assert total(of_worker(port), "events_total") == 1  # a counter goes on where it was
        assert again.stop() == 0
        with socket.create_server(("127.0.0.1", port)):
            pass


class TestThreads:
    def test_their_worker_shows_and_names_what_it_does(
        self, platform: Platform, tour: Tour, stripe: Sandbox, port: int
    ) -> None:
        worker = platform.start(
            "--pool", "threads", "-c", "2", WORKER_METRICS_PORT=str(port), STRIPE_API_BASE=stripe.url
        )  # fmt: skip
        publish_all_kinds(platform, tour, stripe)
        platform.start_beat(SWEEP_SECONDS="0.2", HEARTBEAT_SECONDS="0.2")
        platform.publish([created(tour.pk, f"B{number}") for number in range(20)])
        platform.wait_for_processed(21, queue=CREATED)
        wait_until(
            lambda: total(of_worker(port), "events_total") == ProcessedEvent.objects.count(),
            seconds=60,
            what="all is counted",
        )
        assert total(of_worker(port), "worker_pool_places") == 2
        assert_no_line_has_another_tasks_ids(worker)


def assert_no_line_has_another_tasks_ids(worker: Worker) -> None:
    """Each task is of one consumer or of none, and a line of a task about one event names that event."""
    lines = [dict(WRITTEN.findall(line)) for line in worker.log.splitlines() if " task_id=" in line]
    consumers: dict[str, set[str]] = {}
    for line in lines:
        consumers.setdefault(line["task_id"], set()).add(line.get("consumer", ""))
    kinds = Counter(len(found - {""}) for found in consumers.values())
    assert kinds[1] >= 3
    assert set(kinds) <= {0, 1}
    applied = [line for line in lines if "reserved" in line or "email_requested" in line]
    assert applied
    for line in applied:
        assert line["consumer"] in CONSUMERS
        assert ("event_id" in line) == (line["events"] == "1")
