"""The events that producers publish, field by field.

The JSON name of a field is its name here in camelCase. Unknown fields are ignored. The bounds are
those of the database columns in which the values are stored, so that no value can overflow there.
"""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from booking_platform.contract.envelope import Identifier, Payload

MAX_SEATS = 1_000_000  # per event; far above any tour, far below what the columns hold

# The descriptions and examples are what a refusal says of the field.
TourId = Annotated[
    int, Meta(ge=1, le=2**63 - 1, description="a JSON integer from 1 to 2⁶³−1", examples=[42])
]
Seats = Annotated[
    int,
    Meta(ge=1, le=MAX_SEATS, description=f"a JSON integer from 1 to {MAX_SEATS:,}", examples=[2]),
]
SeatsLeft = Annotated[
    int,
    Meta(ge=0, le=MAX_SEATS, description=f"a JSON integer from 0 to {MAX_SEATS:,}", examples=[1]),
]
Revision = Annotated[
    int, Meta(ge=0, le=2**63 - 1, description="a JSON integer from 0 to 2⁶³−1", examples=[7])
]
Amount = Annotated[Decimal, Meta(description="a number with a decimal point", examples=["80.00"])]
Currency = Annotated[
    str, Meta(min_length=3, max_length=3, description="three letters", examples=["eur"])
]
Address = Annotated[
    str,
    Meta(
        max_length=1000,
        description="a string of up to 1,000 characters",
        examples=["customer@example.com"],
    ),
]
TourName = Annotated[
    str, Meta(max_length=10_000, description="a string of up to 10,000 characters")
]
Locale = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=35,
        description="a string of 2 to 35 characters",
        examples=["en-GB"],
    ),
]


class BookingCreated(Payload, frozen=True, kw_only=True):
    """A customer booked seats on a tour. The booking id is optional."""

    tour_id: TourId
    seats_booked: Seats
    booking_id: Identifier | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id or ""


class BookingCancelled(Payload, frozen=True, kw_only=True):
    """A customer's booking was cancelled, or a part of it; ``amount`` is to be refunded, in major units.

    ``seats_remaining`` is the number of seats that the booking keeps, and the name of this step of
    its life. Without it the whole booking is meant, except for the seats: never more of them are
    released than ``seats_released`` says.
    """

    booking_id: Identifier
    tour_id: TourId
    seats_released: Seats
    seats_remaining: SeatsLeft | None = None
    revision: Revision | None = None
    payment_id: Identifier | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    user_email: Address | None = None
    tour_name: TourName | None = None
    locale: Locale | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id


class BookingChanged(Payload, frozen=True, kw_only=True):
    """A booking has another number of seats from now on; the greatest revision is the newest."""

    booking_id: Identifier
    tour_id: TourId
    seats: Seats
    revision: Revision

    @property
    def aggregate_id(self) -> str:
        return self.booking_id
