"""Structured logs: JSON lines in production, readable lines in a terminal.

A line's event is a sentence; what it speaks of are its keys (``event_id``, ``booking_id``,
``tour_id``, ``attempt``, ...). Addresses, secrets and message bodies are never logged:
``booking_platform.redaction`` sees to the first two, whoever writes a line.

A log line raises no error, whatever it is about and whatever has become of standard error: it stands
between a payment and its record. Only the worker's time limit, which may end any statement, gets out.
"""

import json
import logging.config
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from booking_platform.redaction import redacted, redacted_text
from booking_platform.standard_streams import PATIENCE_SECONDS, Descriptor, text

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
    "axes": {"level": "WARNING"},  # each login, which is in the database too
    "mail.log": {"level": "ERROR"},  # the demo's mail server, with whom it is to
}

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class Once:
    """Recognises errors that were seen before, so that what repeats for each event is said once."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int, str]] = set()  # file, line, type of error

    def is_new(self, error: BaseException) -> bool:
        """Return whether no error of that type was raised at that place before."""
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        file, line = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("", 0)
        place = (file, line, type(error).__name__)
        new = place not in self._seen
        self._seen.add(place)
        return new


class StandardError(logging.StreamHandler[Any]):
    """Writes lines to standard error. How many could not be written is said when one can be again."""

    lost = 0

    def __init__(self, stream: TextIO | None = None) -> None:
        """The stream is one of its own: what can't be written must not stay in everybody's buffer."""
        super().__init__(stream or _of_its_own(sys.stderr))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
            if self.lost:
                self._write(self._line(_lost_lines(self.lost)))
                self.lost = 0
            self._write(line)
        except SoftTimeLimitExceeded:
            raise
        except Exception:  # closed, full, a pipe that nobody reads: there is nowhere to say it now
            self.lost += 1

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            return _bare_line(record, error)

    def _write(self, line: str) -> None:
        try:
            self.stream.write(line + self.terminator)
        except UnicodeError:  # a terminal or a file that is not UTF-8
            self.stream.write(line.encode("ascii", "backslashreplace").decode() + self.terminator)
        self.stream.flush()


class Logger(structlog.stdlib.BoundLogger):
    """A logger that raises no error of what handles its lines. Each such error is said once."""

    _said = Once()

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any
    ) -> Any:
        try:
            return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            if self._said.is_new(error):
                _say_to_standard_error(error)
            return None


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
            "handlers": {"stderr": {"()": StandardError, "formatter": "structured"}},
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
        wrapper_class=Logger,
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
        colors=_is_terminal(), pad_event_to=0, exception_formatter=plain
    )
    return [structlog.processors.format_exc_info, _redact, renderer]


def _of_its_own(stream: TextIO | None) -> TextIO | None:
    try:
        descriptor = Descriptor(stream.fileno(), patience=PATIENCE_SECONDS)  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # there is none, it is closed, or it is no file
        return stream
    return text(descriptor, getattr(stream, "encoding", None))


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _lost_lines(count: int) -> logging.LogRecord:
    said = "Log lines can be written again: %d could not be"
    return logging.LogRecord(__name__, logging.WARNING, "", 0, said, (count,), None)


def _bare_line(record: logging.LogRecord, error: Exception) -> str:
    """Return what can be said of a line that can't be formatted: its values, or an error, raise."""
    event: Any = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
    said = {
        "event": redacted_text(event) if type(event) is str else "(not a text)",
        "level": record.levelname.lower(),
        "logger": record.name,
        "not_formatted": type(error).__name__,
    }
    return json.dumps(said)


def _say_to_standard_error(error: Exception) -> None:
    """Say, past all other handlers, that a line could not be logged."""
    said = f"A log line failed: {type(error).__name__}; this is said once"
    record = logging.LogRecord(__name__, logging.ERROR, "", 0, said, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StandardError):
            handler.handle(record)


def _redact(_logger: Any, _method: str, event: Any) -> Any:
    """Redact a line, whoever wrote it: nothing is added to it after this."""
    data = event.get("data")
    if isinstance(data, Mapping):  # Celery's, of a task that failed: its arguments are messages
        event["data"] = {key: data[key] for key in data if key not in ("args", "kwargs")}
    if event.get("logger") == "django.server":
        event = {key: event[key] for key in event if key not in ("request", "server_time")}
    event["event"] = str(event["event"])
    return redacted(event)
