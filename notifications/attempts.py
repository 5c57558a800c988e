"""E-mails: stored with the event that asks for them, and handed over to a mail server under a lease.

``rules`` decides; what is here reads and writes.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog
from django.conf import settings

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging import claims, clock, leases
from booking_platform.messaging.attempt_log import Said
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.metrics import Counter
from booking_platform.messaging.rows import insert_missing
from booking_platform.messaging.rules import Applied, Refused, Result
from notifications import mailer, rules
from notifications.answers import Answer, Verdict
from notifications.composing import compose
from notifications.models import CancellationEmail
from notifications.rules import Outcome

log = structlog.get_logger(__name__)

EMAIL_ATTEMPTS = Counter(
    "email_attempts_total", "Attempts at e-mails, by what they came to.", ["result"]
)

State = CancellationEmail.State

SENT = "E-mail sent"
WORKER_LOST = "its worker was lost while it handed the mail over"


def request(events: Sequence[Event]) -> list[Result]:
    """Store whom to tell, in the transaction of the caller; attempt it after the commit.

    A step of a booking's cancellation has one e-mail, whichever event asks for it. What is neither
    the step's first event nor surely a repeat of one is refused: a person decides whom to tell.
    """
    return [_request(event) for event in events]


def attempt(mail: CancellationEmail) -> Conclusion:
    """Hand over an e-mail that this worker has under lease."""
    if mail.state != State.PENDING:  # sent, or decided about, since it became due
        return Conclusion()
    return _judged(mail, _handed_over(mail), clock.now())


def lost(mail: CancellationEmail, now: datetime) -> Conclusion:
    """Return what becomes of a mail that was being handed over when its lease ended."""
    return _judged(mail, Answer(Verdict.UNCERTAIN, WORKER_LOST), now)


def _request(event: Event) -> Result:
    payload: BookingCancelled = event.payload
    recipient = rules.recipient(payload)
    if isinstance(recipient, Refused):
        return recipient
    if not recipient:
        return Applied(Outcome.NO_ADDRESS)
    mail = _insert(event, recipient)
    if mail is not None:
        return Applied(Outcome.REQUESTED, then=partial(leases.carry_on, mail, attempt))
    if claims.told_before(event, Outcome.values):
        return Applied(Outcome.KNOWN)
    earlier = CancellationEmail.objects.get(
        booking_id=payload.booking_id, seats_remaining=payload.seats_remaining or 0
    )
    return rules.repeated(earlier, recipient, payload)


def _insert(event: Event, recipient: str) -> CancellationEmail | None:
    """Store the e-mail of a step, under the lease of this worker; return None if it has one already."""
    payload: BookingCancelled = event.payload
    letter = compose(payload)
    seats_remaining = payload.seats_remaining or 0
    now = clock.now()
    columns = {
        **leases.new_lease(),
        "event_id": event.event_id,
        "booking_id": payload.booking_id,
        "seats_remaining": seats_remaining,
        "step_named": payload.seats_remaining is not None,
        "revision": payload.revision,
        "state": State.PENDING,
        "recipient": recipient,
        "locale": letter.language,
        "subject": letter.subject,
        "text_body": letter.text,
        "html_body": letter.html,
        "message_id": rules.message_id(payload.booking_id, seats_remaining),
        "created_at": now,
        "wanted_at": now,
        "updated_at": now,
        "trace": event.traceparent,
    }
    inserted = insert_missing(CancellationEmail, [columns], key="id")
    return CancellationEmail(pk=inserted.pop(), **columns) if inserted else None


def _judged(mail: CancellationEmail, answer: Answer, now: datetime) -> Conclusion:
    conclusion = rules.judge(mail, answer, now)
    level, line = _line(answer, conclusion)
    return replace(
        conclusion,
        tell=partial(_tell, mail, answer, conclusion, level, line),
        said=Said(line, str(answer)),
    )


def _handed_over(mail: CancellationEmail) -> Answer:
    if mail.attempts > settings.RETRY_ATTEMPTS:  # none of which lived to tell
        return Answer(Verdict.AGAIN, "its leases ended before it was handed over")
    leases.still_held(mail)
    try:
        return mailer.send(mail, partial(_mark_sending, mail))
    except LeaseLost:
        raise
    except Exception as error:
        log.exception("An attempt at an e-mail failed", booking_id=mail.booking_id)
        unknown = mail.state == State.SENDING
        verdict = Verdict.UNCERTAIN if unknown else Verdict.AGAIN
        return Answer(verdict, "a fault of ours", said=type(error).__name__)


def _mark_sending(mail: CancellationEmail) -> None:
    # A whole lease for the message and its answer, whatever came before them has taken.
    leases.begin_anew(mail, state=State.SENDING)
    mail.state = State.SENDING


def _line(answer: Answer, conclusion: Conclusion) -> tuple[int, str]:
    """Return what an attempt came to, as a line of the log and its level."""
    line, level = SENT, logging.INFO
    if conclusion.again:
        known = "may have been sent" if answer.verdict is Verdict.UNCERTAIN else "not sent"
        line, level = f"E-mail {known}: tried again later", logging.WARNING
    elif answer.verdict is not Verdict.SENT:
        line, level = "E-mail waits for a person", logging.WARNING
    return level, line


def _tell(
    mail: CancellationEmail, answer: Answer, conclusion: Conclusion, level: int, line: str
) -> None:
    """Log and count what an attempt came to. What the server said may hold the address."""
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
