"""The platform with bugs planted in it: ``celery -A tests.faulty worker``.

A booking whose id begins with the name of a fault suffers it each time its seats are decided. And
``DIE_AT`` names a point of an attempt, at a refund or an e-mail, at which the process is killed, once
a payment or booking.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from booking_platform.celery import app
from booking_platform.contract.envelope import Event
from booking_platform.messaging.rules import Result

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


def _die_once(name: str) -> None:
    """Be killed, unless what has this name has been through that; files in a folder tell."""
    try:
        (Path(os.environ["DEATHS"]) / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(function: Callable[..., Any], name: Callable[..., str], when: str) -> Callable[..., Any]:
    """Wrap a function: its process is killed before or after the call, once for each name."""

    def dying(*given: Any, **columns: Any) -> Any:
        if when == "before":
            _die_once(name(*given))
        answer = function(*given, **columns)
        if when == "after":
            _die_once(name(*given))
        return answer

    return dying


@app.on_after_finalize.connect
def _plant_deaths(**_: object) -> None:
    import notifications.attempts
    import payments.attempts
    from booking_platform.messaging import leases, outbox
    from booking_platform.messaging.publishing import Publisher
    from notifications import mailer
    from payments import stripe_gateway

    def row(row: Any, *_rest: object) -> str:
        return str(getattr(row, "payment_id", row.booking_id))

    def request(request: dict[str, Any], _key: str) -> str:
        return str(request["payment_intent"])

    def some(*_: object) -> str:
        return "relay"

    points: dict[str, tuple[Any, str, Callable[..., str], str]] = {
        "after the intent": (payments.attempts, "attempt", row, "before"),
        "after the mail's intent": (notifications.attempts, "attempt", row, "before"),
        "before it is marked sent": (leases, "write", row, "before"),
        "after it is marked sent": (leases, "write", row, "after"),
        "with the mail": (leases, "write", row, "after"),
        "after the mail": (mailer, "send", row, "after"),
        "before the call": (stripe_gateway, "send", request, "before"),
        "after the call": (stripe_gateway, "send", request, "after"),
        "before the look": (stripe_gateway, "look", str, "before"),
        "after the result": (leases, "_finish", row, "after"),
        "before it is published": (Publisher, "publish", some, "before"),
        "after it is published": (Publisher, "publish", some, "after"),
        "after it is marked": (outbox, "_mark", some, "after"),
        "after the relay": (outbox, "relay", some, "after"),
    }
    if point := os.environ.get("DIE_AT"):
        module, function, name, when = points[point]
        setattr(module, function, _dying(getattr(module, function), name, when))


@app.on_after_finalize.connect
def _plant(**_: object) -> None:
    from catalog import ledger

    apply = ledger.apply

    def faulty(events: Sequence[Event], *, lock: bool) -> list[Result]:
        for event in events:
            fault = FAULTS.get((event.payload.booking_id or "").partition("-")[0])
            if fault:
                fault(event)
        return apply(events, lock=lock)

    ledger.apply = faulty
