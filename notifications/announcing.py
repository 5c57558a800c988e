"""What the notifications announce of an e-mail: what came of it, and no address.

That is derived from the columns alone. An e-mail that is still to be sent is not announced, nor that a
person has it sent again: what comes of that is.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from booking_platform.contract.announcements import (
    CancellationEmailFailed,
    CancellationEmailSent,
    CancellationEmailSettled,
    CancellationEmailUncertain,
    EmailAnnouncement,
)
from booking_platform.contract.announcing import Announced, announced

SENT, FAILED, UNCERTAIN = "sent", "failed", "uncertain"  # as the model has them

REFUSED, GIVEN_UP, NO_ANSWER = "refused", "given_up", "no_answer"

REASONS = {
    REFUSED: "a mail server refused it for good",
    GIVEN_UP: "it was put off for too long, or too often",
    NO_ANSWER: "it was handed over, and no answer is known",
}

_KINDS: dict[str, type[EmailAnnouncement]] = {
    SENT: CancellationEmailSent,
    FAILED: CancellationEmailFailed,
    UNCERTAIN: CancellationEmailUncertain,
}


class Facts(NamedTuple):
    """The columns of an e-mail that announcements tell of."""

    event_id: str
    booking_id: str
    seats_remaining: int
    revision: int | None
    state: str
    reason: str
    settled_at: datetime | None


def of_change(before: Facts, after: Facts, *, told: int, at: datetime) -> Sequence[Announced]:
    """Return what is announced of a change; ``told`` is how many announcements there were before."""
    payload = _payload(after, told + 1)
    if payload is None or payload == _payload(before, told + 1):
        return ()
    # The version makes it one of its kind: what fails, is sent again and fails again is new.
    return [announced(payload, cause=msgspec.json.encode(payload).decode(), at=at)]


def _payload(facts: Facts, version: int) -> EmailAnnouncement | None:
    """Return what there is to announce; None while the e-mail is still to be sent."""
    kind = CancellationEmailSettled if facts.settled_at else _KINDS.get(facts.state)
    if kind is None:
        return None
    return kind(
        booking_id=facts.booking_id,
        seats_remaining=facts.seats_remaining,
        revision=facts.revision,
        reason=None if facts.settled_at else facts.reason or None,
        version=version,
        caused_by=facts.event_id or None,
    )
