"""The columns of reservations as CSV."""

from booking_platform.operations.exports import Column, columns

RESERVATIONS = (
    *columns("booking_id", "tour_id"),
    Column("tour", ("tour__name",)),
    *columns("state", "seats", "booked", "seats_cancelled"),
    *columns("created_event_id", "cancelled_event_id", "created_at", "updated_at"),
)
