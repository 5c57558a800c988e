"""What only tells: log lines and counters about work that is done. It can't change the work."""

from collections.abc import Callable

import structlog

from booking_platform.logs import Once

log = structlog.get_logger(__name__)

_said = Once()


def safely(tell: Callable[..., object], *given: object) -> None:
    """Call a function that tells of what is committed. No error of it gets out: each is logged once.

    That holds for the worker's time limit, too: nothing is left to be ended.
    """
    try:
        tell(*given)
    except Exception as error:
        if _said.is_new(error):
            log.exception("What was done could not be told; this is said once")
