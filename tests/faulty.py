"""The platform with bugs planted in the rule of seats: ``celery -A tests.faulty worker``.

A booking whose id begins with the name of a fault suffers it each time its seats are decided.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from booking_platform.celery import app
from booking_platform.messaging.envelope import Event

__all__ = ["app"]


def _bug(event: Event) -> None:
    raise KeyError(event.payload.booking_id)


def _memory(event: Event) -> None:
    raise MemoryError


def _poison(event: Event) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _slow(event: Event) -> None:
    """Wait while the file that the environment names is there."""
    gate = Path(os.environ["SLOW_WHILE"])
    (gate.parent / "slow-started").touch()
    while gate.exists():
        time.sleep(0.02)


FAULTS: dict[str, Callable[[Event], None]] = {
    "bug": _bug,
    "memory": _memory,
    "poison": _poison,
    "slow": _slow,
}


@app.on_after_finalize.connect
def _plant(**_: object) -> None:
    from catalog import seats

    apply = seats.apply

    def faulty(events, *, lock):
        for event in events:
            fault = FAULTS.get((event.payload.booking_id or "").partition("-")[0])
            if fault:
                fault(event)
        return apply(events, lock=lock)

    seats.apply = faulty
