"""The platform with bugs planted in it: ``celery -A tests.faulty worker``.

A booking whose id begins with the name of a fault suffers it each time its seats are decided. And
``DIE_AT`` names a point of a refund's attempt at which the process is killed, once a payment.
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


def _die_once(payment: str) -> None:
    """Be killed, unless this payment's refund has been through that; files in a folder tell."""
    try:
        (Path(os.environ["DEATHS"]) / payment).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@app.on_after_finalize.connect
def _plant_deaths(**_: object) -> None:
    from booking_platform.messaging import leases
    from payments import attempts, stripe_gateway

    carry_on, write, finish = attempts.carry_on, leases.write, leases._finish
    send, look = stripe_gateway.send, stripe_gateway.look

    def dying_at_once(refund):
        _die_once(refund.payment_id)
        carry_on(refund)

    def dying_write(row, **columns):
        _die_once(row.payment_id)
        write(row, **columns)

    def dying_before_call(request, key):
        _die_once(request["payment_intent"])
        return send(request, key)

    def dying_after_call(request, key):
        answer = send(request, key)
        _die_once(request["payment_intent"])
        return answer

    def dying_in_look(payment):
        _die_once(payment)
        return look(payment)

    def dying_after_finish(row, conclusion):
        finish(row, conclusion)
        _die_once(row.payment_id)

    def plant(module, name, function):
        setattr(module, name, function)

    points = {
        "after the intent": (attempts, "carry_on", dying_at_once),
        "before it is marked sent": (leases, "write", dying_write),
        "before the call": (stripe_gateway, "send", dying_before_call),
        "after the call": (stripe_gateway, "send", dying_after_call),
        "before the list": (stripe_gateway, "look", dying_in_look),
        "after the result": (leases, "_finish", dying_after_finish),
    }
    if point := os.environ.get("DIE_AT"):
        plant(*points[point])


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
