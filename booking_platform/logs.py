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


def configure(config: dict[str, Any]) -> None:
    """Send the logs of structlog, Django and Celery to standard error, in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any]
    if config["json"]:
        plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(lambda error: _without_rows(plain(error))),
            _without_row,
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderer = [
            _without_row,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=_plain_traceback,
            ),
        ]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        *renderer,
                    ],
                    "foreign_pre_chain": [*shared, structlog.stdlib.ExtraAdder()],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": config["level"]},
            # One line a request or a group is the servers' own noise; theirs start at WARNING.
            "loggers": {
                "celery.worker.strategy": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
                # At DEBUG these write down what is sent, and customers with it.
                "celery.pool": {"level": "INFO"},
                "stripe": {"level": "WARNING"},
                "urllib3": {"level": "WARNING"},
                "mail.log": {"level": "ERROR"},  # the demo's mail server, with whom it is to
            },
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


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
