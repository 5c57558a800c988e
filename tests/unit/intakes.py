"""How groups are answered, and how Celery's steps are called, where there is no Celery."""

from collections.abc import Callable
from logging import getLogger
from typing import Any

from booking_platform.messaging.groups import GroupMessage

log = getLogger(__name__)


def ack(group: GroupMessage) -> None:
    group.ack_log_error(log, ())


def reject(group: GroupMessage) -> None:
    group.reject_log_error(log, ())


def at_once(function: Callable[[], Any]) -> Any:
    """Call it; Celery's step would also ignore a broken connection's errors."""
    return function()
