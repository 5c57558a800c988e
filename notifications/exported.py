"""The columns of cancellation e-mails as CSV: no subject and no text, which say what the booking says."""

from booking_platform.operations.exports import Column, columns

EMAILS = (
    *columns("booking_id", "seats_remaining", "step_named", "event_id", "state", "reason"),
    Column("recipient", private=True),
    *columns("locale", "message_id", "attempts", "unanswered", "next_attempt_at"),
    Column("last_error", foreign=True),
    *columns("created_at", "wanted_at", "sent_at", "updated_at", "forgotten_at"),
    *columns("settled_at", "settled_by"),
    Column("settlement", foreign=True),
)
