import io
import json
import logging
from typing import Any

import pytest
from structlog.stdlib import ProcessorFormatter

from booking_platform import logs

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
