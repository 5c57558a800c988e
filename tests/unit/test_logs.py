import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import pytest
import structlog
from celery.exceptions import SoftTimeLimitExceeded
from structlog.stdlib import ProcessorFormatter

from booking_platform import logs
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
