"""The only sender of mail: hands one message to a mail server, and returns what is known of it then.

SMTP has no key by which a server could recognise a repeat, so what counts is whether its answer is
definite (``rules.verdict``). One hook, ``about_to_send``, is called between the server's 354 to DATA and
the first byte of the message: until it has returned nothing can have been sent.

Each answer has ``SMTP_TIMEOUT_SECONDS`` to arrive, however it drips, and those before the message
no more than the lease together. RFC 5321, 4.5.3.2, asks for minutes of patience; a lease is shorter,
and an answer that is given up on makes an uncertain mail, not a second one.

A message says that a program sent it, so that no program answers it (RFC 3834, 5:
``Auto-Submitted``; Exchange: ``X-Auto-Response-Suppress``), and in which language (RFC 3282). Its
``Message-ID`` and ``Date`` are the same on every attempt.
"""

import re
from collections.abc import Callable
from datetime import UTC
from email.charset import QP, Charset
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from booking_platform.messaging import leases
from notifications import smtp
from notifications.answers import MESSAGE, Answer, Verdict
from notifications.models import CancellationEmail
from notifications.rules import verdict
from notifications.smtp import Undelivered

READ = 1000  # characters of an answer that are looked through for addresses
SHOWN = 300  # of them that are kept
TO_WRITE_IT_DOWN = 0.1  # of a lease, for what was learnt before the message

_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"']+@[^\s<>()\[\]:;,\"']+")

# ASCII in short lines: no server on the way has to know 8BITMIME, or to break a line.
_UTF8 = Charset("utf-8")
_UTF8.body_encoding = QP


def as_message(mail: CancellationEmail) -> EmailMultiAlternatives:
    """Return a mail as it is sent."""
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
    """Hand a mail over under its lease; return what is known of it after that.

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
        proved = verdict(problem.step, problem.code, said)
        return Answer(proved, problem.step, problem.code, said)
    return Answer(Verdict.SENT, MESSAGE)


def _seconds_left(mail: CancellationEmail) -> float:
    """Return how long it may take up to the message: what is learnt must be stored in time."""
    return leases.seconds_left(mail) - TO_WRITE_IT_DOWN * settings.LEASE_SECONDS


def _without_addresses(text: bytes, mail: CancellationEmail) -> str:
    """Return a server's words in one line, without addresses: servers often repeat them."""
    words = " ".join(text.decode("ascii", "replace").split())
    words = "".join(char if char.isprintable() else "?" for char in words[:READ])
    local = mail.recipient.rpartition("@")[0]
    for known in filter(None, (mail.recipient, local, local.partition("+")[0])):
        alone = rf"(?<![^\W_]){re.escape(known)}(?![^\W_])"
        words = re.sub(alone, "(address)", words, flags=re.IGNORECASE)
    return _ADDRESS.sub("(address)", words)[:SHOWN]


def _write_file(message: EmailMultiAlternatives, about_to_send: Callable[[], None]) -> Answer:
    """Store a message as a file, where there is no mail server; a repeat would be another file."""
    now = timezone.now()  # noqa: TID251  # a name that only a person reads
    name = f"{now:%Y%m%dT%H%M%S}-{uuid4().hex[:8]}.eml"
    settings.MAIL_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = settings.MAIL_DIR / f".{name}"
    parsed: Any = message.message()
    try:
        draft.write_bytes(parsed.as_bytes(linesep="\r\n"))
        about_to_send()
        draft.rename(settings.MAIL_DIR / name)
    finally:
        draft.unlink(missing_ok=True)
    return Answer(Verdict.SENT, "file", said=name)
