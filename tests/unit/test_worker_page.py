"""The HTTP server of a worker's metrics: who may read them, and what a client may do to it."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from booking_platform.logs import Once
from booking_platform.messaging import metric_files
from booking_platform.operations import worker_page
from booking_platform.operations.worker_page import Page, WorkerPage
from tests.servers import wait_until

TOKEN = "a-token-for-the-scraper"
WORKER = SimpleNamespace(pool=SimpleNamespace(num_processes=3), autoscaler=None)


@pytest.fixture(params=["127.0.0.1", "::1"])
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The server at a free port, of IPv4 and of IPv6."""
    try:
        page = Page(request.param, 0, WORKER)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    page.begin()
    yield page
    page.end()


@pytest.fixture(autouse=True)
def _own_folder_forgotten() -> Iterator[None]:
    yield
    metric_files._own.clear()
    for file in metric_files.FILES.values():
        file.close()


def place(page: Page) -> tuple[str, int]:
    return str(page.server_address[0]), int(page.server_address[1])


def ask(page: Page, path: str = "/metrics", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(*place(page), timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers=named)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


class TestWhoMayRead:
    def test_this_machine_may(self, page: Page) -> None:
        answer, text = ask(page)
        assert answer.status == 200
        assert str(answer.getheader("Content-Type")).startswith("text/plain; version=")
        assert "worker_pool_places 3.0" in text
        assert "worker_pool_busy 0.0" in text

    def test_nobody_else_may(self, page: Page, settings: Any) -> None:
        settings.METRICS_ALLOWED = [ip_network("10.0.0.0/8")]
        answer, text = ask(page)
        assert answer.status == 403
        assert "METRICS_TOKEN" in text
        assert "worker_pool" not in text

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "forwarded", "VIA"])
    def test_a_proxy_on_this_machine_opens_them_to_nobody(self, page: Page, header: str) -> None:
        answer, _ = ask(page, **{header: "127.0.0.1"})
        assert answer.status == 403

    @pytest.mark.parametrize(("said", "status"), [(f"Bearer {TOKEN}", 200), ("Bearer x", 403)])
    def test_a_token_opens_them(self, page: Page, settings: Any, said: str, status: int) -> None:
        settings.METRICS_ALLOWED, settings.METRICS_TOKEN = [], TOKEN
        answer, _ = ask(page, Authorization=said)
        assert answer.status == status

    def test_there_is_nothing_else(self, page: Page) -> None:
        for path in ("/", "/admin/", "/metrics/", "/metrics.txt"):
            assert ask(page, path)[0].status == 404
        assert ask(page, "/metrics?name=x")[0].status == 200
        assert "Python" not in str(ask(page)[0].getheader("Server"))


class TestWhatAClientMayDo:
    def test_one_that_says_nothing_holds_up_no_other(self, page: Page) -> None:
        with socket.create_connection(place(page)):
            assert ask(page)[0].status == 200

    def test_one_that_says_nothing_is_hung_up_on(
        self, page: Page, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_page._Handler, "timeout", 0.1)
        with socket.create_connection(place(page), timeout=60) as client:
            assert client.recv(1) == b""

    def test_no_more_than_some_are_answered_at_once(self, page: Page) -> None:
        idle = [socket.create_connection(place(page)) for _ in range(30)]
        try:
            wait_until(lambda: not self.is_answered(page), what="a client is hung up on")
        finally:
            for client in idle:
                client.close()
        wait_until(lambda: self.is_answered(page), what="places are free again")

    @staticmethod
    def is_answered(page: Page) -> bool:
        with suppress(OSError, HTTPException):
            return bool(ask(page)[0].status == 200)
        return False

    @pytest.mark.parametrize(
        "said", [b"\0\xff\n\n", b"GET\n\n", b"GET /metrics HTTP/9.9\n\n", b"A" * 99_999]
    )
    def test_garbage_ends_nothing(
        self, page: Page, said: bytes, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_connection(place(page)) as client:
            client.sendall(said)
        assert ask(page)[0].status == 200
        assert capfd.readouterr().err == ""

    def test_a_page_that_can_not_be_made_is_said_once(
        self, page: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(worker_page, "_said", Once())
        monkeypatch.setattr(WORKER.pool, "num_processes", "broken")
        for _ in range(3):
            with suppress(OSError, HTTPException):
                ask(page)
        assert caplog.text.count("The worker's metrics could not be shown") == 1
        monkeypatch.undo()
        assert ask(page)[0].status == 200


class TestThePort:
    def test_one_that_is_taken_is_said_and_nothing_is_served(
        self, settings: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings.WORKER_METRICS_PORT = taken.getsockname()[1]
            settings.METRICS_DIR = tmp_path
            step = WorkerPage(WORKER)
            step.start(WORKER)
            step.stop(WORKER)
        assert caplog.text.count("No metrics are served at port") == 1
        assert metric_files.folder() == tmp_path

    def test_without_one_nothing_is_served(self, settings: Any, tmp_path: Path) -> None:
        settings.METRICS_DIR = tmp_path
        step = WorkerPage(WORKER)
        step.start(WORKER)
        step.stop(WORKER)
        assert metric_files.folder() == tmp_path

    def test_a_child_that_outlives_the_worker_does_not_keep_it(self) -> None:
        page = Page("127.0.0.1", 0, WORKER)
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            os.write(ready[1], b".")
            os.read(done[0], 1)
            os._exit(0)
        try:
            os.read(ready[0], 1)
            page.end()
            socket.create_server(place(page)).close()
        finally:
            os.write(done[1], b".")
            os.waitpid(child, 0)
            for end in (*ready, *done):
                os.close(end)


class TestTheFolder:
    def test_what_was_counted_before_goes_along(self, settings: Any, tmp_path: Path) -> None:
        from booking_platform.messaging import metric_page
        from booking_platform.messaging.metrics import DUPLICATE_EVENTS
        from tests.telemetry import metrics_in

        own = tmp_path / "metrics" / "worker-1"
        with metrics_in(tmp_path / "metrics"):
            DUPLICATE_EVENTS.labels("goes along").inc(2)
            metric_files.move_to(own)
            DUPLICATE_EVENTS.labels("goes along").inc()
            shown = metric_page.page(own).decode()
            left = metric_page.page(tmp_path / "metrics").decode()
        assert 'duplicate_events_total{event_type="goes along"} 3.0' in shown
        assert "goes along" not in left
