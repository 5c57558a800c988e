"""Structured logs: JSON lines in production, readable lines in a terminal.

A line's event is a sentence; what it speaks of are its keys (``event_id``, ``booking_id``,
``tour_id``, ``attempt``, ...). Addresses, secrets and message bodies are never logged.
"""

import logging.config
import sys
from typing import Any

import structlog


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
            structlog.processors.ExceptionRenderer(plain),
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # no locals: they hold customers
            )
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
