"""Attempts at e-mails: handed over under a lease, and judged by what the mail server answers.

::

                  BookingCancelled
                         │ the mail, committed with the event
                         ▼
        ┌──────────► pending ───────────────────┐
        │ not sent:    │ 354: the message        │ refused for good, or
        │ due later    ▼ goes out next           │ tried for too long
        └────────── sending ──────────────────► failed
                       │   │
        2yz: accepted  │   │ no answer, or the worker died
                       ▼   ▼
                    sent ◄── uncertain
                 a late answer

``failed`` and ``uncertain`` wait for a person, who has it sent again or closes the matter. Nothing
leaves ``uncertain`` by itself, unless ``EMAIL_UNCERTAIN`` is ``resend``: a customer told twice is worse
than one told late.
"""

import logging
from datetime import datetime
from functools import partial

import structlog
from django.conf import settings
from django.utils import timezone
from prometheus_client import Counter

from booking_platform.messaging import leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.retention import LONGEST_RETRY
from notifications import mailer
from notifications.mailer import Answer, Outcome
from notifications.models import CancellationEmail

log = structlog.get_logger(__name__)

EMAIL_ATTEMPTS = Counter(
    "email_attempts_total", "Attempts at e-mails, by what they came to.", ["result"]
)

State = CancellationEmail.State

WORKER_LOST = "its worker was lost while it handed the mail over"


def attempt(pk: int) -> None:
    """Attempt an e-mail that is due; return when the outcome is committed, or left to the next."""
    # What is being sent keeps the lease of its holder, whose late answer may still settle it.
    leases.attempt(CancellationEmail.objects.filter(pk=pk).exclude(state=State.SENDING), _act)


def carry_on(mail: CancellationEmail) -> None:
    """Attempt an e-mail that this worker has under lease."""
    leases.carry_on(mail, _act)


def judge_abandoned() -> int:
    """Judge what was being handed over when its lease ended; give how many.

    The lease's token stays, so that a holder who is only late may still write what it learns.
    """
    now = timezone.now()
    lost = leases.abandoned(CancellationEmail.objects.filter(state=State.SENDING), now)
    judged = 0
    for mail in lost:
        answer = Answer(Outcome.UNCERTAIN, WORKER_LOST)
        conclusion = conclude(mail, answer, now)
        columns = {"lease_until": None, "updated_at": now, **conclusion.columns}
        if conclusion.again:
            columns["next_attempt_at"] = now
        if lost.filter(pk=mail.pk, lease_token=mail.lease_token).update(**columns):
            _tell(mail, answer, conclusion)
            judged += 1
    return judged


def conclude(mail: CancellationEmail, answer: Answer, now: datetime) -> Conclusion:
    """Judge what became of a mail."""
    columns = {"state": State.PENDING, "last_error": str(answer), "next_attempt_at": None}
    tried_enough = mail.attempts >= settings.RETRY_ATTEMPTS or now - mail.wanted_at > LONGEST_RETRY
    match answer.outcome:
        case Outcome.SENT:
            return Conclusion(columns | {"state": State.SENT, "sent_at": now, "last_error": ""})
        case Outcome.REFUSED:
            return Conclusion(columns | {"state": State.FAILED})
        case Outcome.UNCERTAIN if tried_enough or settings.EMAIL_UNCERTAIN == "ask":
            return Conclusion(columns | {"state": State.UNCERTAIN})
        case Outcome.AGAIN if tried_enough:
            why = f"given up after {mail.attempts} attempts; the last: {answer}"
            return Conclusion(columns | {"state": State.FAILED, "last_error": why})
    return Conclusion(columns, again=True)


def _act(mail: CancellationEmail) -> Conclusion:
    if mail.state != State.PENDING:  # settled since it became due
        return Conclusion()
    answer = _handed_over(mail)
    conclusion = conclude(mail, answer, timezone.now())
    _tell(mail, answer, conclusion)
    return conclusion


def _handed_over(mail: CancellationEmail) -> Answer:
    if mail.attempts > settings.RETRY_ATTEMPTS:  # none of which lived to tell
        return Answer(Outcome.AGAIN, "its workers died")
    leases.still_held(mail)
    try:
        return mailer.send(mail, partial(_mark_sending, mail))
    except LeaseLost:
        raise
    except Exception as error:
        log.exception("An attempt at an e-mail failed", booking_id=mail.booking_id)
        unknown = mail.state == State.SENDING
        outcome = Outcome.UNCERTAIN if unknown else Outcome.AGAIN
        return Answer(outcome, "a fault of ours", said=type(error).__name__)


def _mark_sending(mail: CancellationEmail) -> None:
    leases.still_held(mail)
    leases.write(mail, state=State.SENDING)
    mail.state = State.SENDING


def _tell(mail: CancellationEmail, answer: Answer, conclusion: Conclusion) -> None:
    """Log and count what an attempt came to. What the server said may hold the address."""
    line, level = "E-mail sent", logging.INFO
    if conclusion.again:
        line, level = "E-mail not sent: tried again later", logging.WARNING
    elif answer.outcome is not Outcome.SENT:
        line, level = "E-mail waits for a person", logging.WARNING
    EMAIL_ATTEMPTS.labels(line.lower()).inc()
    log.log(
        level,
        line,
        booking_id=mail.booking_id,
        attempt=mail.attempts,
        state=conclusion.columns["state"],
        step=answer.step,
        code=answer.code,
    )
