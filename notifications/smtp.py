"""Connections to the mail server that know how far a message has got.

Django's backend and ``smtplib`` speak the protocol. What is ours: a hook before the first byte of a
message, the step at which it ended, bounds on every answer, and a connection kept for a run of mails.
"""

import io
import math
import re
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend
from django.core.mail.utils import DNS_NAME

from booking_platform.servers import is_host
from notifications.answers import MAIL, MESSAGE

IDLE_SECONDS = 5.0  # that a connection is kept open for the next mail of a run
LONGEST_ANSWER = 64 * 1024  # bytes; the lines of RFC 5321 have 512

GO_AHEAD = 354  # the answer to DATA that asks for the message (RFC 5321, 4.3.2)
# Names of a machine that no DNS has: a server that checks the name refuses them.
NO_DOMAINS = (".localdomain", ".local", ".internal", ".arpa")

NO_ANSWER = b"no whole answer in time"
NOT_SMTP = b"an answer that is not SMTP"


class Undelivered(Exception):
    """A message was not accepted at ``step``; ``code`` is None where no answer of SMTP came."""

    def __init__(self, step: str, code: int | None, text: bytes) -> None:
        super().__init__(step, code)
        self.step, self.code, self.text = step, code, text

    @property
    def of_connection(self) -> bool:
        """Whether the server may have spoken of the connection, and not of the message.

        It has ended it, or what answered MAIL had been said before, to a client that was idle.
        """
        return self.step == MAIL or (self.step != MESSAGE and self.code in (None, 421))


def deliver(
    message: EmailMultiAlternatives, about_to_send: Callable[[], None], *, within: float
) -> None:
    """Return when the server has accepted the message.

    All that comes before the message has ``within`` seconds, since no more than that is left of the
    lease; each answer, and the one to the message, has ``SMTP_TIMEOUT_SECONDS``.

    ``about_to_send`` is called last before anything of the message goes out; what it raises keeps
    the message here, and is raised.

    Raises:
        Undelivered: the server said no to a step of the message, or nothing.
    """
    backend = _backend()
    with backend.in_use(time.monotonic() + within):
        kept = backend.connection is not None
        try:
            backend.hand_over(message, about_to_send)
        except Undelivered as problem:
            if not (kept and problem.of_connection):
                raise
            backend.hand_over(message, about_to_send)


def hang_up() -> None:
    """Close this thread's connection, if it has one."""
    if _kept.backend is not None:
        _kept.backend.end()
    _kept.backend = None


def own_name(sock: socket.socket) -> str:
    """Return the name that the client says it has (RFC 5321, 4.1.1.1).

    That is the setting, or this machine's full name, or the address of the connection as a literal
    (RFC 5321, 4.1.3). A short name such as ``web-1`` is refused by servers that check it.
    """
    if settings.SMTP_EHLO:
        return str(settings.SMTP_EHLO)
    name = str(DNS_NAME).rstrip(".")
    if _is_full_name(name):
        return name
    address = sock.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _is_full_name(name: str) -> bool:
    """Return whether the DNS may know a name: one with a domain, and no address."""
    known = "." in name and not name.casefold().endswith(NO_DOMAINS)
    return known and is_host(name) and not name.replace(".", "").isdigit()


