"""What the web process shows of the files of metrics, whatever is in their folder."""

import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory

from booking_platform import web_metrics
from booking_platform.messaging import clock, metric_page, outbox
from booking_platform.messaging.metrics import DUPLICATE_EVENTS
from booking_platform.messaging.models import OutboxRow
from tests.factories import TourFactory
from tests.telemetry import metrics_in

pytestmark = pytest.mark.django_db(transaction=True)

COUNTED = 'duplicate_events_total{event_type="of the test"} '


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which something is counted."""
    with metrics_in(tmp_path / "metrics"):
        DUPLICATE_EVENTS.labels("of the test").inc()
        yield tmp_path / "metrics"


def shown(client: Client) -> str:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return answer.content.decode()


def _entry(key: str) -> bytes:
    """Return a file of one entry."""
    text = key.encode()
    text += b" " * (8 - (len(text) + 4) % 8)
    size = (8 + 4 + len(text) + 16).to_bytes(4, "little")
    return size + bytes(4) + len(key).to_bytes(4, "little") + text + bytes(16)


def _whole(folder: Path) -> bytes:
    [file, *_] = folder.glob(f"counter_{os.getpid()}.db")
    return file.read_bytes()


GARBAGE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "a byte": lambda _: b"\0",
    "text": lambda _: b"this is no file of metrics\n" * 99,
    "ones": lambda _: b"\xff" * 4096,
    "cut short": lambda folder: _whole(folder)[:-9],
    "not JSON": lambda _: _entry("not JSON"),
    "other JSON": lambda _: _entry('{"a": 1}'),
    "no name": lambda _: _entry('["", "", {}, "help"]'),
    "a lone surrogate": lambda _: _entry('["a_total", "a_total", {"b": "\\ud800"}, "help"]'),
}


class TestWhatCanNotBeRead:
    @pytest.mark.parametrize("content", GARBAGE)
    def test_it_is_left_out_and_said_once(
        self, folder: Path, client: Client, caplog: pytest.LogCaptureFixture, content: str
    ) -> None:
        (folder / "counter_1.db").write_bytes(GARBAGE[content](folder))
        for _ in range(3):
            page = shown(client)
        assert COUNTED in page
        assert "\nmetric_files_left_out 1.0" in page
        assert caplog.text.count("Metrics can't be read") == 1
        assert "counter_1.db" in caplog.text

    @pytest.mark.parametrize(
        "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")]
    )
    def test_what_is_no_file_is_left_out_too(
        self, folder: Path, client: Client, make: Callable[[Path], None]
    ) -> None:
        make(folder / "counter_1.db")
        assert COUNTED in shown(client)

    def test_a_file_of_no_known_type_is_left_out(self, folder: Path, client: Client) -> None:
        (folder / "odd_1.db").write_bytes(_whole(folder))
        assert COUNTED in shown(client)

    def test_what_is_broken_again_is_said_again(
        self, folder: Path, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = folder / "counter_1.db"
        file.write_bytes(b"")
        shown(client)
        file.write_bytes(_whole(folder))
        assert "\nmetric_files_left_out 0.0" in shown(client)
        file.write_bytes(b"")
        shown(client)
        assert caplog.text.count("Metrics can't be read") == 2

    def test_files_that_contradict_each_other_fail_no_request(
        self, folder: Path, client: Client
    ) -> None:
        (folder / "gauge_all_1.db").write_bytes(_entry('["m", "m", {}, "help"]'))
        (folder / "counter_1.db").write_bytes(_entry('["m", "m", {}, "help"]'))
        shown(client)

    def test_a_folder_that_is_not_there_shows_nothing(self, tmp_path: Path) -> None:
        page = metric_page.page(tmp_path / "nowhere").decode()
        assert page.splitlines()[-1] == "metric_files_left_out 0.0"


class TestTheMiddleware:
    def test_a_request_that_it_can_not_count_is_answered(self) -> None:
        """It takes the length of a body for a number; whoever asks may write anything there."""
        from django.http import HttpResponse

        after = web_metrics.After(lambda _: HttpResponse("answered"))
        request = RequestFactory().get("/", headers={"Content-Length": "all of it"})
        assert after(request).content == b"answered"


class TestTheOutbox:
    def test_its_backlog_is_shown_with_its_age(self, folder: Path, client: Client) -> None:
        assert "outbox_announcements_waiting 0.0" in shown(client)
        TourFactory.create()  # which is announced
        OutboxRow.objects.update(created_at=clock.now() - timedelta(seconds=90))
        text = shown(client)
        assert "outbox_announcements_waiting 1.0" in text
        [seconds] = re.findall(r"^outbox_oldest_waiting_seconds (\S+)$", text, re.MULTILINE)
        assert 90 <= float(seconds) < 120

    def test_it_is_left_out_while_the_database_is_away(
        self, folder: Path, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> None:
            raise OperationalError("away")

        monkeypatch.setattr(outbox, "backlog", away)
        text = shown(client)
        assert COUNTED in text
        assert "\noutbox" not in text
