"""The demo's scenarios of e-mails: into files first, then to a mail server that fails."""

import os
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from booking_platform.development.mail_server import CLOSE, MESSAGE, RCPT, MailServer
from booking_platform.development.processes import CeleryProcess
from booking_platform.development.scenario import RUN, Scenario, cancelled, new_tour, publish
from notifications.models import CancellationEmail

State = CancellationEmail.State


def email_scenarios(server: MailServer, worker: CeleryProcess) -> Iterator[Scenario]:
    """Yield the scenarios; the worker is started again with the mail server in between."""
    tour = new_tour("Giverny", capacity=20)
    yield _five_times(tour)
    worker.stop()
    os.environ |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port)}
    worker.start()
    worker.wait_until_ready()
    yield _refused(server, tour)
    yield _busy(server, tour)
    yield _dead(server, tour)


def _five_times(tour: int) -> Scenario:
    event = cancelled(tour, "j", userEmail=_address("j"), tourName="Giverny <em>en fleurs</em>")
    return Scenario(
        "the same cancellation of a customer with an address five times",
        lambda: publish([event] * 5),
        lambda: _is("j", State.SENT),
        [
            (".eml files", 1, lambda: len(_files("j"))),
            ("the e-mail", "sent", lambda: _email("j").state),
        ],
    )


def _refused(server: MailServer, tour: int) -> Scenario:
    server.fail(RCPT, f"550 5.1.1 <{_address('k')}>: no such user here", to=_address("k"))
    event = cancelled(tour, "k", userEmail=_address("k"))
    return Scenario(
        "a mail server that refuses the address",
        lambda: publish([event]),
        lambda: _is("k", State.FAILED),
        [
            ("the e-mail", "failed", lambda: _email("k").state),
            ("waits for a person", True, lambda: _email("k").waits_for_person),
            ("because", "RCPT: 550 5.1.1 <(address)>: no such user here", lambda: _why("k")),
            ("mails at the server", 0, lambda: len(server.received(_address("k")))),
        ],
    )


def _busy(server: MailServer, tour: int) -> Scenario:
    server.fail(MESSAGE, "451 4.3.0 come back later", to=_address("l"), times=1)
    event = cancelled(tour, "l", userEmail=_address("l"))
    return Scenario(
        "a mail server that puts the message off",
        lambda: publish([event]),
        lambda: _is("l", State.SENT),
        [
            ("the e-mail", "sent", lambda: _email("l").state),
            ("attempts", 2, lambda: _email("l").attempts),
            ("mails at the server", 1, lambda: len(server.received(_address("l")))),
        ],
    )


def _dead(server: MailServer, tour: int) -> Scenario:
    server.fail(MESSAGE, CLOSE, to=_address("m"))
    event = cancelled(tour, "m", userEmail=_address("m"))
    return Scenario(
        "a mail server that dies when it has the message",
        lambda: publish([event] * 5),
        lambda: _is("m", State.UNCERTAIN),
        [
            ("the e-mail", "uncertain", lambda: _email("m").state),
            ("waits for a person", True, lambda: _email("m").waits_for_person),
            ("mails at the server", 1, lambda: len(server.received(_address("m")))),
        ],
    )


def _address(booking: str) -> str:
    return f"{RUN}-{booking}@example.com"


# What the database says, and the folder.


def _email(booking: str) -> CancellationEmail:
    return CancellationEmail.objects.get(booking_id=f"{RUN}-{booking}")


def _why(booking: str) -> str:
    return _email(booking).last_error


def _is(booking: str, state: str) -> bool:
    rows = CancellationEmail.objects.filter(booking_id=f"{RUN}-{booking}", state=state)
    return rows.exists()


def _files(booking: str) -> list[Path]:
    address = _address(booking).encode()
    return [mail for mail in settings.MAIL_DIR.glob("*.eml") if address in mail.read_bytes()]
