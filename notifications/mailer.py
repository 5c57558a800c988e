"""The only sender of mail: hands one message to a mail server, and tells what is known of it then.

SMTP has no key by which a server could recognise a repeat, so what counts is whether its answer is
definite. One hook, ``about_to_send``, is called between the server's 354 to DATA and the first byte
of the message. Until it has returned nothing can have been sent, whatever else happens: a server
takes a message on when its last line has arrived, and not before (RFC 5321, 4.1.1.4).

====================================  ==================================  ====================
step                                  answer                              outcome
====================================  ==================================  ====================
connection, greeting, EHLO,           anything but success                not sent: again
STARTTLS, AUTH
MAIL, RCPT, DATA                      4yz; 530, 534, 535, 538             not sent: again
MAIL, RCPT, DATA                      any other 5yz                       refused
MAIL, RCPT, DATA                      none in time, connection broken,    not sent: again
                                      not SMTP
the message                           2yz                                 sent
the message                           4yz                                 not sent: again
the message                           5yz                                 refused
the message                           none in time, connection broken,    uncertain
                                      not SMTP
====================================  ==================================  ====================

- 4yz: the same may be asked for again; 5yz: it should not be (RFC 5321, 4.2.1). 421 is a 4yz at
  any step (RFC 5321, 3.8).
- A refusal before MAIL is about the server or our settings for it, not about this mail; so are 530,
  534, 535 and 538, which ask for authentication or encryption (RFC 4954, 6).
- Once it has answered 2yz to the message, a server is responsible for it (RFC 5321, 6.1). One that
  has not answered may have taken it or not: RFC 1047 tells how that makes duplicates.

Each answer has ``SMTP_TIMEOUT_SECONDS`` to arrive, however it drips, and those before the message
no more than the lease together. RFC 5321, 4.5.3.2, asks for minutes of patience; a lease is shorter,
and an answer that is given up on makes an uncertain mail, not a second one.

A message says that a program sent it, so that no program answers it (RFC 3834, 5:
``Auto-Submitted``; Exchange: ``X-Auto-Response-Suppress``), and in which language (RFC 3282). Its
``Message-ID`` and ``Date`` are the same on every attempt.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.charset import QP, Charset
from email.utils import format_datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from notifications import smtp
from notifications.models import CancellationEmail
from notifications.smtp import MESSAGE, Undelivered

READ = 1000  # characters of an answer that are looked through for addresses
SHOWN = 300  # of them that are kept
TO_WRITE_IT_DOWN = 0.1  # of a lease, for what was learnt before the message

_ABOUT_ACCESS = (530, 534, 535, 538)
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"']+@[^\s<>()\[\]:;,\"']+")

# ASCII in short lines: no server on the way has to know 8BITMIME, or to break a line.
_UTF8 = Charset("utf-8")
_UTF8.body_encoding = QP


class Outcome(Enum):
    SENT = "sent"
    AGAIN = "not sent, to be tried again"
    REFUSED = "refused for good"
    UNCERTAIN = "may have been sent"


@dataclass(frozen=True)
class Answer:
    """What came of handing over a mail."""

    outcome: Outcome
    step: str
    code: int | None = None
    said: str = ""  # for staff; no address is in it

    def __str__(self) -> str:
        said = " ".join(str(part) for part in (self.code, self.said) if part)
        return f"{self.step}: {said}" if said else self.step


def as_message(mail: CancellationEmail) -> EmailMultiAlternatives:
    """Give a mail as it is sent."""
    message = EmailMultiAlternatives(
        subject=mail.subject,
        body=mail.text_body,
        from_email=settings.EMAIL_FROM,
        to=[mail.recipient],
        headers={
            "Message-ID": mail.message_id,
            "Date": format_datetime(mail.created_at.astimezone(UTC)),
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
            "Content-Language": mail.locale,
        },
    )
    message.encoding = _UTF8
    message.attach_alternative(mail.html_body, "text/html")
    return message


def send(mail: CancellationEmail, about_to_send: Callable[[], None]) -> Answer:
    """Hand a mail over under its lease; give what is known of it after that.

    ``about_to_send`` is called last before anything of the message goes out; what it raises keeps
    the message here, and is raised.
    """
    message = as_message(mail)
    if not mail.recipient:  # Django would send it to nobody, and say nothing
        raise ValueError("an e-mail to nobody")
    if settings.SMTP_HOST == settings.MAIL_FILES:
        return _write_file(message, about_to_send)
    try:
        smtp.deliver(message, about_to_send, within=_seconds_left(mail))
    except Undelivered as problem:
        said = _without_addresses(problem.text, mail)
        return Answer(_judged(problem), problem.step, problem.code, said)
    return Answer(Outcome.SENT, MESSAGE)


def _seconds_left(mail: CancellationEmail) -> float:
    """Give how long it may take up to the message: what is learnt must be written down in time."""
    assert mail.lease_until is not None
    left = (mail.lease_until - timezone.now()).total_seconds()
    return left - TO_WRITE_IT_DOWN * settings.LEASE_SECONDS


def _judged(problem: Undelivered) -> Outcome:
    sending = problem.step == MESSAGE
    if problem.code in _ABOUT_ACCESS and not sending:
        return Outcome.AGAIN
    match (problem.code or 0) // 100:
        case 4:
            return Outcome.AGAIN
        case 5:
            return Outcome.REFUSED
    return Outcome.UNCERTAIN if sending else Outcome.AGAIN


def _without_addresses(text: bytes, mail: CancellationEmail) -> str:
    """Give a server's words in one line of text; they often repeat the address."""
    words = " ".join(text.decode("ascii", "replace").split())
    words = "".join(char if char.isprintable() else "?" for char in words[:READ])
    local = mail.recipient.rpartition("@")[0]
    for known in filter(None, (mail.recipient, local, local.partition("+")[0])):
        alone = rf"(?<![^\W_]){re.escape(known)}(?![^\W_])"
        words = re.sub(alone, "(address)", words, flags=re.IGNORECASE)
    return _ADDRESS.sub("(address)", words)[:SHOWN]


def _write_file(message: EmailMultiAlternatives, about_to_send: Callable[[], None]) -> Answer:
    """Keep a message as a file, where there is no mail server; a repeat would be another file."""
    name = f"{timezone.now():%Y%m%dT%H%M%S}-{uuid4().hex[:8]}.eml"
    settings.MAIL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = settings.MAIL_DIR / f".{name}"
    parsed: Any = message.message()
    try:
        draft.write_bytes(parsed.as_bytes(linesep="\r\n"))
        about_to_send()
        draft.rename(settings.MAIL_DIR / name)
    finally:
        draft.unlink(missing_ok=True)
    return Answer(Outcome.SENT, "file", said=name)
