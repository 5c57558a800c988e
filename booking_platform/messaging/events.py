"""The events that producers publish: the contract, field by field.

JSON names are the camelCase of these. Unknown fields are ignored. Bounds are those of the
database columns that the values end in, so that nothing can overflow further down.
"""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

MAX_SEATS = 1_000_000  # per event; far above any tour, far below what the columns hold

Identifier = Annotated[str, Meta(min_length=1, max_length=255)]
TourId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Seats = Annotated[int, Meta(ge=1, le=MAX_SEATS)]
ShortText = Annotated[str, Meta(max_length=1000)]


class BookingCreated(Struct, frozen=True, kw_only=True, rename="camel"):
    """A customer booked seats on a tour. A producer may leave the booking without an id."""

    tour_id: TourId
    seats_booked: Seats
    booking_id: Identifier | None = None


class BookingCancelled(Struct, frozen=True, kw_only=True, rename="camel"):
    """A customer's booking was cancelled; ``amount`` is in major units, to be paid back."""

    booking_id: Identifier
    tour_id: TourId
    seats_released: Seats
    payment_id: Identifier | None = None
    amount: Decimal | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None = None
    user_email: ShortText | None = None
    tour_name: Annotated[str, Meta(max_length=10_000)] | None = None
    locale: Annotated[str, Meta(min_length=2, max_length=35)] | None = None

    def __post_init__(self) -> None:
        """Put the defaults where a producer wrote nothing, or null."""
        force_setattr(self, "currency", self.currency or "eur")
        force_setattr(self, "locale", self.locale or "fr")


Payload = BookingCreated | BookingCancelled
