"""The columns of dead letters as CSV."""

from booking_platform.operations.exports import Column, columns

LETTERS = (
    *columns("id", "queue", "event_id", "event_type", "reason"),
    Column("detail", foreign=True),  # it may repeat a value of the message
    *columns("attempts", "state", "parked_at", "last_parked_at", "size"),
    *columns("resolved_at", "resolved_by"),
    Column("resolution", foreign=True),
    *columns("edited_event_id", "edited_by", "edited_at", "forgotten_at"),
    Column("body", private=True),
    Column("edited_body", private=True),
)
