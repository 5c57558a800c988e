"""The platform with bugs planted in it: ``celery -A tests.faulty worker``.

A booking whose id begins with the name of a fault suffers it each time its seats are decided. And
``DIE_AT`` names a point of an attempt, at a refund or an e-mail, at which the process is killed, once
a payment or booking.
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


def _die_once(name: str) -> None:
    """Be killed, unless what has this name has been through that; files in a folder tell."""
    try:
        (Path(os.environ["DEATHS"]) / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@app.on_after_finalize.connect
def _plant_deaths(**_: object) -> None:
    from booking_platform.messaging import leases
    from notifications import attempts as email_attempts
    from notifications import mailer
    from payments import attempts, stripe_gateway

    write, finish = leases.write, leases._finish
    send, look, send_mail = stripe_gateway.send, stripe_gateway.look, mailer.send

    def name(row):
        return getattr(row, "payment_id", row.booking_id)

    def dying_at_once(carry_on):
        def dying(row):
            _die_once(name(row))
            carry_on(row)

        return dying

    def dying_write(row, **columns):
        _die_once(name(row))
        write(row, **columns)

    def dying_after_write(row, **columns):
        write(row, **columns)
        if "state" in columns:
            _die_once(name(row))

    def dying_after_mail(mail, about_to_send):
        answer = send_mail(mail, about_to_send)
        _die_once(name(mail))
        return answer

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
        _die_once(name(row))

    def plant(module, function, dying):
        setattr(module, function, dying)

    points = {
        "after the intent": (attempts, "carry_on", dying_at_once(attempts.carry_on)),
        "after the mail's intent": (
            email_attempts,
            "carry_on",
            dying_at_once(email_attempts.carry_on),
        ),
        "before the mail": (leases, "write", dying_write),
        "with the mail": (leases, "write", dying_after_write),
        "after the mail": (mailer, "send", dying_after_mail),
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
