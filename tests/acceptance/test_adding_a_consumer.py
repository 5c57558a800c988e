"""The app of docs/adding-a-consumer.md, as it stands there, with a real worker."""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection

from booking_platform.development.processes import CeleryProcess, running
from tests.platform import Platform
from tests.servers import wait_until

ROOT = settings.BASE_DIR
PAGE = (ROOT / "docs" / "adding-a-consumer.md").read_text(encoding="utf-8")
FIRST, SECOND = PAGE.split("## A call to the world outside")
SETTINGS = """
from booking_platform.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, "loyalty"]
"""
LOOK = """
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from loyalty.models import Points
print([(each.booking_id, each.points) for each in Points.objects.all()])
print(sorted(ProcessedEvent.objects.values_list("event_id", "outcome")))
print([(each.event_id, each.why.meaning, each.why.advice) for each in DeadLetter.objects.all()])
"""


class Project:
    """The checkout with one more app, in a database of its own."""

    def __init__(self, folder: Path, platform: Platform, database: str) -> None:
        self.folder = folder
        self.env = platform.environment | {
            "DATABASE_URL": database,
            "VAR_DIR": str(folder / "var"),
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "DJANGO_SETTINGS_MODULE": "with_loyalty",
        }
        (folder / "with_loyalty.py").write_text(SETTINGS)

    def write(self, part: str) -> None:
        """Write the files of a part of the page."""
        app = self.folder / "loyalty"
        app.mkdir(exist_ok=True)
        (app / "__init__.py").touch()
        files = re.findall(r"\*\*`(loyalty/\w+\.py)`\*\*\n\n```python\n(.*?)```", part, re.DOTALL)
        assert len(files) >= 4, "the page's files are found"
        for name, text in files:
            (self.folder / name).write_text(text)

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(
            command, env=os.environ | self.env, cwd=self.folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_commands(self, matching: str) -> None:
        """Run the commands of the page, word for word."""
        commands = re.findall(rf"^    python manage\.py ({matching}.*)$", FIRST, re.MULTILINE)
        assert commands
        for command in commands:
            self.manage(*shlex.split(command))

    def worker(self, **env: str) -> CeleryProcess:
        [options] = re.findall(r"^    celery -A booking_platform (worker .*)$", FIRST, re.MULTILINE)
        return CeleryProcess(
            self.folder / f"worker-{uuid4().hex}.log", *shlex.split(options), env=self.env | env
        )

    def look(self) -> list[Any]:
        """Return points, outcomes and dead letters, as `manage.py shell` shows them."""
        return [eval(line) for line in self.manage("shell", "-v0", "-c", LOOK).splitlines()]  # noqa: S307


@pytest.fixture
def database(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    """A database that only this test migrates."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path / 'loyalty.sqlite3'}"
        return
    name = f"loyalty_{uuid4().hex[:8]}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{Platform._database_url().rpartition('/')[0]}/{name}"
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def project(platform: Platform, database: str, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    yield Project(folder, platform, database)
    for queue in ("loyalty.booking-created", "loyalty"):
        platform.delete_queue(queue)


def test_a_consumer_is_an_app_and_a_line_in_the_settings(project: Project) -> None:
    project.write(FIRST)
    project.run_commands("m")
    worker = project.worker()
    with running(worker):
        worker.wait_until_ready()
        project.run_commands("publish_event")
        wait_until(lambda: len(project.look()[2]) == 1, seconds=60, what="all is applied or parked")
        wait_until(lambda: len(project.look()[1]) == 2, seconds=60, what="two events are processed")
    points, outcomes, parked = project.look()
    assert points == [("BK-1", 20)]
    assert outcomes == [("e-1", "points_earned"), ("e-2", "points_known")]
    assert parked == [
        (
            "e-3",
            "names no booking that could earn points",
            "Discard it: bookings without an id earn nothing.",
        )
    ]
    assert worker.log.count("Duplicate event") == 1


def test_a_call_to_the_world_outside_survives_a_refusal(project: Project) -> None:
    project.write(FIRST)
    project.write(SECOND)
    project.run_commands("m")
    quick = {
        "RETRY_BASE_SECONDS": "0.1", "RETRY_MAX_SECONDS": "0.2", "SWEEP_SECONDS": "0.5",
    }  # fmt: skip
    with partner(answers=[503, 200]) as (url, heard):
        worker = project.worker(LOYALTY_URL=url, **quick)
        schedule = str(project.folder / "schedule")
        beat = CeleryProcess(
            project.folder / "beat.log", "beat", "-s", schedule, env=project.env | quick
        )
        with running(worker, beat):
            worker.wait_until_ready()
            project.run_commands("publish_event")
            wait_until(lambda: len(heard) == 2, seconds=60, what="the partner is told again")
            told = "from loyalty.models import Points; print(Points.objects.exclude(told_at=None).count())"
            wait_until(
                lambda: project.manage("shell", "-v0", "-c", told).strip() == "1",
                seconds=60,
                what="the answer is stored",
            )
    assert heard == ["loyalty:BK-1"] * 2


def test_the_files_of_the_page_are_in_the_houses_style(project: Project) -> None:
    for part in (FIRST, SECOND):
        project.write(part)
        ours = "lint.isort.known-first-party = ['booking_platform', 'loyalty']"
        config = ("--config", str(ROOT / "pyproject.toml"), "--config", ours)
        for check in (("check",), ("format", "--check")):
            ruff = [sys.executable, "-m", "ruff", *check, *config, "loyalty"]
            done = subprocess.run(
                ruff, cwd=project.folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def partner(answers: list[int]) -> Iterator[tuple[str, list[str]]]:
    """Run a partner's server; it notes the keys that it is sent, and answers in turn."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = answers[min(len(heard), len(answers) - 1)]
            heard.append(self.headers["Idempotency-Key"])
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Keep the output of the tests clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/points", heard
        server.shutdown()