class _Answers(io.RawIOBase):
    """The server's side of a connection. Each answer is bounded in time and in size."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._deadline = 0.0
        self._left = 0

    def expect(self, seconds: float) -> None:
        self._deadline, self._left = time.monotonic() + seconds, LONGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no whole answer in time")
        self._sock.settimeout(remaining)
        got = self._sock.recv_into(buffer)
        self._left -= got
        if self._left < 0:
            raise OSError(f"an answer of more than {LONGEST_ANSWER} bytes")
        return got


class Conversation(smtplib.SMTP):
    """A connection that calls ``about_to_send``, and knows the step that it has got to.

    A step's refusal is raised at once: ``smtplib`` would say RSET first, and forget the refusal if
    the server does not answer that.
    """

    step = "connection"
    about_to_send: Callable[[], None]
    timeout: float
    _answers: _Answers | None = None

    def __init__(self, *args: Any, until: float, **options: Any) -> None:
        self.until = until  # by the monotonic clock: the message must be asked for
        super().__init__(*args, **options)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self._answers = _Answers(self.sock)
            self.file = io.BufferedReader(self._answers)
        if self._answers is not None:
            left = self.timeout if self.step == MESSAGE else self.until - time.monotonic()
            self._answers.expect(min(self.timeout, left))
        reply = super().getreply()
        if self.sock is not None:
            self.sock.settimeout(self.timeout)  # of which the answer may have left little
        return reply

    def ehlo(self, name: str = "") -> tuple[int, bytes]:
        return super().ehlo(name or self._own_name())

    def helo(self, name: str = "") -> tuple[int, bytes]:
        return super().helo(name or self._own_name())

    def _own_name(self) -> str:
        return (
            own_name(self.sock) if self.sock is not None else ""
        )  # smtplib says that it is closed

    def mail(self, sender: str, options: Sequence[str] = ()) -> tuple[int, bytes]:
        self.step = MAIL
        return self._accepted(super().mail(sender, options))

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> tuple[int, bytes]:
        self.step = "RCPT"
        return self._accepted(super().rcpt(recip, options))

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.step = "DATA"
        reply = self.docmd("DATA")
        if reply[0] != GO_AHEAD:
            self._accepted(reply)
            raise Undelivered(self.step, *reply)
        self.about_to_send()
        self.step = MESSAGE
        self.send(re.sub(rb"(?m)^\.", b"..", msg).removesuffix(b"\r\n") + b"\r\n.\r\n")
        return self._accepted(self.getreply())

    def _accepted(self, reply: tuple[int, bytes]) -> tuple[int, bytes]:
        code, text = reply
        if code < 0:  # smtplib's, for what has no code
            raise Undelivered(self.step, None, NOT_SMTP)
        match code // 100:
            case 2:
                return 250, text  # the one yes that smtplib takes for every step
        raise Undelivered(self.step, code, text)


class TlsConversation(Conversation, smtplib.SMTP_SSL):
    """One that is encrypted from its first byte."""


class Backend(EmailBackend):
    """Django's SMTP backend, with a connection that is kept for a run of mails."""

    connection: Conversation | None
    _partial_connection: Conversation | None

    def __init__(self) -> None:
        super().__init__(
            host=settings.SMTP_HOST,
            port=settings.SMTP_PORT,
            username=settings.SMTP_USER,
            password=settings.SMTP_PASS,
            use_tls=settings.SMTP_SECURITY == "starttls",
            use_ssl=settings.SMTP_SECURITY == "tls",
            timeout=settings.SMTP_TIMEOUT_SECONDS,
        )
        self._closing: threading.Timer | None = None
        self._until = 0.0

    @property
    def connection_class(self) -> Callable[..., Conversation]:  # type: ignore[override]
        return partial(TlsConversation if self.use_ssl else Conversation, until=self._until)

    @contextmanager
    def in_use(self, until: float) -> Iterator[None]:
        """Keep the connection for as long as the block runs, and a little longer."""
        if self._closing is not None:
            self._closing.cancel()
        with self._lock:
            self._until = until
            yield
            self._closing = threading.Timer(IDLE_SECONDS, self.end)
            self._closing.daemon = True
            self._closing.start()

    def hand_over(self, message: EmailMultiAlternatives, about_to_send: Callable[[], None]) -> None:
        """Send a message over the connection, or over a new one; drop that unless all went well."""
        try:
            self.open()
            assert self.connection is not None
            self.connection.step = "connection"  # not what the mail before has got to
            self.connection.about_to_send, self.connection.until = about_to_send, self._until
            self.send_messages([message])
        except (smtplib.SMTPException, OSError) as error:
            # An SMTPResponseException too: smtplib gives what it can't read a code of its own.
            step = self.connection.step if self.connection is not None else "connection"
            self._drop()
            raise Undelivered(step, None, _described(error)) from error
        except BaseException:
            self._drop()
            raise

    def end(self) -> None:
        """Close the connection, if there is one."""
        with self._lock:
            if self.connection is not None:
                self.connection.timeout = IDLE_SECONDS
                self.connection.step, self.connection.until = "QUIT", math.inf
            with suppress(smtplib.SMTPException, OSError):
                self.close()
            self._drop()

    def _drop(self) -> None:
        """End the connection without a word: the server may not be listening."""
        for connection in (self.connection, self._partial_connection):
            if connection is not None:
                with suppress(OSError):
                    connection.close()
        self.connection = self._partial_connection = None


def _described(error: Exception) -> bytes:
    if isinstance(error.__context__, TimeoutError):  # smtplib calls that closed
        return NO_ANSWER
    if isinstance(error, smtplib.SMTPAuthenticationError):  # some servers repeat what they got
        return f"{type(error).__name__}: {error.smtp_code}".encode()
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code < 0:
        return NOT_SMTP
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        text = text if isinstance(text, bytes) else text.encode()
        return b"%s: %d %s" % (type(error).__name__.encode(), error.smtp_code, text)
    return f"{type(error).__name__}: {error}".encode()


class _Kept(threading.local):
    backend: Backend | None = None


_kept = _Kept()


def _backend() -> Backend:
    if _kept.backend is None:
        _kept.backend = Backend()
    return _kept.backend
