"""The page ``docs/adding-a-consumer.md``, followed word by word by a reader who skips nothing.

The files of the page are written into a folder of their own, its commands are run in their order, and
each output that it shows is waited for. Three things differ from what the page says: the folder (and so
how the app gets into ``INSTALLED_APPS``), the port of the partner, and that the subject of the laws is
added to ``tests/subjects.py`` only in the memory of pytest.
"""

import os
import re
import shlex
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings

from booking_platform.development.processes import PythonProcess, running
from booking_platform.messaging import topology
from tests.platform import Platform, Worker
from tests.servers import free_port, listens, wait_until

PAGE = settings.BASE_DIR / "docs" / "adding-a-consumer.md"
SUBJECTS = "tests/subjects.py"
PORT = "8010"  # of the partner, on the page
PART_TWO = "\n## Part 2"

STEP = re.compile(
    r"(?:^\*\*`(?P<path>[^`]+)`\*\*[^\n]*\n\n)?^```(?P<kind>python|console)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)

SETTINGS = """\
from booking_platform.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "loyalty"]
"""
ADDS_THE_SUBJECT = """\
from pathlib import Path


def pytest_load_initial_conftests() -> None:
    import tests.subjects

    addition = Path(__file__).with_name("subject.txt").read_text()
    exec(addition, vars(tests.subjects))
"""


class Reader:
    """Does what the page says."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.port = str(free_port())
        self.platform = Platform(folder)
        self.platform.environment = {
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "reader_settings",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "var" / "metrics"),
            "PYTHONPATH": os.pathsep.join((str(folder), str(settings.BASE_DIR))),
            "VAR_DIR": str(folder / "var"),
        }
        self.partner_log = folder / "partner.log"
        self.processes = ExitStack()
        (folder / "reader_settings.py").write_text(SETTINGS)
        (folder / "adds_the_subject.py").write_text(ADDS_THE_SUBJECT)

    def follow(self, page: str) -> None:
        for step in STEP.finditer(page):
            text = step["text"].replace(PORT, self.port)
            if step["path"]:
                path = "subject.txt" if step["path"] == SUBJECTS else step["path"]
                write(self.folder / path, text)
            else:
                assert step["kind"] == "console", f"a file without a path:\n{text}"
                for command in COMMAND.finditer(text):
                    self.do(command["command"], command["output"])

    def do(self, command: str, output: str) -> None:
        match shlex.split(command):
            case ["export", *assignments]:
                self.platform.environment |= dict(each.split("=", 1) for each in assignments)
            case ["celery", "-A", app, what, *options]:
                self.start(app, what, *options)
            case ["python", "partner.py"]:
                self.start_partner()
            case ["pytest", *options]:
                self.run("-m", "pytest", "-p", "adds_the_subject", *options)
            case ["python", *words] if not output:
                self.run(*words)
            case ["python", *words]:
                self.wait_for(words, output)
            case _:
                raise AssertionError(f"the page has a command of a new kind: {command}")

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=settings.BASE_DIR,
            env=os.environ | self.platform.environment,
            stdin=subprocess.DEVNULL,  # it asks nothing
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def wait_for(self, words: list[str], output: str) -> None:
        said = ""

        def shown() -> bool:
            nonlocal said
            said = self.run(*words)
            return said == output

        try:
            self.platform.wait_for(shown, f"{words} says\n{output}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nbut it said\n{said}") from None

    def start(self, app: str, what: str, *options: str) -> None:
        """Start a worker or beat in a terminal of its own; a new worker replaces the old one."""
        workers = self.platform.workers
        if what == "worker":
            for old in workers:
                assert old.stop() == 0
        log = self.folder / f"{what}-{len(workers)}.log"
        process = Worker(log, what, *options, app=app, env=self.platform.environment)
        workers.append(process)
        process.start()
        if what == "worker":
            process.wait_until_ready()

    def start_partner(self) -> None:
        program = str(self.folder / "partner.py")
        partner = PythonProcess(program, log_file=self.partner_log)
        self.processes.enter_context(running(partner))
        wait_until(lambda: listens(int(self.port)), what="the partner answers")

    def ask(self, expression: str) -> str:
        return self.run("manage.py", "shell", "-v", "0", "-c", f"print({expression})").strip()

    @property
    def worker_logs(self) -> str:
        return "".join(file.read_text() for file in sorted(self.folder.glob("worker-*.log")))

    def close(self) -> None:
        self.platform.close()
        for name in ("loyalty.booking-created", "loyalty"):
            self.platform.delete_queue(name)
        for name in ("loyalty", *topology.task_queues()):  # Celery's, for its queues and beat's
            with suppress(Exception), self.platform.channel() as channel:
                channel.exchange_delete(name, if_unused=True)
        self.processes.close()


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """Create a database for the reader alone; return its URL."""
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        yield f"sqlite:///{folder / 'db.sqlite3'}"
        return
    name = f"test_loyalty_{os.getpid()}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has come to the end of the page."""
    folder = tmp_path_factory.mktemp("reader")
    with database(folder) as url:
        reader = Reader(folder, url)
        reader.platform.delete_queues()
        try:
            reader.follow(PAGE.read_text())
            yield reader
        finally:
            reader.close()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def calls(partner_log: str) -> list[tuple[str, str]]:
    """Return key and status of each call that the partner got."""
    keys = re.findall(r"^key (\S+)$", partner_log, re.MULTILINE)
    statuses = re.findall(r'"POST / HTTP/1.1" (\d+)', partner_log)
    return list(zip(keys, statuses, strict=True))


def ruff(*options: str, folder: Path) -> None:
    """Run ruff over the reader's files as if they were in the project."""
    sources = f'src = ["{folder}", "{settings.BASE_DIR}"]'
    project = str(settings.BASE_DIR / "pyproject.toml")
    config = ("--config", project, "--config", sources, "--no-cache")
    command = [sys.executable, "-m", "ruff", *options, *config, "loyalty"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class TestTheFilesOfThePage:
    @pytest.mark.parametrize("ends_before", [PART_TWO, None])
    def test_they_are_in_the_house_style(self, ends_before: str | None, tmp_path: Path) -> None:
        for step in STEP.finditer(PAGE.read_text().partition(ends_before or "\0")[0]):
            if (step["path"] or "").startswith("loyalty/"):
                write(tmp_path / step["path"], step["text"])
        ruff("check", folder=tmp_path)
        ruff("format", "--check", folder=tmp_path)


class TestPartOne:
    def test_a_booking_earns_its_points_once(self, reader: Reader) -> None:
        assert (
            reader.ask("list(Points.objects.filter(pk='BK-1').values_list('points'))") == "[(20,)]"
        )

    def test_a_repeat_is_recognised_by_its_event_id(self, reader: Reader) -> None:
        reader.platform.wait_for(lambda: "Duplicate event" in reader.worker_logs, "a duplicate")
        events = (
            "list(ProcessedEvent.objects.order_by('pk').values_list('event_id', 'outcome')[:2])"
        )
        assert sorted(literal_eval(reader.ask(events))) == [
            ("e-1", "points_earned"),
            ("e-2", "points_known"),
        ]

    def test_an_event_without_a_booking_is_parked_for_the_reason_of_the_app(
        self, reader: Reader
    ) -> None:
        letters = "list(DeadLetter.objects.values_list('queue', 'event_id', 'reason'))"
        assert reader.ask(letters) == "[('loyalty.booking-created', 'e-3', 'no_booking')]"


class TestPartTwo:
    def test_the_partner_is_called_again_after_a_503_and_then_no_more(self, reader: Reader) -> None:
        (first, failed), (second, taken), (third, taken_too) = calls(reader.partner_log.read_text())
        assert (failed, taken, taken_too) == ("503", "200", "200")
        assert first == second != third
        assert [first, third] == [
            sha256(f"loyalty points\0{booking}".encode()).hexdigest()
            for booking in ("BK-2", "BK-1")
        ]

    def test_nothing_is_left_to_be_done(self, reader: Reader) -> None:
        open_rows = "Points.objects.exclude(state='told', lease_until=None, next_attempt_at=None)"
        assert reader.ask(f"list({open_rows})") == "[]"
