import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from celery import signals
from django.test import RequestFactory
from structlog.stdlib import ProcessorFormatter

from booking_platform import confidential, logs
from booking_platform.redaction import ADDRESS, redacted, redacted_text

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
    handler = logging.StreamHandler(lines)
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
