"""Structured logs: JSON lines in production, readable lines in a terminal.

A line's event is a sentence; what it speaks of are its keys (``event_id``, ``booking_id``,
``tour_id``, ``attempt``, ...). Addresses, secrets and message bodies are never logged:
``booking_platform.redaction`` sees to the first two, whoever writes a line.
"""

import logging.config
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from booking_platform.redaction import redacted

# One line a request or a group is the servers' own noise; theirs start at WARNING.
_LOGGERS = {
    "celery.worker.strategy": {"level": "WARNING"},
    "celery.app.trace": {"level": "WARNING"},
    # Those of `runserver` have a handler of their own in Django's defaults, past the redaction.
    "django.server": {"handlers": [], "propagate": True},
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
        structlog.processors.ExceptionRenderer(plain),
        _redact,
        structlog.processors.JSONRenderer(),
    ]


def _readable() -> list[Any]:
    # Without local variables, which hold customers.
    plain = structlog.dev.plain_traceback
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=plain
    )
    return [structlog.processors.format_exc_info, _redact, renderer]


def _redact(_logger: Any, _method: str, event: Any) -> Any:
    """Redact a line, whoever wrote it: nothing is added to it after this."""
    data = event.get("data")
    if isinstance(data, Mapping):  # Celery's, of a task that failed: its arguments are messages
        event["data"] = {key: data[key] for key in data if key not in ("args", "kwargs")}
    if event.get("logger") == "django.server":
        event = {key: event[key] for key in event if key not in ("request", "server_time")}
    event["event"] = str(event["event"])
    return redacted(event)
