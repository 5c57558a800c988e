"""Structured logs: JSON lines in production, readable lines in a terminal.

A line's event is a sentence; what it speaks of are its keys (``event_id``, ``booking_id``,
``tour_id``, ``attempt``, ...). Addresses, secrets and message bodies are never logged.
"""

import io
import logging.config
import re
import sys
from typing import Any, TextIO

import structlog

# What PostgreSQL adds to an error: the row that it refused, with the customer in it. Its first line
# says all that is ours to know (https://www.postgresql.org/docs/current/protocol-error-fields.html).
_ROW = re.compile(r"\nDETAIL: .*?(?=\n\n|\Z)", re.DOTALL)


# One line a request or a group is the servers' own noise; theirs start at WARNING.
_LOGGERS = {
    "celery.worker.strategy": {"level": "WARNING"},
    "celery.app.trace": {"level": "WARNING"},
    # At DEBUG these write down what is sent, and customers with it.
    "celery.pool": {"level": "INFO"},
    "stripe": {"level": "WARNING"},
    "urllib3": {"level": "WARNING"},
    "mail.log": {"level": "ERROR"},  # the demo's mail server, with whom it is to
}

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(config: dict[str, Any]) -> None:
    """Send the logs of structlog, Django and Celery to standard error, in one form."""
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(_json() if config["json"] else _readable()),
        ],
        "foreign_pre_chain": [*_SHARED, structlog.stdlib.ExtraAdder()],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"structured": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": config["level"]},
            "loggers": _LOGGERS,
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _json() -> list[Any]:
    plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(lambda error: _without_rows(plain(error))),
        _without_row,
        structlog.processors.JSONRenderer(),
    ]


def _readable() -> list[Any]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_plain_traceback
    )
    return [_without_row, renderer]


def _without_row(_logger: Any, _method: str, event: Any) -> Any:
    """Cut refused rows out of a line that others wrote, such as Celery's of a failed task."""
    event["event"] = _ROW.sub("", str(event["event"]))
    return event


def _without_rows(exceptions: Any) -> Any:
    for exception in exceptions:
        exception["exc_value"] = _ROW.sub("", exception["exc_value"])
    return exceptions


def _plain_traceback(output: TextIO, error: Any) -> None:
    """Write a traceback without local variables, which hold customers, and without refused rows."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    output.write(_ROW.sub("", text.getvalue()))
