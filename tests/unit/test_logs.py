import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import pytest
import structlog
from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from django.test import RequestFactory
from structlog.stdlib import ProcessorFormatter

from booking_platform import confidential, logs
from booking_platform.redaction import ADDRESS, redacted, redacted_text
from tests.telemetry import RaisingHandler, Unprintable, UnprintableError

REFUSED_ROW = (
    'new row for relation "emails" violates check constraint "state"\n'
    "DETAIL:  Failing row contains (1, ann@example.com, Bonjour,\nà bientôt)."
)


@pytest.fixture(params=[True, False], ids=["json", "readable"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A logger, and what it has written, in each of the two forms."""
    configured: dict[str, Any] = {}
    monkeypatch.setattr(logging.config, "dictConfig", configured.update)
    monkeypatch.setattr("structlog.configure", lambda **_: None)
    logs.configure({"json": request.param, "level": "INFO"})
    options = configured["formatters"]["structured"]
    lines = io.StringIO()
    handler = logs.StandardError(lines)
    handler.setFormatter(
        ProcessorFormatter(
            processors=options["processors"], foreign_pre_chain=options["foreign_pre_chain"]
        )
    )
    logger = logging.Logger("test")  # noqa: LOG001  (of this test alone)
    logger.addHandler(handler)
    return logger, lines


class TestRefusedRows:
    def test_a_traceback_repeats_none(self, written: Any) -> None:
        logger, lines = written
        try:
            try:
                raise ValueError(REFUSED_ROW)
            except ValueError as error:
                raise RuntimeError(REFUSED_ROW) from error
        except RuntimeError:
            logger.exception("It failed")
        said = lines.getvalue()
        assert said.count("violates check constraint") >= 2
        assert "RuntimeError" in said
        assert "ann@example.com" not in said
        assert "bient" not in said

    def test_a_line_of_others_repeats_none(self, written: Any) -> None:
        logger, lines = written
        logger.error("Task raised unexpected: %s", REFUSED_ROW)
        assert "violates check constraint" in lines.getvalue()
        assert "ann@example.com" not in lines.getvalue()

    def test_each_line_is_one_json_object_or_readable(self, written: Any) -> None:
        logger, lines = written
        logger.warning("Hello %s", "world")
        [line] = lines.getvalue().splitlines()
        said = json.loads(line)["event"] if line.startswith("{") else line
        assert "Hello world" in said


class TestWhatIsLogged:
    """A line says what it can of what it is about, and raises nothing."""

    @pytest.mark.parametrize(
        "value",
        [Unprintable(), "\ud800", b"\xff", {1: {2}}, [float("nan")], object, "x" * 10**6],
        ids=["unprintable", "surrogate", "bytes", "keys", "nan", "a type", "long"],
    )
    def test_any_value(self, written: Any, value: object) -> None:
        logger, lines = written
        logger.warning({"event": "A sentence", "value": value}, extra={"_logger": logger})
        logger.warning("A sentence", extra={"value": value})
        logger.warning("A sentence", {"value": value})  # noqa: PLE1205
        assert lines.getvalue().count("A sentence") == 3

    def test_an_error_that_can_not_be_put_into_words(self, written: Any) -> None:
        logger, lines = written
        for error in (UnprintableError(), UnicodeDecodeError("x", b"", 0, 0, "\ud800")):
            try:
                raise RuntimeError("outer") from error
            except RuntimeError:
                logger.exception("A sentence")
        assert lines.getvalue().count("A sentence") == 2
        assert "RuntimeError" in lines.getvalue()

    def test_a_line_with_other_arguments_than_it_names(self, written: Any) -> None:
        logger, lines = written
        logger.warning("A sentence of %d and %s", "one")  # noqa: PLE1206
        said = json.loads(lines.getvalue())
        assert said["event"] == "A sentence of %d and %s"
        assert said["not_formatted"] == "TypeError"

    def test_a_line_that_can_not_be_formatted_holds_no_row(self, written: Any) -> None:
        logger, lines = written
        logger.warning(f"%d {REFUSED_ROW}", "none")
        assert "violates check" in lines.getvalue()
        assert "ann@example.com" not in lines.getvalue()


def closed() -> IO[str]:
    stream = open(os.devnull, "w")  # noqa: SIM115
    stream.close()
    return stream


def full() -> IO[str]:
    return open("/dev/full", "w")


def without_a_reader() -> IO[str]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


class TestStandardError:
    @pytest.fixture
    def logger(self) -> Any:
        """A logger as our code has one, which writes to standard error only."""
        bare = logging.Logger("test")  # noqa: LOG001  (of this test alone)
        bare.addHandler(logs.StandardError(io.StringIO()))
        return structlog.wrap_logger(
            bare,
            wrapper_class=logs.Logger,
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        )

    @pytest.mark.parametrize("broken", [closed, full, without_a_reader, lambda: None])
    def test_lines_are_lost_and_counted(
        self, logger: Any, broken: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [handler] = logger.handlers
        stream = broken()
        handler.stream = stream
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in range(3):
            logger.warning("lost")
            logger.bind().bind(a=1).error("lost", b=2)
        handler.stream = lines = io.StringIO()
        logger.warning("written")
        logger.warning("written")
        said = lines.getvalue()
        assert said.count("'written'") == 2
        assert said.count("Log lines can be written again: 6 could not be") == 1
        with suppress(OSError):
            if stream:
                stream.close()

    def test_one_that_is_ascii_gets_the_line_all_the_same(self, logger: Any) -> None:
        raw = io.BytesIO()
        logger.handlers[0].stream = io.TextIOWrapper(raw, "ascii", errors="strict")
        logger.warning("tour “Giverny” 🎫")
        assert b"Giverny" in raw.getvalue()

    def test_a_handler_of_others_that_raises_is_said_once(
        self, logger: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs.Logger, "_said", logs.Once())
        lines = io.StringIO()
        ours = logs.StandardError(lines)
        monkeypatch.setattr(logging.getLogger(), "handlers", [ours])
        logger.addHandler(RaisingHandler())
        for _ in range(3):
            logger.warning("a line")
        assert lines.getvalue().count("A log line failed: OSError") == 1

    def test_the_time_limit_of_a_worker_gets_through(self, logger: Any) -> None:
        class Interrupted(io.StringIO):
            def write(self, text: str) -> int:
                raise SoftTimeLimitExceeded

        logger.handlers[0].stream = Interrupted()
        with pytest.raises(SoftTimeLimitExceeded):
            logger.warning("a line")

    @pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- >&- <&-"])
    def test_a_process_starts_and_ends_without_it(self, redirection: str) -> None:
        code = (
            "import django; django.setup(); import structlog;"
            "structlog.get_logger('x').error('lost', exc_info=True)"
        )
        command = f'"{sys.executable}" -c "$CODE" {redirection}'
        done = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | {"CODE": code, "DJANGO_SETTINGS_MODULE": "booking_platform.settings"},
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0

    @pytest.mark.parametrize("breaks", ["\n", "\\n", "\\\\n", "\r\n", "\\r\\n"], ids=repr)
    @pytest.mark.parametrize("field", ["DETAIL:  ", "DÉTAIL : ", "CONTEXT:  ", "LINE 1: "])
    def test_none_is_left_however_it_is_written(self, breaks: str, field: str) -> None:
        row = f"violates a check{breaks}{field}Failing row (1, Ann Smith,{breaks}{breaks}Hello)"
        said = (
            f"Task raised unexpected: IntegrityError('{row}')\nTraceback (most recent call last):"
        )

        assert "Ann Smith" not in redacted_text(said)
        assert "violates a check" in redacted_text(said)
        assert "Traceback (most recent call last):" in redacted_text(said)

    def test_celerys_line_of_a_failed_task_repeats_none(self, written: Any) -> None:
        logger, lines = written
        error = ValueError(REFUSED_ROW)
        data = {
            "exc": repr(error),
            "traceback": f"ValueError: {REFUSED_ROW}",
            "args": "(b'Ann S.',)",
        }
        logger.error(
            "Task %(name)s raised unexpected: %(exc)s",
            {"name": "x", "exc": repr(error)},
            exc_info=(ValueError, error, None),
            extra={"data": data},
        )
        said = lines.getvalue()
        assert said.count("violates check constraint") >= 3
        for hidden in ("ann@example.com", "bient", "Ann S."):
            assert hidden not in said


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "anna@example.com",
            "anna.b+c@sub.example.co.uk",
            "anna@localhost",
            "änna@bücher.example",
            "anna%40example.com",
            "anna%2540example.com",
            "anna%2Bb%40example.com",
            r"anna\u0040example.com",
            r"anna\\u0040example.com",
            r"anna\x40example.com",
            "anna&#64;example.com",
            "anna&#x40;example.com",
            "anna\uff20example.com",
            '"anna b"@example.com',
            "anna@[192.0.2.1]",
            "o'anna/b=c@example.com",
        ],
    )
    @pytest.mark.parametrize("around", ["{}", "<{}>", "?q={}&p=1", 'payload.tourId is "{}": x'])
    def test_none_is_left_however_it_is_written(self, address: str, around: str) -> None:
        said = redacted_text(around.format(address))
        assert ADDRESS in said
        for part in ("anna", "änna", "example", "192", "b=c"):
            assert part not in said

    @pytest.mark.parametrize(
        "text",
        [
            "celery@vm1.example.com ready.",
            f"w0@{socket.gethostname()} ready.",
            "Connected to amqp://***@127.0.0.1:5672//",
            "@consumes, x @ y, 40.40 EUR, 64;",
            "booking BK-40 of tour 40: 1540 seats",
        ],
    )
    def test_what_is_none_stays(self, text: str) -> None:
        assert redacted_text(text) == text

    def test_a_name_of_this_worker_stays(self) -> None:
        signals.celeryd_init.send("w1@tours")
        assert redacted_text("w1@tours ready, w2@tours not") == f"w1@tours ready, {ADDRESS} not"

    def test_none_is_in_any_part_of_a_line(self, written: Any) -> None:
        logger, lines = written
        request = RequestFactory().get("/admin/", {"q": "anna@example.com"})
        deep: Any = "anna@example.com"
        for _ in range(50):
            deep = [deep]
        extra = {
            "request": request,
            "detail": 'payload.tourId is "anna@example.com": Expected `int`',
            "nested": {
                "anna@example.com": [("anna@example.com",), {"x"}, deep, b"anna@example.com"]
            },
        }
        try:
            raise ValueError("anna@example.com has no mailbox")
        except ValueError:
            logger.exception("It failed for %s", "anna@example.com", extra=extra, stack_info=True)
        said = lines.getvalue()
        assert said.count(ADDRESS) >= 6
        assert "anna" not in said
        assert "has no mailbox" in said

    def test_every_logger_of_django_and_celery_is_redacted(self) -> None:
        """In a process of its own: pytest has handlers, too."""
        script = (
            "import django, logging; django.setup(); import booking_platform.celery\n"
            "names = [*logging.root.manager.loggerDict, 'new.one']\n"
            "for name in names:\n"
            "    for level in (logging.INFO, logging.ERROR):\n"
            "        logging.getLogger(name).log(level, 'GET /?q=%s', 'anna%40example.com')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "booking_platform.settings"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.count(ADDRESS) > 20
        assert "[django.server]" in done.stderr
        assert "anna" not in done.stdout + done.stderr

    def test_secrets_are_redacted_too(self, written: Any) -> None:
        logger, lines = written
        confidential.remember("a-password-of-ours")
        logger.error(
            "Refused: %s",
            "amqp://ann:a-password-of-ours@host/",
            extra={"more": "a-password-of-ours"},
        )
        assert "a-password-of-ours" not in lines.getvalue()
        assert "***@host" in lines.getvalue()

    def test_a_value_that_can_not_be_shown_is_named(self, written: Any) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        logger, lines = written
        logger.error("Hello", extra={"it": Broken()})
        assert "its repr raised RuntimeError" in lines.getvalue()

    @pytest.mark.parametrize(
        "text",
        ["a" * 200_000 + "@b", "a@" * 50_000, "@" * 100_000, "\\" * 100_000 + "@a", '"' * 100_000 + "@b",
         "%25" * 60_000, "\\n" * 100_000 + "DETAIL", "x\nDETAIL: " * 20_000, "://:" * 50_000 + "@"],
        ids=lambda text: text[:8],
    )  # fmt: skip
    def test_hostile_text_takes_no_time(self, text: str) -> None:
        started = time.process_time()
        redacted(text)
        assert time.process_time() - started < 2
