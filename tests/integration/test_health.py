"""The health endpoints: who may ask, what they say, and how long that takes."""

import ipaddress
import socket
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from booking_platform.messaging import clock, heartbeats, topology
from booking_platform.messaging.models import Heartbeat
from booking_platform.messaging.tasks import heartbeat
from booking_platform.operations import health
from tests.platform import Platform

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _as_in_production(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    settings.SECURE_SSL_REDIRECT = True


@pytest.fixture
def served() -> None:
    """Each task queue was served just now."""
    for queue in topology.task_queues():
        heartbeats.store(queue, "celery@here")


def ready(**meta: Any) -> tuple[int, dict[str, str]]:
    answer = Client(raise_request_exception=False).get("/ready", **meta)
    return answer.status_code, answer.json().get("problems", {})


class TestWhoMayAsk:
    def test_anybody_may_ask_whether_it_lives_under_any_name(self) -> None:
        answer = Client().get("/live", REMOTE_ADDR="192.0.2.1", HTTP_HOST="10.244.1.7:8000")
        assert (answer.status_code, answer.json()) == (200, {"live": True})

    def test_who_may_read_the_metrics_may_ask_whether_it_is_ready(
        self, settings: Any, served: None
    ) -> None:
        settings.METRICS_TOKEN = "a-token-for-the-scraper"
        assert ready(HTTP_HOST="10.244.1.7:8000")[0] == 200
        assert ready(REMOTE_ADDR="192.0.2.1")[0] == 403
        assert (
            ready(REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION=f"Bearer {settings.METRICS_TOKEN}")[0]
            == 200
        )
        settings.METRICS_ALLOWED = [ipaddress.ip_network("192.0.2.0/24")]
        assert ready(REMOTE_ADDR="192.0.2.1")[0] == 200

    def test_it_lives_while_the_database_is_away(self) -> None:
        def away(*_: Any) -> None:
            raise OperationalError("away")

        with connection.execute_wrapper(away):
            assert Client().get("/live").status_code == 200


class TestWhatIsWrong:
    def test_nothing_is(self, served: None) -> None:
        assert ready() == (200, {})

    def test_a_queue_that_no_worker_serves_is_named(self, served: None) -> None:
        past = clock.now() - heartbeats.longest_silence() - timedelta(seconds=1)
        Heartbeat.objects.filter(queue="payments").update(seen_at=past)
        Heartbeat.objects.filter(queue="catalog").delete()
        status, problems = ready()
        assert (status, list(problems)) == (503, ["workers"])
        assert "serves catalog, payments:" in problems["workers"]

    def test_a_migration_that_is_not_applied_is_named(self, served: None) -> None:
        executor = MigrationExecutor(connection)
        [newest] = executor.loader.graph.leaf_nodes("messaging")
        executor.recorder.record_unapplied(*newest)
        try:
            status, problems = ready()
        finally:
            executor.recorder.record_applied(*newest)
        assert status == 503
        assert problems == {
            "migrations": f"not applied: {'.'.join(newest)}. Run `python manage.py migrate`"
        }

    def test_a_broker_that_is_away_is_named_and_its_password_is_not(
        self, served: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "amqp://guest:hush@127.0.0.1:9//")
        answer = Client().get("/ready")
        assert answer.status_code == 503
        assert list(answer.json()["problems"]) == ["broker"]
        assert "hush" not in answer.content.decode()


class TestWhatHangs:
    def test_a_broker_that_is_frozen_holds_up_the_answer_for_seconds(
        self, served: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes connections, as the kernel does for it, and never says a word."""
        with socket.create_server(("127.0.0.1", 0)) as frozen:
            url = f"amqp://guest:guest@127.0.0.1:{frozen.getsockname()[1]}//"
            monkeypatch.setenv("CELERY_BROKER_WRITE_URL", url)
            assert ready() == (503, {"broker": health.NO_ANSWER})
        monkeypatch.undo()
        assert health.CHECKS["broker"].begin().done.wait(60)
        assert ready() == (200, {})

    def test_a_check_that_hangs_holds_nobody_up_and_is_not_begun_again(self) -> None:
        release, begun = threading.Event(), []

        def hangs() -> str:
            begun.append(1)
            release.wait(60)
            return ""

        checks = {"broker": health.Probe(hangs), "database": health.Probe(lambda: "")}
        try:
            for _ in range(2):
                said = health.problems_of(checks, seconds=1.0)
                assert said == {"broker": health.no_answer(1.0), "database": ""}
            assert len(begun) == 1
        finally:
            release.set()
        assert health.problems_of(checks, seconds=30)["broker"] == ""

    def test_what_a_check_raises_is_told_without_its_text(self) -> None:
        def raises() -> str:
            raise OSError("amqp://user:password@host")

        said = health.problems_of({"broker": health.Probe(raises)})
        assert said == {"broker": "fails: OSError"}


class TestHeartbeats:
    def test_a_worker_is_remembered_for_each_queue_and_forgotten_when_it_is_gone(self) -> None:
        heartbeat("catalog")
        heartbeat("catalog")
        heartbeats.store("payments", "celery@gone")
        assert Heartbeat.objects.count() == 2
        Heartbeat.objects.filter(worker="celery@gone").update(
            seen_at=clock.now() - timedelta(days=2)
        )
        assert heartbeats.forget_workers() == 1

    def test_when_each_queue_was_served_is_a_metric(self) -> None:
        heartbeats.store("payments", "celery@here")
        page = Client().get("/metrics").content.decode()
        assert 'task_queue_served_timestamp_seconds{queue="catalog"} 0.0' in page
        assert 'task_queue_served_timestamp_seconds{queue="payments"} 0.0' not in page

    def test_beat_asks_each_queue(self) -> None:
        asked = [each["options"]["queue"] for each in heartbeats.beat_entries().values()]
        assert asked == topology.task_queues()

    def test_workers_and_beat_make_it_ready(self, platform: Platform) -> None:
        platform.start("-c", "1", "-Q", "catalog,payments,notifications,maintenance")
        platform.start_beat(HEARTBEAT_SECONDS="0.5")
        platform.wait_for(lambda: ready()[0] == 200, "ready")
        workers = set(Heartbeat.objects.values_list("worker", flat=True))
        assert len(workers) == 1
        assert "@" in workers.pop()
