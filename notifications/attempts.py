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

``failed`` and ``uncertain`` wait for a person, who has it sent again or closes the matter. Nothing is
sent again by itself that may have been sent, a customer told twice being worse than one told late;
with ``EMAIL_UNCERTAIN`` set to ``resend`` it is, once.
"""

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any

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
    """Judge what became of a mail.

    What may have been sent once stays so: a later refusal only says that the repeat was not.
    """
    uncertain = answer.outcome is Outcome.UNCERTAIN
    unanswered = mail.unanswered + uncertain
    tried_enough = mail.attempts >= settings.RETRY_ATTEMPTS or now - mail.wanted_at > LONGEST_RETRY
    columns: dict[str, Any] = {"unanswered": unanswered, "next_attempt_at": None}
    said = str(answer)
    match answer.outcome:
        case Outcome.SENT:
            return Conclusion(columns | {"state": State.SENT, "sent_at": now, "last_error": ""})
        case Outcome.AGAIN if not tried_enough:
            return Conclusion(columns | {"state": State.PENDING, "last_error": said}, again=True)
        case Outcome.UNCERTAIN if settings.EMAIL_UNCERTAIN == "resend" and unanswered == 1:
            return Conclusion(columns | {"state": State.PENDING, "last_error": said}, again=True)
        case Outcome.AGAIN:
            said = f"given up after {mail.attempts} attempts; the last: {said}"
    if unanswered and not uncertain:
        said += "; an earlier attempt got no answer"
    state = State.UNCERTAIN if unanswered else State.FAILED
    return Conclusion(columns | {"state": state, "last_error": said})


def _act(mail: CancellationEmail) -> Conclusion:
    if mail.state != State.PENDING:  # settled since it became due
        return Conclusion()
    answer = _handed_over(mail)
    conclusion = conclude(mail, answer, timezone.now())
    _tell(mail, answer, conclusion)
    return conclusion


def _handed_over(mail: CancellationEmail) -> Answer:
    if mail.attempts > settings.RETRY_ATTEMPTS:  # none of which lived to tell
        return Answer(Outcome.AGAIN, "its leases ended before it was handed over")
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
    # A whole lease for the message and its answer, whatever came before them has taken.
    mail.lease_until = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
    leases.write(mail, state=State.SENDING, lease_until=mail.lease_until)
    mail.state = State.SENDING


def _tell(mail: CancellationEmail, answer: Answer, conclusion: Conclusion) -> None:
    """Log and count what an attempt came to. What the server said may hold the address."""
    line, level = "E-mail sent", logging.INFO
    if conclusion.again:
        known = "may have been sent" if answer.outcome is Outcome.UNCERTAIN else "not sent"
        line, level = f"E-mail {known}: tried again later", logging.WARNING
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
        error=answer.said.partition(":")[0] if level > logging.INFO and not answer.code else None,
    )
