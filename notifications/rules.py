"""The rules of cancellation e-mails: one for each step, and none sent twice without a person's word.

Everything here is pure. ``recipient`` reads from the event whom to tell, ``repeated`` decides about a step
that is known already, ``verdict`` says what the answer of a mail server proves, and ``judge`` returns what
becomes of the mail. ``docs/emails.md`` draws the states
and has the answers as a table. ``failed`` and ``uncertain`` wait for a person. Nothing is sent again by
itself that may have been sent, as a customer told twice is worse than one told late; with
``EMAIL_UNCERTAIN`` set to ``resend`` it is, once.
"""

import re
from datetime import datetime
from email.utils import parseaddr
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.db import models
from django.utils.encoding import punycode

from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.retention import LONGEST_RETRY
from booking_platform.messaging.rules import (
    AMBIGUOUS,
    DIFFERS,
    INVALID,
    Applied,
    Refused,
    Result,
)
from notifications.addresses import UnusableAddress, mailbox
from notifications.announcing import GIVEN_UP, NO_ANSWER, REFUSED
from notifications.answers import MESSAGE, Answer, Verdict
from notifications.models import CancellationEmail

State = CancellationEmail.State

# Answers about who we are and how we speak, and not about the mail: 530, 534, 535 and 538 ask for
# authentication or encryption (RFC 4954, 6), 502, 503 and 504 are about commands (RFC 5321, 4.2.3), 521
# takes no mail at all (RFC 7504). Servers may put them off until MAIL or RCPT, as Postfix does with what
# it thinks of the client and of its name (smtpd_delay_reject), for which it has 501, 550 and 554 too.
ABOUT_CONNECTION = (502, 503, 504, 521, 530, 534, 535, 538)
SAYS_SO = re.compile(r"\b(?:EHLO|HELO|client host)\b|\b5\.7\.25\b", re.IGNORECASE)  # 25: RFC 7372


class Outcome(models.TextChoices):
    REQUESTED = "email_requested", "the customer is to be told by e-mail"
    KNOWN = "email_known", "this step of the booking has its e-mail already"
    NO_ADDRESS = "no_address", "named no address to tell"


def recipient(payload: BookingCancelled) -> str | Refused:
    """Return the address to tell, or what is wrong with it; empty where the event names none."""
    if not (payload.user_email or "").strip():
        return ""
    try:
        return mailbox(payload.user_email or "")
    except UnusableAddress as error:
        detail = f"payload.userEmail is not one e-mail address that can be used: {error}"
        return Refused(INVALID, detail)


def repeated(earlier: CancellationEmail, recipient: str, payload: BookingCancelled) -> Result:
    """Return what becomes of a cancellation, not told before, of a step that has its e-mail.

    Only where both events named the step is another event id known to say the same once more: without
    a name it may also be that more seats were cancelled. With another revision it may be too, since a
    change can bring a booking to a number of seats again.
    """
    booking = f"booking {earlier.booking_id!r}"
    if not earlier.forgotten and earlier.recipient.casefold() != recipient.casefold():
        return Refused(
            DIFFERS, f"{booking} was to be told to another address than payload.userEmail"
        )
    if not earlier.step_named or payload.seats_remaining is None:
        why = "payload.seatsRemaining does not tell the two apart"
    elif earlier.revision != payload.revision:
        why = (
            f"it was of {_revision(earlier.revision)}, this one is of {_revision(payload.revision)}"
        )
    else:
        return Applied(Outcome.KNOWN)
    return Refused(AMBIGUOUS, f"{booking} was told of a cancellation before, and {why}")


def _revision(number: int | None) -> str:
    return "no revision" if number is None else f"revision {number}"


def message_id(booking_id: str, seats_remaining: int) -> str:
    """Return the ``Message-ID`` of a step's e-mail, under the domain that it is sent from.

    It derives from what is told, so that mail systems recognise a repeat. It is a hash, since a
    booking id may hold anything but NUL. That of the whole booking names no step, as in mails that
    were stored before there were steps.
    """
    domain = parseaddr(settings.EMAIL_FROM)[1].rpartition("@")[2]
    step = f"\0{seats_remaining}" if seats_remaining else ""
    digest = sha256(f"BookingCancelled\0{booking_id}{step}".encode()).hexdigest()
    return f"<{digest[:32]}@{punycode(domain)}>"


def verdict(step: str, code: int | None, said: str = "") -> Verdict:
    """Return what the answer of a mail server at a step proves; ``code`` is None if none came.

    - What is said of the connection is never the mail's fault: it passes when the connection is
      mended. After the message it is no reason to send that again, as it was an answer to it.

    - 4yz: the same may be asked for again; 5yz: it should not be (RFC 5321, 4.2.1). 421 is a 4yz
      at any step (RFC 5321, 3.8). What comes before MAIL never gets here with a 5yz of this mail.
    - A server that has answered 2yz to the message is responsible for it (RFC 5321, 6.1). One that
      has not answered may have taken it or not: RFC 1047 tells how that makes duplicates. Before the
      message, nothing can have been sent: a server takes it on when its last line has arrived
      (RFC 5321, 4.1.1.4).
    """
    if step != MESSAGE and (code in ABOUT_CONNECTION or SAYS_SO.search(said)):
        return Verdict.AGAIN
    match (code or 0) // 100:
        case 4:
            return Verdict.AGAIN
        case 5:
            return Verdict.REFUSED
    return Verdict.UNCERTAIN if step == MESSAGE else Verdict.AGAIN


def judge(mail: CancellationEmail, answer: Answer, now: datetime) -> Conclusion:
    """Return what becomes of a mail after an answer.

    What may have been sent once stays so: a later refusal only says that the repeat was not.
    """
    uncertain = answer.verdict is Verdict.UNCERTAIN
    unanswered = mail.unanswered + uncertain
    tried_enough = mail.attempts >= settings.RETRY_ATTEMPTS or now - mail.wanted_at > LONGEST_RETRY
    columns: dict[str, Any] = {"unanswered": unanswered, "next_attempt_at": None, "reason": ""}
    said, reason = str(answer), REFUSED
    match answer.verdict:
        case Verdict.SENT:
            return Conclusion(columns | {"state": State.SENT, "sent_at": now, "last_error": ""})
        case Verdict.AGAIN if not tried_enough:
            return Conclusion(columns | {"state": State.PENDING, "last_error": said}, again=True)
        case Verdict.UNCERTAIN if settings.EMAIL_UNCERTAIN == "resend" and unanswered == 1:
            return Conclusion(columns | {"state": State.PENDING, "last_error": said}, again=True)
        case Verdict.AGAIN:
            said = f"given up after {mail.attempts} attempts; the last: {said}"
            reason = GIVEN_UP
    if unanswered and not uncertain:
        said += "; an earlier attempt got no answer"
    state, reason = (State.UNCERTAIN, NO_ANSWER) if unanswered else (State.FAILED, reason)
    return Conclusion(columns | {"state": state, "reason": reason, "last_error": said})
